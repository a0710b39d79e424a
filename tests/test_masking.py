"""Masks, against published counts, checksums and tables and against plain Python."""

import hashlib
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tubelet.masking import (
    AnyMasking,
    RandomMasking,
    RunningCellMasking,
    TokenMask,
    TubeMasking,
    row_noise,
    take,
)
from tubelet.patches import Size3

B14 = Size3(8, 14, 14)
B16 = Size3(8, 16, 16)
GOLDEN = Path(__file__).parent / "golden" / "mar_masks.safetensors"

RATIOS = st.floats(0, 1, exclude_max=True)
EVEN = st.integers(1, 4).map(lambda n: 2 * n)
GRIDS = st.builds(Size3, st.integers(1, 6), EVEN, EVEN)
MASKINGS: st.SearchStrategy[AnyMasking] = st.one_of(
    st.builds(TubeMasking, ratio=RATIOS),
    st.builds(RandomMasking, ratio=RATIOS),
    st.builds(RunningCellMasking, ratio=RATIOS, same_start=st.booleans(), shuffle_time=st.booleans()),
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(mask: TokenMask, grid: Size3) -> torch.Tensor:
    """(B, t, h, w), 1 where visible."""
    seen = torch.zeros(len(mask.visible), grid.volume, dtype=torch.uint8)
    return seen.scatter(1, mask.visible, 1).reshape(-1, *grid)


# ------------------------------------------------------------------------------------------- all maskings


@given(MASKINGS, GRIDS, st.integers(1, 4), st.integers(0, 99))
def test_visible_and_masked_are_all_tokens_ascending(masking: AnyMasking, grid: Size3, batch: int, seed: int):
    mask = masking.sample(grid, batch, generator(seed))
    assert mask.visible.shape[0] == mask.masked.shape[0] == batch
    for visible, masked in zip(mask.visible.tolist(), mask.masked.tolist(), strict=True):
        assert visible == sorted(visible)
        assert masked == sorted(masked)
        assert sorted(visible + masked) == list(range(grid.volume))
    assert mask.visible.dtype == mask.masked.dtype == torch.int64


@given(MASKINGS, GRIDS, st.integers(0, 99))
def test_the_same_generator_gives_the_same_masks(masking: AnyMasking, grid: Size3, seed: int):
    first, again = (masking.sample(grid, 3, generator(seed)) for _ in range(2))
    assert torch.equal(first.visible, again.visible)
    assert torch.equal(first.masked, again.masked)


@given(MASKINGS, GRIDS)
def test_a_row_follows_from_its_own_noise(masking: AnyMasking, grid: Size3):
    noise = torch.rand(3, masking.noise_size(grid), generator=generator())
    together = masking.from_noise(grid, noise)
    alone = masking.from_noise(grid, noise[1:2])
    assert torch.equal(together.visible[1:2], alone.visible)


@pytest.mark.parametrize("masking", [TubeMasking(ratio=0.5), RandomMasking(ratio=0.5), RunningCellMasking()])
def test_rows_differ(masking: AnyMasking):
    rows = masking.sample(B14, 8, generator()).visible
    assert len({tuple(row) for row in rows.tolist()}) == 8


@pytest.mark.parametrize("kind", [TubeMasking, RandomMasking, RunningCellMasking])
@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_ratios_out_of_range_are_refused(kind: type[AnyMasking], ratio: float):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        kind(ratio=ratio)


@pytest.mark.parametrize(
    "masking", [TubeMasking(ratio=0), RandomMasking(ratio=0), RunningCellMasking(ratio=0)]
)
def test_ratio_zero_hides_nothing(masking: AnyMasking):
    mask = masking.sample(B14, 2, generator())
    assert mask.visible.tolist() == [list(range(1568))] * 2
    assert mask.masked.shape == (2, 0)


def test_masks_move_between_devices():
    mask = TubeMasking().sample(B14, 2, generator()).to("meta")
    assert mask.visible.device.type == mask.masked.device.type == "meta"


# ------------------------------------------------------------------------------------------------ tube


@pytest.mark.parametrize(
    ("grid", "ratio", "per_slice", "visible", "masked"),
    [(B14, 0.9, 176, 160, 1408), (B14, 0.75, 147, 392, 1176), (B16, 0.9, 230, 208, 1840)],
)
def test_tube_counts_are_those_published(
    grid: Size3, ratio: float, per_slice: int, visible: int, masked: int
):
    mask = TubeMasking(ratio=ratio).sample(grid, 2, generator())
    assert mask.visible.shape == (2, visible)
    assert mask.masked.shape == (2, masked)
    assert ((picture(mask, grid) == 0).sum((2, 3)) == per_slice).all()


def test_a_tube_is_the_same_at_all_times():
    seen = picture(TubeMasking(ratio=0.75).sample(B14, 3, generator()), B14)
    assert (seen == seen[:, :1]).all()


def test_tubes_hide_every_position_equally_often():
    seen = picture(TubeMasking(ratio=0.75).sample(Size3(1, 4, 4), 4000, generator()), Size3(1, 4, 4))
    share = seen.float().mean(0)
    assert (share - 0.25).abs().max() < 0.04


# ---------------------------------------------------------------------------------------------- random


@pytest.mark.parametrize(("ratio", "keep"), [(0.5, 784), (0.75, 392), (0.9, 156), (0.95, 78), (0.98, 31)])
def test_random_counts_are_those_published(ratio: float, keep: int):
    assert RandomMasking(ratio=ratio).sample(B14, 2, generator()).visible.shape == (2, keep)


def test_random_masking_keeps_the_lowest_noise():
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.3, 0.7, 0.2]])
    mask = RandomMasking(ratio=0.5).from_noise(Size3(1, 2, 3), noise)
    assert mask.visible.tolist() == [[1, 3, 5]]
    assert mask.masked.tolist() == [[0, 2, 4]]


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


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_the_fixed_mask_is_the_published_one(ratio: float):
    seen = picture(RunningCellMasking(ratio=ratio).fixed(B14, batch=2), B14)
    assert [sha(row) for row in seen] == [HASHES[ratio, 0]] * 2


