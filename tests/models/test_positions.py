"""The position table, against published values and against Python's own sines."""

import math

import pytest
import torch

from tubelet.models.positions import sinusoid_3d_table, sinusoid_table
from tubelet.patches import Size3


@pytest.mark.parametrize(
    ("token", "feature", "value"),
    [
        (0, 0, 0.0),
        (0, 1, 1.0),
        (1, 0, 0.841471),
        (1, 1, 0.540302),
        (1, 2, 0.828431),
        (1, 3, 0.560091),
        (196, 0, 0.939530),
        (196, 1, 0.342466),
        (1567, 0, 0.608948),
        (1567, 767, 0.987147),
    ],
)
def test_the_table_has_the_published_values(token: int, feature: int, value: float):
    assert sinusoid_table(1568, 768)[0, token, feature].item() == pytest.approx(value, abs=1e-6)


def test_the_table_is_computed_in_double_precision():
    table = sinusoid_table(1568, 12)
    for token in (1, 500, 1567):
        for feature in range(12):
            angle = token / 10000 ** (2 * (feature // 2) / 12)
            exact = math.cos(angle) if feature % 2 else math.sin(angle)
            assert table[0, token, feature] == torch.tensor(exact, dtype=torch.float32)


def test_the_table_is_a_float32_row_of_the_batch():
    table = sinusoid_table(7, 6)
    assert table.shape == (1, 7, 6)
    assert table.dtype == torch.float32


def test_sinusoid_3d_equals_the_formula_axis_by_axis() -> None:
    grid, dim = Size3(2, 3, 4), 16
    table = sinusoid_3d_table(grid, dim)
    assert table.shape == (1, grid.volume, dim)
    for token in range(grid.volume):
        places = (token // 12, token // 4 % 3, token % 4)
        expected = []
        for place, width in zip(places, (4, 6, 6), strict=True):
            angles = [place / 100 ** (k / (width / 2)) for k in range(width // 2)]
            expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        assert table[0, token].tolist() == pytest.approx(expected, abs=1e-6)


def test_sinusoid_3d_refuses_a_width_that_does_not_divide() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        sinusoid_3d_table(Size3(2, 2, 2), 24)
