"""The share of a sweep that one of several tasks runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tubelet.errors import UserError
from tubelet.sweep.plan import ArmRun


@dataclass(frozen=True)
class Share:
    """The runs of one of several tasks, such as those of a SLURM array: every `of`-th from `number` on.

    Attributes:
        number: 1 to `of`.
        of: number of tasks.
    """

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise UserError(f"a share is NUMBER/OF with 1 <= NUMBER <= OF, found {self.number}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Return the share that is written as "3/8"."""
        number, _, of = text.partition("/")
        if not number.isdecimal() or not of.isdecimal():
            raise UserError(f"--share must be NUMBER/OF, such as 3/8, found '{text}'")
        return cls(int(number), int(of))

    @classmethod
    def of_slurm(cls, environment: Mapping[str, str]) -> "Share":
        """Return the share of this task of a SLURM array; outside of an array, everything."""
        try:
            task, of, least = (
                int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "COUNT", "MIN")
            )
        except KeyError:
            return cls()
        step = int(environment.get("SLURM_ARRAY_TASK_STEP") or 1)
        if (task - least) % step or (task - least) // step >= of:
            raise UserError(
                f"SLURM_ARRAY_TASK_ID={task} is not in an evenly spaced array: use --array=1-{of}, or --share"
            )
        return cls((task - least) // step + 1, of)

    def select(self, runs: Sequence[ArmRun]) -> list[ArmRun]:
        """Return the runs of this share."""
        return list(runs[self.number - 1 :: self.of])
