"""What the decoder has to predict, against numpy and the published choice of frames."""

from dataclasses import replace
from itertools import product
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.models.conftest import TINY, randomize
from tubelet.models.encoder import EncoderConfig, VideoEncoder
from tubelet.models.target import PixelTarget
from tubelet.patches import Size3, patchify

Normalize = Literal["channel", "patch"] | None
Pixels = Literal["zero_one", "normalized"]
Spacing = Literal["linspace", "stride"]

MEAN, STD = (0.45, 0.4, 0.5), (0.225, 0.2, 0.3)
LONG = EncoderConfig(
    frames=16, image_size=8, patch_size=4, dim=8, depth=1, heads=1, mlp_dim=8, mean=MEAN, std=STD
)
LINSPACE = [0, 2, 4, 6, 8, 10, 12, 15]  # of 16 frames in MAE-ST's public code
STRIDE = [0, 2, 4, 6, 8, 10, 12, 14]  # and in its released models


def make(config: EncoderConfig) -> VideoEncoder:
    encoder = VideoEncoder(config)
    randomize(encoder)
    return encoder


def clip_for(config: EncoderConfig, batch: int = 2) -> Tensor:
    size = (batch, config.frames, 3, config.image_size, config.image_size)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def every_token(config: EncoderConfig, batch: int = 2) -> Tensor:
    return torch.arange(config.grid.volume).expand(batch, -1)


