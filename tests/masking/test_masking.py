"""Masks, against published counts, checksums and tables and against plain Python."""

import hashlib
import math
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tubelet.errors import UserError
from tubelet.masking import (
    AnyMasking,
    BlockMasking,
    DualMasking,
    FrameMasking,
    RandomMasking,
    RunningCellMasking,
    RunningMasking,
    TokenMask,
    TubeMasking,
    row_noise,
    take,
)
from tubelet.patches import Size3

B14 = Size3(8, 14, 14)
B16 = Size3(8, 16, 16)
GOLDEN = Path(__file__).parents[1] / "golden" / "mar_masks.safetensors"

RATIOS = st.floats(0, 1, exclude_max=True)
COUNTS = st.integers(1, 6)
GRIDS = st.builds(Size3, COUNTS, COUNTS, COUNTS)
EVEN_GRIDS = st.builds(lambda t, h, w: Size3(t, 2 * h, 2 * w), COUNTS, st.integers(1, 4), st.integers(1, 4))


@st.composite
def running_cells(draw: st.DrawFn) -> tuple[AnyMasking, Size3]:
    """Cells of any size, and a grid that they fill."""
    cell = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    masking = RunningCellMasking(
        ratio=draw(RATIOS), cell=cell, same_start=draw(st.booleans()), shuffle_time=draw(st.booleans())
    )
    return masking, Size3(draw(COUNTS), cell[0] * draw(st.integers(1, 3)), cell[1] * draw(st.integers(1, 3)))


PARTITIONS: st.SearchStrategy[tuple[AnyMasking, Size3]] = st.one_of(
    *(st.tuples(st.builds(kind, ratio=RATIOS), GRIDS) for kind in (TubeMasking, RandomMasking, FrameMasking)),
    st.tuples(st.builds(BlockMasking, ratio=RATIOS), GRIDS),
    st.tuples(
        st.builds(RunningMasking, ratio=RATIOS, pattern=st.sampled_from(["random", "block", "uniform"])),
        GRIDS,
    ),
    running_cells(),
)
SKIPPING = st.floats(0.25, 0.99)  # less skips no slot
DUALS = st.tuples(st.builds(DualMasking, ratio=RATIOS, decoder_ratio=SKIPPING), EVEN_GRIDS)
ALL = st.one_of(PARTITIONS, DUALS)
KINDS: list[type[AnyMasking]] = [
    TubeMasking, RandomMasking, FrameMasking, BlockMasking, RunningCellMasking, RunningMasking, DualMasking,
]  # fmt: skip

few = settings(max_examples=40)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(mask: TokenMask, grid: Size3) -> torch.Tensor:
    """(B, t, h, w), 1 where visible."""
    seen = torch.zeros(len(mask.visible), grid.volume, dtype=torch.uint8)
    return seen.scatter(1, mask.visible, 1).reshape(-1, *grid)


# ------------------------------------------------------------------------------------------- all maskings


@few
@given(PARTITIONS, st.integers(1, 4), st.integers(0, 99))
def test_visible_and_masked_are_all_tokens_ascending(case: tuple[AnyMasking, Size3], batch: int, seed: int):
    masking, grid = case
    mask = masking.sample(grid, batch, generator(seed))
    assert mask.visible.shape[0] == mask.masked.shape[0] == batch
    assert mask.scored is None
    for visible, masked in zip(mask.visible.tolist(), mask.masked.tolist(), strict=True):
        assert visible == sorted(visible)
        assert masked == sorted(masked)
        assert sorted(visible + masked) == list(range(grid.volume))
    assert mask.visible.dtype == mask.masked.dtype == torch.int64


@few
@given(DUALS, st.integers(1, 4), st.integers(0, 99))
def test_a_dual_mask_scores_the_reconstructed_tokens_that_are_not_seen(
    case: tuple[DualMasking, Size3], batch: int, seed: int
):
    masking, grid = case
    mask = masking.sample(grid, batch, generator(seed))
    assert mask.visible.dtype == mask.masked.dtype == torch.int64
    assert mask.scored is not None
    assert len(mask.visible) == len(mask.masked) == len(mask.scored) == batch
    for visible, reconstructed, scored in zip(
        mask.visible.tolist(), mask.masked.tolist(), mask.scored.tolist(), strict=True
    ):
        assert sorted(set(visible)) == visible
        assert sorted(set(reconstructed)) == reconstructed
        assert all(0 <= token < grid.volume for token in visible + reconstructed)
        assert scored == [token not in visible for token in reconstructed]


