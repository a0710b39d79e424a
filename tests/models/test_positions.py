"""Positions, against published values, Python's own sines and interpolation written out as matrices."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tubelet.models.positions import PositionKind, Positions, resize_table, sinusoid_3d_table, sinusoid_table
from tubelet.patches import Size3

SIDES = st.integers(1, 5)
GRIDS = st.builds(Size3, SIDES, SIDES, SIDES)

few = settings(max_examples=20)


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
        positions = (token // 12, token // 4 % 3, token % 4)
        expected = []
        for position, width in zip(positions, (4, 6, 6), strict=True):
            angles = [position / 100 ** (k / (width / 2)) for k in range(width // 2)]
            expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        assert table[0, token].tolist() == pytest.approx(expected, abs=1e-6)


def test_sinusoid_3d_refuses_a_width_that_does_not_divide() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        sinusoid_3d_table(Size3(2, 2, 2), 24)


# --------------------------------------------------------------------------------------------- learned


def test_joint_positions_are_one_vector_for_each_token():
    positions = Positions("joint", Size3(2, 3, 4), 5)
    assert torch.equal(positions(), dict(positions.named_parameters())["table"])
    assert positions().shape == (1, 24, 5)


def test_separable_positions_add_time_and_position_in_the_frame():
    grid = Size3(3, 2, 4)
    positions = Positions("separable", grid, 5)
    parameters = dict(positions.named_parameters())
    assert {name: tuple(p.shape) for name, p in parameters.items()} == {"time": (1, 3, 5), "space": (1, 8, 5)}
    table = positions()
    assert table.shape == (1, 24, 5)
    for t in range(3):
        for r in range(2):
            for c in range(4):
                expected = parameters["time"][0, t] + parameters["space"][0, r * 4 + c]
                assert torch.equal(table[0, t * 8 + r * 4 + c], expected)


@pytest.mark.parametrize("kind", ["joint", "separable"])
def test_learned_positions_start_at_random_and_have_a_gradient(kind: PositionKind):
    torch.manual_seed(0)
    positions = Positions(kind, Size3(8, 14, 14), 64, class_token=True)
    for parameter in positions.parameters():
        assert parameter.std().item() == pytest.approx(0.02, rel=0.25)
    positions().sum().backward()
    gradients = {name: p.grad is not None for name, p in positions.named_parameters()}
    assert gradients.pop("class_position") is False
    assert all(gradients.values())


@pytest.mark.parametrize("kind", ["joint", "separable"])
def test_a_class_token_has_its_own_position(kind: PositionKind):
    grid = Size3(2, 2, 2)
    position = Positions(kind, grid, 5, class_token=True).class_position
    assert position is not None
    assert position.shape == (1, 1, 5)
    assert Positions(kind, grid, 5, class_token=True)().shape == (1, 8, 5)
    assert Positions(kind, grid, 5).class_position is None


@pytest.mark.parametrize("kind", ["sinusoid", "sinusoid_3d"])
def test_fixed_positions_are_neither_trained_nor_saved(kind: PositionKind):
    positions = Positions(kind, Size3(2, 2, 2), 16)
    assert not list(positions.parameters())
    assert not positions.state_dict()
    assert not positions().requires_grad


def test_fixed_positions_are_the_tables():
    grid = Size3(2, 3, 4)
    assert torch.equal(Positions("sinusoid", grid, 16)(), sinusoid_table(24, 16))
    assert torch.equal(Positions("sinusoid_3d", grid, 16)(), sinusoid_3d_table(grid, 16))


@pytest.mark.parametrize("kind", ["sinusoid", "sinusoid_3d"])
def test_fixed_positions_have_no_class_token(kind: PositionKind):
    with pytest.raises(ValueError, match=f"needs positions joint or separable, found {kind}$"):
        Positions(kind, Size3(2, 2, 2), 16, class_token=True)


@pytest.mark.parametrize("kind", ["joint", "separable"])
def test_learned_positions_have_only_their_own_grid(kind: PositionKind):
    with pytest.raises(ValueError, match=rf"position_grid must be null.*{kind}"):
        Positions(kind, Size3(2, 2, 2), 16, native_grid=Size3(2, 4, 4))


# -------------------------------------------------------------------------------------------- resizing


def stretching(old: int, new: int, kernel: str) -> npt.NDArray[np.float64]:
    """The matrix (new, old) that stretches an axis: pixels are areas, and the edge is repeated outside."""
    matrix = np.zeros((new, old))
    for k in range(new):
        center = (k + 0.5) * old / new - 0.5
        for position in range(math.floor(center) - 1, math.floor(center) + 3):
            x = abs(center - position)
            if kernel == "linear":
                weight = max(0.0, 1 - x)
            elif x <= 1:
                weight = 1.25 * x**3 - 2.25 * x**2 + 1  # Keys' cubic with a = -0.75
            else:
                weight = -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0
            matrix[k, min(max(position, 0), old - 1)] += weight
    return matrix


def stretched(table: Tensor, old: Size3, new: Size3) -> npt.NDArray[np.float64]:
    kernels = ("linear", "bicubic", "bicubic")
    time, row, column = (stretching(*sides) for sides in zip(old, new, kernels, strict=True))
    volume = table.double().numpy().reshape(*old, -1)
    return np.einsum("at,bh,cw,thwd->abcd", time, row, column, volume).reshape(1, new.volume, -1)


@few
@given(GRIDS, GRIDS, st.integers(0, 99))
def test_a_table_is_resized_axis_by_axis(old: Size3, new: Size3, seed: int):
    table = torch.randn(1, old.volume, 3, generator=torch.Generator().manual_seed(seed))
    found = resize_table(table, old, new)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    np.testing.assert_allclose(found, stretched(table, old, new), rtol=0, atol=1e-5)


@few
@given(GRIDS)
def test_resizing_to_the_same_grid_changes_nothing(grid: Size3):
    table = torch.randn(1, grid.volume, 3)
    assert torch.equal(resize_table(table, grid, grid), table)


@few
@given(GRIDS, GRIDS)
def test_a_table_of_times_stays_one(old: Size3, new: Size3):
    times = torch.randn(1, old.t, 1, 3)
    found = resize_table(times.expand(1, -1, old.h * old.w, 3).reshape(1, -1, 3), old, new)
    planes = found.reshape(new.t, new.h * new.w, 3)
    torch.testing.assert_close(planes, planes[:, :1].expand_as(planes), rtol=0, atol=1e-5)
    single = resize_table(times[:, :, 0], Size3(old.t, 1, 1), Size3(new.t, 1, 1))
    torch.testing.assert_close(planes[:, 0], single[0], rtol=0, atol=1e-5)


@few
@given(GRIDS, GRIDS)
def test_a_table_of_positions_in_the_frame_stays_one(old: Size3, new: Size3):
    positions = torch.randn(1, 1, old.h * old.w, 3)
    found = resize_table(positions.expand(1, old.t, -1, 3).reshape(1, -1, 3), old, new)
    planes = found.reshape(new.t, new.h * new.w, 3)
    torch.testing.assert_close(planes, planes[:1].expand_as(planes), rtol=0, atol=1e-5)
    single = resize_table(positions[:, 0], Size3(1, old.h, old.w), Size3(1, new.h, new.w))
    torch.testing.assert_close(planes[0], single[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("axis", "old", "new"), [(0, 8, 16), (0, 8, 4), (1, 7, 14), (2, 14, 7)])
def test_a_linear_table_stays_linear_inside(axis: int, old: int, new: int):
    before, after = [3, 4, 5], [3, 4, 5]
    before[axis], after[axis] = old, new
    positions = torch.meshgrid(*(torch.arange(side) for side in before), indexing="ij")[axis]
    found = resize_table(positions.reshape(1, -1, 1).float(), Size3(*before), Size3(*after))
    line = found.reshape(*after).movedim(axis, 0).flatten(1)
    expected = (torch.arange(new) + 0.5) * old / new - 0.5
    inside = (expected >= (1 if axis else 0)) & (expected <= old - (2 if axis else 1))
    assert inside.sum() >= new // 2
    error = (line[inside] - expected[inside, None]).abs().max()
    assert error < (0.05 if axis else 1e-5)  # bicubic with a = -0.75 is not exact on lines, but near


def test_a_resized_table_keeps_its_dtype():
    table = torch.randn(1, 8, 4)
    half = resize_table(table.bfloat16(), Size3(2, 2, 2), Size3(4, 3, 3))
    assert half.dtype == torch.bfloat16
    full = resize_table(table.bfloat16().float(), Size3(2, 2, 2), Size3(4, 3, 3))
    assert torch.equal(half, full.bfloat16())


@pytest.mark.parametrize("kind", ["sinusoid", "sinusoid_3d"])
def test_fixed_positions_made_for_another_grid_are_resized(kind: PositionKind):
    old, new = Size3(2, 3, 4), Size3(4, 5, 6)
    table = Positions(kind, old, 16)()
    found = Positions(kind, new, 16, native_grid=old)
    np.testing.assert_allclose(found(), stretched(table, old, new), rtol=0, atol=1e-5)
    assert not found.state_dict()
    assert torch.equal(Positions(kind, old, 16, native_grid=old)(), table)
    assert not torch.allclose(found(), Positions(kind, new, 16)(), atol=0.1)