@pytest.mark.parametrize(("ratio", "start"), HASHES)
def test_masks_with_a_start_are_the_published_ones(ratio: float, start: int):
    assert sha(started(ratio, start)) == HASHES[ratio, start]


@pytest.mark.parametrize("ratio", PHASES)
def test_a_cell_runs_through_the_published_phases(ratio: float):
    seen = RunningCellMasking(ratio=ratio).fixed(B14)
    for t, plane in enumerate(picture(seen, B14)[0]):
        corner = "/".join("".join(map(str, row)) for row in plane[:2, :2].tolist())
        assert corner == PHASES[ratio][t % 4]


@pytest.mark.parametrize("percent", [25, 50, 75])
def test_masks_agree_with_the_golden_ones(percent: int):
    golden = load_file(GOLDEN)
    fixed = picture(RunningCellMasking(ratio=percent / 100).fixed(B14), B14)[0]
    assert torch.equal(fixed, golden[f"test_{percent}"])
    for start, hidden in enumerate(golden[f"train_{percent}"]):
        cell = started(percent / 100, start)[:, :2, :2].flatten(1)
        assert torch.equal(cell, 1 - hidden)


@pytest.mark.parametrize(
    ("ratio", "visible"),
    [(0.0, 1568), (0.24, 1568), (0.25, 1176), (0.49, 1176), (0.5, 784), (0.74, 784), (0.75, 392), (0.9, 392)],
)
def test_ratios_round_down_to_whole_slots(ratio: float, visible: int):
    assert RunningCellMasking(ratio=ratio).fixed(B14).visible.shape == (1, visible)


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
        places = [planes.index(tuple(plane)) for plane in row]  # the first of the two periods
        assert sorted(places) == [0, 0, 1, 1, 2, 2, 3, 3]
        shuffled += any((b - a) % 4 != 1 for a, b in pairwise(places))
    assert shuffled > 15


def test_without_shuffling_time_runs_in_order():
    seen = picture(RunningCellMasking(shuffle_time=False).sample(B14, 20, generator()), B14)
    runs = {sha(started(0.5, start)) for start in range(4)}
    assert {sha(row) for row in seen} == runs


def test_odd_grids_are_refused():
    with pytest.raises(ValueError, match="even grid of tokens, found 7 x 6"):
        RunningCellMasking().fixed(Size3(8, 7, 6))
    with pytest.raises(ValueError, match="even grid of tokens, found 6 x 7"):
        RunningCellMasking().sample(Size3(8, 6, 7), 2, generator())


# ------------------------------------------------------------------------------------- boolean tensors


def test_true_is_visible_or_masked_as_the_name_says():
    flags = torch.tensor([[True, False, False, True], [False, True, True, False]])
    seen = TokenMask.from_visible(flags)
    assert seen.visible.tolist() == [[0, 3], [1, 2]]
    assert seen.masked.tolist() == [[1, 2], [0, 3]]
    hidden = TokenMask.from_masked(flags)
    assert hidden.masked.tolist() == [[0, 3], [1, 2]]
    assert hidden.visible.tolist() == [[1, 2], [0, 3]]


@pytest.mark.parametrize("make", [TokenMask.from_visible, TokenMask.from_masked])
@pytest.mark.parametrize(
    "flags",
    [
        torch.tensor([[True, False], [True, True]]),
        torch.tensor([True, False]),
        torch.ones(2, 2, 2, dtype=torch.bool),
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[1, 0]]),
        torch.tensor([[1, 0]], dtype=torch.uint8),
    ],
    ids=["unequal", "one row", "a grid", "float", "int64", "uint8"],
)
def test_what_is_no_mask_is_refused(make: type, flags: torch.Tensor):
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