@few
@given(ALL, st.integers(0, 99))
def test_the_same_generator_gives_the_same_masks(case: tuple[AnyMasking, Size3], seed: int):
    masking, grid = case
    first, again = (masking.sample(grid, 3, generator(seed)) for _ in range(2))
    assert torch.equal(first.visible, again.visible)
    assert torch.equal(first.masked, again.masked)


@few
@given(ALL, st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=4))
def test_an_items_mask_follows_from_its_own_seed(case: tuple[AnyMasking, Size3], seeds: list[int]):
    masking, grid = case
    size = masking.noise_size(grid)
    together = masking.from_noise(grid, row_noise(torch.tensor(seeds), size))
    for row, seed in enumerate(seeds):
        single = masking.from_noise(grid, row_noise(torch.tensor([seed]), size))
        assert torch.equal(together.visible[row], single.visible[0])
        assert torch.equal(together.masked[row], single.masked[0])
        if together.scored is not None:
            assert single.scored is not None
            assert torch.equal(together.scored[row], single.scored[0])


def test_rows_differ():
    for kind in [TubeMasking, RandomMasking, BlockMasking, RunningCellMasking, DualMasking]:
        rows = kind(ratio=0.5).sample(B14, 8, generator()).visible
        assert len({tuple(row) for row in rows.tolist()}) == 8, kind


def test_ratios_out_of_range_are_refused():
    for kind, ratio in product(KINDS, [-0.1, 1.0, 1.5, float("nan")]):
        with pytest.raises(UserError, match="ratio"):
            kind(ratio=ratio)


def test_ratio_zero_masks_nothing():
    for kind in KINDS:
        mask = kind(ratio=0).sample(B14, 2, generator())
        assert mask.visible.tolist() == [list(range(1568))] * 2, kind
        if mask.scored is None:
            assert mask.masked.shape == (2, 0), kind
        else:
            assert not mask.scored.any(), kind


def test_of_equal_noise_the_first_is_the_lower():
    """Otherwise the mask would depend on how a processor sorts."""
    noise = torch.full((1, 1568), 0.25)
    assert RandomMasking(ratio=0.5).from_noise(B14, noise).visible[0].tolist() == list(range(784))
    tubes = TubeMasking(ratio=0.5).from_noise(B14, noise[:, :196])
    assert tubes.visible[0, :98].tolist() == list(range(98))
    tall = Size3(64, 2, 2)
    frames = FrameMasking(ratio=0.5).from_noise(tall, noise[:, :64])
    assert frames.visible[0].tolist() == list(range(128))
    cells = RunningCellMasking()
    fixed = RunningCellMasking(shuffle_time=False)
    assert torch.equal(
        cells.from_noise(tall, noise[:, :65]).visible, fixed.from_noise(tall, noise[:, :65]).visible
    )


def test_of_equally_distant_tokens_a_block_masks_the_last():
    grid = Size3(1, 2, 100)
    noise = torch.tensor([[0.5, 0.5, 0.0, 0.5, 0.5, 0.5]])  # columns run away from the left edge
    mask = BlockMasking(ratio=0.755).from_noise(grid, noise)
    rows = [(mask.masked[0] // 100 == row).sum().item() for row in range(2)]
    assert rows == [75, 76]


def test_masks_move_between_devices():
    mask = TubeMasking().sample(B14, 2, generator()).to("meta")
    assert mask.visible.device.type == mask.masked.device.type == "meta"
    assert mask.scored is None


def test_what_is_scored_moves_with_the_mask():
    mask = DualMasking().sample(B14, 2, generator()).to("meta")
    assert mask.scored is not None
    assert mask.scored.device.type == mask.masked.device.type == "meta"


# ------------------------------------------------------------------------------------------------ tube


def test_tube_counts_are_those_published():
    for grid, ratio, per_slice, visible, masked in [
        (B14, 0.9, 176, 160, 1408),
        (B14, 0.75, 147, 392, 1176),
        (B16, 0.9, 230, 208, 1840),
    ]:
        mask = TubeMasking(ratio=ratio).sample(grid, 2, generator())
        assert mask.visible.shape == (2, visible), (grid, ratio, per_slice, visible, masked)
        assert mask.masked.shape == (2, masked), (grid, ratio, per_slice, visible, masked)
        assert ((picture(mask, grid) == 0).sum((2, 3)) == per_slice).all(), (
            grid,
            ratio,
            per_slice,
            visible,
            masked,
        )


def test_a_tube_is_the_same_at_all_times():
    seen = picture(TubeMasking(ratio=0.75).sample(B14, 3, generator()), B14)
    assert (seen == seen[:, :1]).all()


def test_tubes_mask_every_position_equally_often():
    seen = picture(TubeMasking(ratio=0.75).sample(Size3(1, 4, 4), 4000, generator()), Size3(1, 4, 4))
    share = seen.float().mean(0)
    assert (share - 0.25).abs().max() < 0.04


# ---------------------------------------------------------------------------------------------- random


def test_random_counts_are_those_published():
    for ratio, keep in [(0.5, 784), (0.75, 392), (0.9, 156), (0.95, 78), (0.98, 31)]:
        assert RandomMasking(ratio=ratio).sample(B14, 2, generator()).visible.shape == (2, keep), (
            ratio,
            keep,
        )


def test_random_masking_keeps_the_lowest_noise():
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.3, 0.7, 0.2]])
    mask = RandomMasking(ratio=0.5).from_noise(Size3(1, 2, 3), noise)
    assert mask.visible.tolist() == [[1, 3, 5]]
    assert mask.masked.tolist() == [[0, 2, 4]]


