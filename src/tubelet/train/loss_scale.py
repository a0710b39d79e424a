"""Scaling of the loss, so that the gradients of fp16 do not vanish."""

from dataclasses import dataclass

from tubelet.errors import UserError

_GROW_AFTER = 2000  # steps without overflow; like the factor 2, the default of PyTorch's GradScaler
_MIN_SCALE = 2.0**-10


@dataclass(kw_only=True)
class LossScale:
    """The factor on the loss in fp16 (arXiv 1710.03740, section 3.2): as large as the gradients allow.

    After an overflow the step is skipped and the factor halved; after 2000 steps without one it is doubled.

    Attributes:
        value: the factor, a power of 2.
        steps: steps since it last changed.
    """

    value: float = 65536.0
    steps: int = 0

    def update(self, overflowed: bool) -> None:
        """Count a step.

        Raises:
            UserError: the gradients overflow at every scale.
        """
        self.steps += 1
        if overflowed:
            self.value, self.steps = self.value / 2, 0
        elif self.steps == _GROW_AFTER:
            self.value, self.steps = self.value * 2, 0
        if self.value < _MIN_SCALE:
            raise UserError(
                "runtime.precision=fp16: the gradients overflow with every scale of the loss. The last "
                "checkpoint is intact. Lower base_lr, set clip_grad, or use precision=fp32 or bf16"
            )