def chosen_frames(frames: int, count: int, spacing: Spacing) -> list[int]:
    if spacing == "stride":
        return list(range(0, frames, frames // count))
    return np.linspace(0, frames - 1, count).astype(int).tolist()


def by_hand(
    clip: Tensor,
    config: EncoderConfig,
    frames: list[int],
    normalize: Normalize = None,
    pixels: Pixels = "zero_one",
) -> npt.NDArray[np.float64]:
    """The target (B, N, values) of every token in float64, cut from the clip without `patchify`."""
    video = clip.numpy().astype(np.float64).transpose(0, 1, 3, 4, 2) / 255
    if pixels == "normalized":
        video = (video - np.array(config.mean)) / np.array(config.std)
    times, rows, columns = config.grid
    side, each = config.patch_size, len(frames) // times
    targets = []
    for t, r, c in product(range(times), range(rows), range(columns)):
        own = frames[t * each : (t + 1) * each]
        token = video[:, own, r * side : (r + 1) * side, c * side : (c + 1) * side]
        values = token.reshape(len(video), -1, 3)
        if normalize == "channel":
            deviation = values.std(axis=1, ddof=1, keepdims=True)
            values = (values - values.mean(axis=1, keepdims=True)) / (deviation + 1e-6)
        flat = values.reshape(len(video), -1)
        if normalize == "patch":
            variance = flat.var(axis=1, ddof=1, keepdims=True)
            flat = (flat - flat.mean(axis=1, keepdims=True)) / np.sqrt(variance + 1e-6)
        targets.append(flat)
    return np.stack(targets, axis=1)


# ------------------------------------------------------------------------------------------- normalizing


def test_the_target_is_normalized_by_token_and_channel(video: Tensor):
    patches = patchify(video, TINY.tubelet_size)
    target = PixelTarget()(patches, every_token(TINY), make(TINY))
    assert target.dtype == torch.float32
    for token in range(patches.shape[1]):
        pixels = patches[1, token].numpy().reshape(32, 3).astype(np.float64) / 255
        expected = (pixels - pixels.mean(0)) / (pixels.std(0, ddof=1) + 1e-6)
        np.testing.assert_allclose(target[1, token].numpy().reshape(32, 3), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pixels", ["zero_one", "normalized"])
@pytest.mark.parametrize("normalize", ["channel", "patch", None])
@pytest.mark.parametrize(
    ("count", "spacing", "frames"),
    [(None, "linspace", list(range(16))), (8, "linspace", LINSPACE), (8, "stride", STRIDE)],
    ids=["all", "linspace", "stride"],
)
def test_the_target_is_that_computed_by_hand(
    normalize: Normalize, pixels: Pixels, count: int | None, spacing: Spacing, frames: list[int]
):
    clip, target = (
        clip_for(LONG),
        PixelTarget(normalize=normalize, pixels=pixels, frames=count, spacing=spacing),
    )
    found = target(patchify(clip, LONG.tubelet_size), every_token(LONG), make(LONG))
    assert found.dtype == torch.float32
    assert found.shape == (2, 32, target.values(LONG))
    np.testing.assert_allclose(found, by_hand(clip, LONG, frames, normalize, pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normalize", ["channel", "patch"])
def test_a_nearly_flat_token_shows_where_the_addend_is(normalize: Normalize):
    """To the deviation of a channel, but to the variance of a patch."""
    clip = torch.full((1, 16, 3, 8, 8), 200, dtype=torch.uint8)
    clip[:, ::2, :, ::4, ::4] = 201
    found = PixelTarget(normalize=normalize)(
        patchify(clip, LONG.tubelet_size), every_token(LONG, 1), make(LONG)
    )
    np.testing.assert_allclose(found, by_hand(clip, LONG, list(range(16)), normalize), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("normalize", ["channel", "patch"])
@pytest.mark.parametrize("pixels", ["zero_one", "normalized"])
def test_the_target_of_a_flat_token_is_zero(normalize: Normalize, pixels: Pixels):
    target = PixelTarget(normalize=normalize, pixels=pixels)
    config = replace(TINY, mean=(0.45,) * 3, std=(0.225,) * 3)
    flat = torch.full((1, 2, 96), 200, dtype=torch.uint8)
    assert not target(flat, torch.tensor([[0, 1]]), make(config)).abs().gt(1e-1).any()


def test_without_normalizing_the_target_is_the_pixels(video: Tensor):
    patches, index, encoder = patchify(video, TINY.tubelet_size), every_token(TINY), make(TINY)
    target = PixelTarget(normalize=None)
    found = target(patches, index, encoder)
    torch.testing.assert_close(found * 255, patches.float())
    assert torch.equal(target.to_pixels(found, patches, index, encoder), found)


def test_targets_in_model_space_are_what_the_encoder_sees():
    encoder, patches = make(LONG), patchify(clip_for(LONG), LONG.tubelet_size)
    target = PixelTarget(normalize=None, pixels="normalized")(patches, every_token(LONG), encoder)
    seen = torch.nn.functional.linear(target, encoder.embed.project.weight, encoder.embed.project.bias)
    torch.testing.assert_close(seen, encoder.embed(patches))


def test_the_target_of_some_tokens_is_their_part_of_all():
    encoder, patches = make(LONG), patchify(clip_for(LONG), LONG.tubelet_size)
    index = torch.tensor([[31, 0, 7], [5, 28, 29]])
    target = PixelTarget(normalize="patch", pixels="normalized", frames=8)
    everything = target(patches, every_token(LONG), encoder)
    for row in range(2):
        some = target(patches[row : row + 1, index[row]], index[row : row + 1], encoder)
        assert torch.equal(some[0], everything[row, index[row]])


# ---------------------------------------------------------------------------------------------- frames


def shown(config: EncoderConfig, target: PixelTarget) -> list[int]:
    """The frames predicted, read off a clip whose every frame has its own brightness."""
    clip = torch.arange(config.frames, dtype=torch.uint8)[None, :, None, None, None]
    clip = clip.expand(1, -1, 3, config.image_size, config.image_size)
    patches = patchify(clip, config.tubelet_size)
    pixels = target(patches, every_token(config, 1), make(config)) * 255
    first = pixels[0, :: config.grid.h * config.grid.w]  # the corner's tokens
    values = first.unflatten(1, (-1, config.patch_size**2 * 3))
    assert values.std(-1).max() < 1e-4
    return values[..., 0].flatten().round().int().tolist()


@pytest.mark.parametrize(("spacing", "frames"), [("linspace", LINSPACE), ("stride", STRIDE)])
def test_the_predicted_frames_are_the_published_ones(spacing: Spacing, frames: list[int]):
    assert shown(LONG, PixelTarget(normalize=None, frames=8, spacing=spacing)) == frames


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.data(), st.sampled_from(["linspace", "stride"]))
def test_predicted_frames_are_spread_over_the_clip(
    tubelet: int, times: int, data: st.DataObject, spacing: Spacing
):
    frames = tubelet * times
    each = data.draw(
        st.sampled_from([n for n in range(1, tubelet + 1) if spacing == "linspace" or not tubelet % n])
    )
    config = replace(LONG, frames=frames, tubelet=tubelet)
    found = shown(config, PixelTarget(normalize=None, frames=each * times, spacing=spacing))
    assert found == chosen_frames(frames, each * times, spacing)
    assert [frame // tubelet for frame in found] == [k // each for k in range(each * times)]


def test_all_frames_by_number_are_all_frames():
    encoder, patches = make(LONG), patchify(clip_for(LONG), LONG.tubelet_size)
    index = every_token(LONG)
    for spacing in ("linspace", "stride"):
        every = PixelTarget(frames=16, spacing=spacing)
        assert torch.equal(every(patches, index, encoder), PixelTarget()(patches, index, encoder))


@pytest.mark.parametrize(("frames", "values"), [(None, 1536), (16, 1536), (8, 768)])
def test_a_token_has_the_published_number_of_values(frames: int | None, values: int):
    assert PixelTarget(frames=frames).values(EncoderConfig()) == values


def test_a_token_of_the_giant_has_the_published_number_of_values():
    assert PixelTarget().values(EncoderConfig(patch_size=14)) == 1176


@pytest.mark.parametrize("frames", [0, -8, 4, 7, 12, 24])
def test_frames_that_do_not_spread_over_the_tokens_are_refused(frames: int):
    expected = f"must be a multiple of the clip's 8 token times and at most its 16 frames, found {frames}$"
    with pytest.raises(ValueError, match=expected):
        PixelTarget(frames=frames).values(EncoderConfig())


# ------------------------------------------------------------------------------------------- back again


@pytest.mark.parametrize("pixels", ["zero_one", "normalized"])
@pytest.mark.parametrize("normalize", ["channel", "patch", None])
def test_to_pixels_undoes_the_target(normalize: Normalize, pixels: Pixels):
    encoder, patches = make(LONG), patchify(clip_for(LONG), LONG.tubelet_size)
    index = torch.tensor([[31, 0, 7], [5, 28, 29]])
    some = torch.stack([patches[row, index[row]] for row in range(2)])
    target = PixelTarget(normalize=normalize, pixels=pixels)
    back = target.to_pixels(target(some, index, encoder), some, index, encoder)
    torch.testing.assert_close(back, some / 255, rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalize", ["channel", "patch", None])
@pytest.mark.parametrize(
    ("tubelet", "count", "spacing", "held"),
    [
        (2, 8, "stride", [0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14]),
        (2, 8, "linspace", [0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 15, 15]),
        (4, 8, "linspace", [0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 12, 15]),
        (4, 4, "linspace", [0, 0, 0, 0, 5, 5, 5, 5, 10, 10, 10, 10, 15, 15, 15, 15]),
        (4, 4, "stride", [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]),
        (8, 4, "stride", [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]),
    ],
)
def test_a_frame_that_is_not_predicted_holds_the_one_before(
    normalize: Normalize, tubelet: int, count: int, spacing: Spacing, held: list[int]
):
    config = replace(LONG, tubelet=tubelet)
    encoder, clip = make(config), clip_for(config)
    patches = patchify(clip, config.tubelet_size)
    index = every_token(config)
    target = PixelTarget(normalize=normalize, pixels="normalized", frames=count, spacing=spacing)
    back = target.to_pixels(target(patches, index, encoder), patches, index, encoder)
    expected = patchify(clip[:, held], Size3(tubelet, 4, 4)) / 255
    torch.testing.assert_close(back, expected, rtol=0, atol=1e-5)