# ----------------------------------------------------------------------------------------------- frame


@few
@given(st.builds(FrameMasking, ratio=RATIOS), GRIDS, st.integers(0, 99))
def test_frame_masking_masks_the_times_with_the_highest_noise(masking: FrameMasking, grid: Size3, seed: int):
    noise = row_noise(torch.tensor([seed, seed + 1]), masking.noise_size(grid))
    seen = picture(masking.from_noise(grid, noise), grid)
    for row in range(2):
        values = noise[row].tolist()
        masked = sorted(range(grid.t), key=values.__getitem__)[grid.t - int(masking.ratio * grid.t) :]
        for t, plane in enumerate(seen[row]):
            assert plane.flatten().tolist() == [int(t not in masked)] * grid.h * grid.w


def test_frame_masking_masks_whole_times():
    for ratio, times in [(0.75, 6), (0.9, 7), (0.5, 4), (0.1, 0)]:
        seen = picture(FrameMasking(ratio=ratio).sample(B14, 50, generator()), B14).flatten(2)
        assert (seen == seen[..., :1]).all(), (ratio, times)
        assert ((seen[..., 0] == 0).sum(1) == times).all(), (ratio, times)


def test_frame_masking_masks_every_time_equally_often():
    seen = picture(FrameMasking(ratio=0.5).sample(Size3(4, 1, 1), 4000, generator()), Size3(4, 1, 1))
    assert (seen.float().mean(0) - 0.5).abs().max() < 0.04


# ----------------------------------------------------------------------------------------------- block


@few
@given(st.builds(BlockMasking, ratio=RATIOS), GRIDS, st.integers(0, 99))
def test_block_masking_masks_the_tokens_nearest_to_its_center(masking: BlockMasking, grid: Size3, seed: int):
    noise = row_noise(torch.tensor([seed]), masking.noise_size(grid))
    mask = masking.from_noise(grid, noise)
    center, extent = noise[0, :3].tolist(), [4 ** (x - 0.5) for x in noise[0, 3:].tolist()]
    distance = [
        max(
            abs((position + 0.5) / side - c) / e
            for position, side, c, e in zip(token, grid, center, extent, strict=True)
        )
        for token in product(*map(range, grid))
    ]
    masked, seen = ([distance[token] for token in index[0]] for index in (mask.masked, mask.visible))
    assert len(masked) == int(masking.ratio * grid.volume)
    assert max(masked, default=0) <= min(seen, default=9) + 1e-6


def test_a_block_is_a_box_except_for_its_outermost_layer():
    for ratio in [0.1, 0.5, 0.75, 0.9]:
        seen = picture(BlockMasking(ratio=ratio).sample(B14, 40, generator()), B14)
        whole = 0
        for row in seen:
            masked = row == 0
            assert masked.sum() == int(ratio * 1568), ratio
            box = [(int(at.min()), int(at.max())) for at in masked.nonzero().T]
            inside = masked[tuple(slice(first + 1, last) for first, last in box)]
            assert inside.all(), ratio
            whole += inside.numel()
        assert whole > 40, ratio


def test_blocks_have_many_shapes_and_positions():
    seen = picture(BlockMasking(ratio=0.25).sample(B14, 200, generator()), B14)
    sides = [tuple((row == 0).nonzero().unique(dim=0).amax(0).tolist()) for row in seen]
    assert len(set(sides)) > 50
    share = (seen == 0).float().mean(0)
    assert share.min() > 0.02
    assert share.max() < 0.6


# --------------------------------------------------------------------------------------- running cells

