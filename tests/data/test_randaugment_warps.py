"""Shifted rows are what the kernel's definition gives, and what `affine` gives."""

import pytest
import torch

from tubelet.data.randaugment import affine, shift_rows

FILL = (9, 99, 199)


def noise(height: int = 37, width: int = 53) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


def brute_force(clip: torch.Tensor, shift: list[float]) -> torch.Tensor:
    """Shift rows pixel by pixel, by the kernel's definition (Keys, 1981, with a = -0.75)."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    out = torch.empty(clip.shape)
    width = clip.shape[-1]
    for row, by in enumerate(shift):
        for x in range(width):
            origin = x + by
            if not 0 <= origin + 0.5 < width:
                out[..., row, x] = torch.tensor(FILL).float()
                continue
            taps = range(int(origin // 1) - 1, int(origin // 1) + 3)
            out[..., row, x] = sum(
                kernel(origin - tap) * clip[..., row, min(max(tap, 0), width - 1)].float() for tap in taps
            )
    return out.clamp(0, 255)


@pytest.mark.parametrize("step", [0.0, 0.21, -0.29, 0.013])
@pytest.mark.parametrize("begin", [0.0, 4.6, -30.25, 60.0])
def test_shifting_is_the_kernel_applied_along_each_row(step: float, begin: float):
    clip = noise(21, 30)
    shift = begin + step * torch.arange(21)
    expected = brute_force(clip, shift.double().tolist())
    assert (shift_rows(clip, shift, FILL).float() - expected).abs().max() <= 0.51


@pytest.mark.parametrize(("step", "begin"), [(0.3, 0.15), (-0.3, -0.15), (0.0, 17.7), (0.0, -40.2)])
def test_shifting_is_an_affine_warp_along_rows(step: float, begin: float):
    clip = noise()
    shifted = shift_rows(clip, begin + step * torch.arange(37), FILL)
    warped = affine(clip, (1, step, begin - step / 2, 0, 1, 0), FILL)
    assert (shifted.int() - warped.int()).abs().max() <= 1
    assert (shifted != warped).float().mean() < 0.01


def test_a_shift_by_zero_changes_nothing():
    clip = noise()
    assert torch.equal(shift_rows(clip, torch.zeros(37), FILL), clip)