HASHES = {
    (0.25, 0): "89052d3c9ad97cd8", (0.25, 1): "0c4493af4521ee2e",
    (0.25, 2): "3c02d78fe8944948", (0.25, 3): "52de89d60bb1287d",
    (0.5, 0): "82a18a0d8fe26523", (0.5, 1): "696d56940833c58d",
    (0.5, 2): "1ca77069bddd41d5", (0.5, 3): "3e73363d3ff3fc17",
    (0.75, 0): "f0a0dd25d7f80750", (0.75, 1): "eba97d89c9fb613c",
    (0.75, 2): "e4e08555d4577166", (0.75, 3): "d907c5bc9184c2e4",
}  # fmt: skip

PHASES = {
    0.25: ("01/11", "10/11", "11/01", "11/10"),
    0.5: ("00/11", "10/01", "11/00", "01/10"),
    0.75: ("00/01", "10/00", "01/00", "00/10"),
}


def sha(seen: torch.Tensor) -> str:
    return hashlib.sha256(seen.numpy().tobytes()).hexdigest()[:16]


def started(ratio: float, start: int) -> torch.Tensor:
    """The mask (t, h, w) of a clip whose cells all begin at `start`, in order of time."""
    masking = RunningCellMasking(ratio=ratio, shuffle_time=False)
    noise = torch.zeros(1, masking.noise_size(B14))
    noise[:, 0] = start / 4 + 0.1
    return picture(masking.from_noise(B14, noise), B14)[0]


def test_the_fixed_mask_is_the_published_one():
    for ratio in [0.25, 0.5, 0.75]:
        seen = picture(RunningCellMasking(ratio=ratio).fixed(B14, batch=2), B14)
        assert [sha(row) for row in seen] == [HASHES[ratio, 0]] * 2, ratio


def test_masks_with_a_start_are_the_published_ones():
    for ratio, start in HASHES:
        assert sha(started(ratio, start)) == HASHES[ratio, start], (ratio, start)


def test_fixed_masks_start_at_the_given_slot():
    for ratio, start in HASHES:
        seen = picture(RunningCellMasking(ratio=ratio).fixed(B14, batch=2, start=start), B14)
        assert [sha(row) for row in seen] == [HASHES[ratio, start]] * 2, (ratio, start)


@few
@given(RATIOS, EVEN_GRIDS, st.integers(0, 3))
def test_masks_are_mars_formula(ratio: float, grid: Size3, start: int):
    seen = picture(RunningCellMasking(ratio=ratio).fixed(grid, start=start), grid)[0].tolist()
    assume(ratio * grid.volume % 1 < 1 - 1e-6)  # a whole number, if not rounded, counts as one here
    masked = int(ratio * grid.volume) // (grid.t * (grid.h // 2) * (grid.w // 2))
    slots = [0] * masked + [1] * (4 - masked)
    for t, r, c in product(*map(range, grid)):
        assert seen[t][r][c] == slots[(2 * (r % 2) + c % 2 - t - start) % 4]


@few
@given(running_cells(), st.integers(0, 20))
def test_cells_of_any_size_run_with_evenly_spread_slots(case: tuple[RunningCellMasking, Size3], start: int):
    masking, (times, height, width) = case
    rows, columns = masking.cell
    slots = rows * columns
    grid = Size3(times, height, width)
    assume(masking.ratio * grid.volume % 1 < 1 - 1e-6)  # as above
    seen = picture(masking.fixed(grid, start=start), grid)[0].tolist()
    begin = picture(masking.fixed(grid), grid)[0].tolist()
    cells = grid.volume // slots
    whole = int(masking.ratio * grid.volume)
    masked = whole // cells if masking.cell == (2, 2) else math.ceil(whole / cells)
    first = [1 - begin[0][slot // columns][slot % columns] for slot in range(slots)]
    assert sum(first) == masked
    for t, r, c in product(*map(range, grid)):
        slot = r % rows * columns + c % columns
        assert seen[t][r][c] == 1 - first[(slot - t - start) % slots]
    if masking.cell == (2, 2):
        assert first == [1] * masked + [0] * (4 - masked)
        return
    # MAR: of masked and visible slots the fewer are at every n-th slot from the first one
    fewer, value = (masked, 1) if masked <= slots - masked else (slots - masked, 0)
    chosen = [slot for slot in range(slots) if first[slot] == value]
    step = math.ceil(slots / fewer) if fewer else 1
    if (fewer - 1) * step < slots:
        assert chosen == [k * step for k in range(fewer)]
    else:  # MAR's code fails
        assert chosen == [k * slots // fewer for k in range(fewer)]


def test_larger_cells_mask_as_much_at_all_times():
    for cell, ratio in product([(1, 1), (1, 2), (2, 7), (7, 7), (14, 2)], [0.25, 0.5, 0.75]):
        seen = picture(
            RunningCellMasking(ratio=ratio, cell=cell, same_start=False).sample(B14, 3, generator()), B14
        )
        slots = cell[0] * cell[1]
        cells = seen.reshape(3, 8, 14 // cell[0], cell[0], 14 // cell[1], cell[1])
        assert ((cells == 0).sum((3, 5)) == math.ceil(ratio * slots)).all(), (cell, ratio)


def test_a_cell_as_large_as_the_frame_has_every_nth_slot():
    # As MAR's code for cells of any size gives for 14 x 14: at one half every second slot from the first on.
    seen = picture(RunningCellMasking(ratio=0.5, cell=(14, 14)).fixed(B14), B14)[0].flatten(1)
    for t in range(8):
        assert seen[t].tolist() == [(slot - t) % 2 for slot in range(196)]
    seen = picture(RunningCellMasking(ratio=0.75, cell=(14, 14)).fixed(B14), B14)[0].flatten(1)
    assert seen[0].tolist() == [int(slot % 4 == 0) for slot in range(196)]


def test_token_times_of_a_test_may_be_shuffled_by_seed():
    for masking in (
        RunningCellMasking(shuffle_test_time=True),
        RunningMasking(pattern="uniform", shuffle_test_time=True),
    ):
        ordered = picture(replace(masking, shuffle_test_time=False).test_masks(B14, torch.tensor([0])), B14)[
            0
        ]
        seen = picture(masking.test_masks(B14, torch.tensor([3, 4, 3])), B14)
        assert torch.equal(seen[0], seen[2])
        assert not torch.equal(seen[0], seen[1])
        for row in seen:
            assert sorted(map(sha, row)) == sorted(map(sha, ordered))
            assert not torch.equal(row, ordered)


# -------------------------------------------------------------------------------------- other running masks


@few
@given(
    st.builds(RunningMasking, ratio=RATIOS, pattern=st.sampled_from(["random", "block", "uniform"])),
    GRIDS,
    st.integers(0, 99),
)
def test_every_token_time_has_the_mask_before_it_shifted_by_one(
    masking: RunningMasking, grid: Size3, seed: int
):
    area = grid.h * grid.w
    for shuffle in (False, True):
        noise = row_noise(torch.tensor([seed, seed + 1]), masking.noise_size(grid))
        mask = replace(masking, shuffle_time=shuffle).from_noise(grid, noise)
        for row, planes in enumerate(picture(mask, grid).flatten(2).tolist()):
            assert all(plane.count(0) == int(masking.ratio * area) for plane in planes)
            order = list(range(grid.t))
            if shuffle:
                values = noise[row, -grid.t :].tolist()
                order = sorted(range(grid.t), key=values.__getitem__)
                ordered = replace(masking, shuffle_time=False).from_noise(grid, noise)
                first = picture(ordered, grid).flatten(2)[row, 0].tolist()
            else:
                first = planes[0]
            for at, t in enumerate(order):
                assert planes[at] == [first[(token - t) % area] for token in range(area)]


def test_the_first_plane_of_a_running_mask_has_its_pattern():
    grid = Size3(2, 14, 14)
    block = picture(RunningMasking(pattern="block", shuffle_time=False).sample(grid, 20, generator()), grid)
    for row in block:
        masked = row[0] == 0
        box = [(int(at.min()), int(at.max())) for at in masked.nonzero().T]
        assert masked[tuple(slice(first + 1, last) for first, last in box)].all()
    masking = RunningMasking(pattern="uniform")
    uniform = picture(masking.test_masks(grid, torch.tensor([5])), grid)[0].flatten(1)
    assert uniform.tolist() == [[(slot + 1 + t) % 2 ^ 1 for slot in range(196)] for t in range(2)]
    fixed = RunningCellMasking(cell=(14, 14)).fixed(grid)
    assert torch.equal(masking.test_masks(grid, torch.tensor([5])).visible, fixed.visible)
    random = RunningMasking(shuffle_time=False).sample(grid, 200, generator())
    share = picture(random, grid).float().mean((0, 1))
    assert (share - 0.5).abs().max() < 0.2


def test_masks_of_a_test_follow_from_the_seeds_of_the_clips():
    for masking in (
        RandomMasking(ratio=0.5), TubeMasking(ratio=0.5), FrameMasking(ratio=0.5), BlockMasking(ratio=0.5),
        RunningMasking(), RunningMasking(pattern="block"),
    ):  # fmt: skip
        mask = masking.test_masks(B14, torch.tensor([7, 8, 7]))
        single = masking.test_masks(B14, torch.tensor([8]))
        assert torch.equal(mask.visible[0], mask.visible[2]), masking
        assert torch.equal(mask.visible[1], single.visible[0]), masking
        assert not torch.equal(mask.visible[0], mask.visible[1]), masking
    fixed = RunningCellMasking().test_masks(B14, torch.tensor([7, 8]))
    assert [sha(row) for row in picture(fixed, B14)] == [HASHES[0.5, 0]] * 2


def test_cells_without_tokens_are_refused():
    with pytest.raises(UserError, match=r"cell .*found \(0, 2\)"):
        RunningCellMasking(cell=(0, 2))


def test_in_complements_every_token_is_visible_once():
    for (ratio, count), grid in product(
        [(0.0, 1), (0.5, 2), (0.6, 2), (0.75, 4), (0.9, 4)], [B14, Size3(3, 4, 6)]
    ):
        masking = RunningCellMasking(ratio=ratio)
        masks = masking.complements(grid, batch=3)
        assert len(masks) == count, (ratio, count, grid)
        for row in range(3):
            shown = [token for mask in masks for token in mask.visible[row].tolist()]
            assert sorted(shown) == list(range(grid.volume)), (ratio, count, grid)
            for mask in masks:
                both = mask.visible[row].tolist() + mask.masked[row].tolist()
                assert sorted(both) == list(range(grid.volume)), (ratio, count, grid)
        assert torch.equal(masks[0].visible, masking.fixed(grid, 3).visible), (ratio, count, grid)


def test_the_complement_of_one_half_is_the_other():
    first, second = RunningCellMasking(ratio=0.5).complements(B14)
    assert torch.equal(first.masked, second.visible)
    assert torch.equal(first.visible, second.masked)


def test_masks_without_complements_are_refused():
    for masking in [
        RunningCellMasking(ratio=0.25),
        RunningCellMasking(cell=(2, 4)),
        RunningCellMasking(cell=(1, 2)),
    ]:
        with pytest.raises(
            UserError, match=r"2 x 2 cells and a ratio of 0\.5 or 0\.75.*found cell=\(\d, \d\) and"
        ):
            masking.complements(B16)


def test_a_cell_runs_through_the_published_phases():
    for ratio in PHASES:
        seen = RunningCellMasking(ratio=ratio).fixed(B14)
        for t, plane in enumerate(picture(seen, B14)[0]):
            corner = "/".join("".join(map(str, row)) for row in plane[:2, :2].tolist())
            assert corner == PHASES[ratio][t % 4], ratio


def test_masks_agree_with_the_golden_ones():
    for percent in [25, 50, 75]:
        golden = load_file(GOLDEN)
        fixed = picture(RunningCellMasking(ratio=percent / 100).fixed(B14), B14)[0]
        assert torch.equal(fixed, golden[f"test_{percent}"]), percent
        for start, masked in enumerate(golden[f"train_{percent}"]):
            cell = started(percent / 100, start)[:, :2, :2].flatten(1)
            assert torch.equal(cell, 1 - masked), percent


def test_ratios_round_down_to_whole_slots():
    for ratio, visible in [
        (0.0, 1568),
        (0.24, 1568),
        (0.25, 1176),
        (0.49, 1176),
        (0.5, 784),
        (0.74, 784),
        (0.75, 392),
        (0.9, 392),
    ]:
        assert RunningCellMasking(ratio=ratio).fixed(B14).visible.shape == (1, visible), (ratio, visible)


def test_all_cells_share_a_start():
    seen = picture(RunningCellMasking(shuffle_time=False).sample(B14, 6, generator()), B14)
    cells = seen.reshape(6, 8, 7, 2, 7, 2)
    assert (cells == cells[:, :, :1, :, :1]).all()


def test_cells_may_start_on_their_own():
    masking = RunningCellMasking(same_start=False, shuffle_time=False)
    cells = picture(masking.sample(B14, 1, generator()), B14).reshape(8, 7, 2, 7, 2)
    first = cells[0].permute(0, 2, 1, 3).reshape(49, 4)
    assert {"".join(map(str, slots)) for slots in first.tolist()} == {"0011", "1001", "1100", "0110"}


def test_all_four_starts_are_drawn_equally_often():
    seen = picture(
        RunningCellMasking(shuffle_time=False).sample(Size3(4, 2, 2), 2000, generator()), Size3(4, 2, 2)
    )
    corners = ["".join(map(str, row)) for row in seen[:, 0].flatten(1).tolist()]
    assert set(corners) == {"0011", "1001", "1100", "0110"}
    assert all(400 < corners.count(corner) < 600 for corner in set(corners))


def test_shuffled_times_are_whole_frames_in_another_order():
    masking = RunningCellMasking(shuffle_time=True)
    seen = picture(masking.sample(B14, 20, generator()), B14)
    ordered = {tuple(started(0.5, start).flatten(1).sum(1).tolist()) for start in range(4)}
    assert ordered == {(98,) * 8}
    planes = [tuple(plane) for plane in started(0.5, 0).flatten(1).tolist()]
    shuffled = 0
    for row in seen.flatten(2).tolist():
        positions = [planes.index(tuple(plane)) for plane in row]  # the first of the two periods
        assert sorted(positions) == [0, 0, 1, 1, 2, 2, 3, 3]
        shuffled += any((b - a) % 4 != 1 for a, b in pairwise(positions))
    assert shuffled > 15


def test_without_shuffling_time_runs_in_order():
    seen = picture(RunningCellMasking(shuffle_time=False).sample(B14, 20, generator()), B14)
    runs = {sha(started(0.5, start)) for start in range(4)}
    assert {sha(row) for row in seen} == runs


def test_grids_that_cells_do_not_fill_are_refused():
    with pytest.raises(ValueError, match=r"2 x 2 tokens .*found 7 x 6"):
        RunningCellMasking().fixed(Size3(8, 7, 6))
    with pytest.raises(ValueError, match=r"2 x 2 tokens .*found 6 x 7"):
        RunningCellMasking().sample(Size3(8, 6, 7), 2, generator())
    with pytest.raises(ValueError, match=r"4 x 2 tokens .*found 14 x 14"):
        RunningCellMasking(cell=(4, 2)).fixed(B14)


# ------------------------------------------------------------------------------------------------ dual


def decoded_by_v2(grid: Size3, ratio: float, start: int) -> list[int]:
    """VideoMAE V2's running cells: a pointer that steps through a queue, 1 where nothing is decoded."""
    skipped = int(4 * ratio)
    queue = [1] * skipped + [0] * (4 - skipped)
    decoded, pointer = [], start
    for t in range(grid.t):
        pointer += 1
        cell = [queue[(i + pointer) % 4] for i in range(4)]
        for r, c in product(range(grid.h), range(grid.w)):
            if not cell[r % 2 * 2 + c % 2]:
                decoded.append((t * grid.h + r) * grid.w + c)
    return decoded


def test_the_decoders_cells_in_these_tests_are_the_published_ones():
    decoded = decoded_by_v2(Size3(8, 2, 2), 0.5, 0)
    skipped = [int(token not in decoded) for token in range(32)]
    assert skipped == [1, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 0] * 2


@few
@given(DUALS, st.integers(0, 3), st.integers(0, 99))
def test_dual_masks_are_tubes_and_running_cells(case: tuple[DualMasking, Size3], start: int, seed: int):
    masking, grid = case
    noise = row_noise(torch.tensor([seed]), masking.noise_size(grid))
    noise[:, -1] = start / 4 + 0.1
    mask = masking.from_noise(grid, noise)
    area = grid.h * grid.w
    positions = sorted(range(area), key=noise[0].tolist().__getitem__)[: area - int(masking.ratio * area)]
    seen = [t * area + position for t in range(grid.t) for position in sorted(positions)]
    assert mask.visible[0].tolist() == seen
    assert mask.masked[0].tolist() == decoded_by_v2(grid, masking.decoder_ratio, start)
    assert mask.scored is not None
    assert mask.scored[0].tolist() == [token not in set(seen) for token in mask.masked[0].tolist()]


def test_dual_counts_are_those_published():
    for grid, visible, decoded, scored in [(B14, 160, 784, 704), (B16, 208, 1024, 920)]:
        mask = DualMasking(ratio=0.9, decoder_ratio=0.5).sample(grid, 6, generator())
        assert mask.visible.shape == (6, visible), (grid, visible, decoded, scored)
        assert mask.masked.shape == (6, decoded), (grid, visible, decoded, scored)
        assert mask.scored is not None, (grid, visible, decoded, scored)
        assert mask.scored.shape == (6, decoded), (grid, visible, decoded, scored)
        assert mask.scored.sum(1).tolist() == [scored] * 6, (grid, visible, decoded, scored)


def test_a_dual_mask_that_skips_nothing_is_a_tube_mask():
    for ratio in [0.0, 0.2]:
        dual = DualMasking(ratio=0.9, decoder_ratio=ratio)
        noise = row_noise(torch.arange(4), dual.noise_size(B14))
        mask, tubes = dual.from_noise(B14, noise), TubeMasking(ratio=0.9).from_noise(B14, noise[:, :-1])
        assert torch.equal(mask.visible, tubes.visible), ratio
        assert torch.equal(mask.masked, tubes.masked), ratio
        assert mask.scored is None, ratio


def test_all_four_starts_of_the_decoders_cells_are_drawn():
    masks = DualMasking().sample(Size3(4, 2, 2), 400, generator()).masked.tolist()
    maps = [decoded_by_v2(Size3(4, 2, 2), 0.5, start) for start in range(4)]
    assert sum(masks.count(wanted) for wanted in maps) == 400
    assert all(60 < masks.count(wanted) < 140 for wanted in maps)


def test_a_grid_or_ratio_that_dual_masking_cannot_use_is_refused():
    with pytest.raises(ValueError, match="dual masking needs an even grid of tokens, found 7 x 6"):
        DualMasking().sample(Size3(8, 7, 6), 1, generator())
    with pytest.raises(UserError, match="ratio"):
        DualMasking(decoder_ratio=1)


# ------------------------------------------------------------------------------------- boolean tensors


def test_true_is_visible_or_masked_as_the_name_says():
    flags = torch.tensor([[True, False, False, True], [False, True, True, False]])
    seen = TokenMask.from_visible(flags)
    assert seen.visible.tolist() == [[0, 3], [1, 2]]
    assert seen.masked.tolist() == [[1, 2], [0, 3]]
    masked = TokenMask.from_masked(flags)
    assert masked.masked.tolist() == [[0, 3], [1, 2]]
    assert masked.visible.tolist() == [[1, 2], [0, 3]]


def test_what_is_not_a_mask_is_refused():
    for make, flags in product(
        [TokenMask.from_visible, TokenMask.from_masked],
        [
            torch.tensor([[True, False], [True, True]]),
            torch.tensor([True, False]),
            torch.ones(2, 2, 2, dtype=torch.bool),
            torch.ones(0, 4, dtype=torch.bool),
            torch.tensor([[1.0, 0.0]]),
            torch.tensor([[1, 0]]),
            torch.tensor([[1, 0]], dtype=torch.uint8),
        ],
    ):
        with pytest.raises(ValueError, match=r"expected a boolean \(B, N\) tensor with equally many True"):
            make(flags)


def test_take_gathers_by_row():
    tokens = torch.arange(24).reshape(2, 4, 3)
    index = torch.tensor([[0, 3], [2, 1]])
    expected = torch.stack([tokens[b][index[b]] for b in range(2)])
    assert torch.equal(take(tokens, index), expected)
    assert torch.equal(take(tokens[:1], index), torch.stack([tokens[0][index[b]] for b in range(2)]))
    assert torch.equal(take(tokens[:1], index[:1]), tokens[:1, [0, 3]])


# ------------------------------------------------------------------------------------------ row noise


def splitmix64(seed: int, size: int) -> list[float]:
    """Steele, Lea and Flood (2014), with 64-bit arithmetic; the top 24 bits as a float."""
    state, numbers = seed % 2**64, []
    for _ in range(size):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        z ^= z >> 31
        numbers.append((z >> 40) / 2**24)
    return numbers


def test_the_generator_in_these_tests_is_splitmix64():
    assert [int(x * 2**24) for x in splitmix64(1234567, 2)] == [
        6457827717110365317 >> 40,
        3203168211198807973 >> 40,
    ]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4), st.integers(1, 20))
def test_row_noise_is_splitmix64(seeds: list[int], size: int):
    noise = row_noise(torch.tensor(seeds), size)
    assert noise.dtype == torch.float32
    assert noise.tolist() == [splitmix64(seed, size) for seed in seeds]


def test_row_noise_does_not_depend_on_the_other_rows():
    seeds = torch.tensor([5, -7, 2**62, 0])
    together = row_noise(seeds, 30)
    for row, seed in enumerate(seeds):
        assert torch.equal(row_noise(seed[None], 30)[0], together[row])
    assert torch.equal(row_noise(seeds.flip(0), 30), together.flip(0))


def test_row_noise_is_uniform():
    noise = row_noise(torch.arange(200), 500).flatten()
    assert noise.min() >= 0
    assert noise.max() < 1
    counts = torch.histc(noise, bins=50, min=0, max=1)
    expected = noise.numel() / 50
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert 20 < chi_square < 95  # 49 degrees of freedom


def test_neighboring_seeds_are_not_correlated():
    noise = row_noise(torch.arange(50), 2000)
    correlation = torch.corrcoef(noise) - torch.eye(50)
    assert correlation.abs().max() < 0.1
