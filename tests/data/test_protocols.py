"""The published test protocols: their frames, crops and pixels, read from files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.videos import decode_all, moving_frames, write_video
from tubelet.clips import (
    AnyClip,
    FixedDurationClip,
    HuggingFaceClip,
    MARSegmentClip,
    MMAction2Clip,
    VideoMAEClip,
    VideoMAESegmentClip,
    Views,
)
from tubelet.data.dataset import read_views
from tubelet.data.protocols import PROTOCOLS, named_protocol
from tubelet.errors import UserError

# Clips, clips x crops, and what scaling 256 x 340 to 224 gives: width and the left edges of three crops.
PUBLISHED: dict[str, tuple[AnyClip, tuple[int, int], int, list[int]]] = {
    "videomae_k400": (VideoMAEClip(frames=16, stride=4), (5, 3), 297, [0, 36, 73]),
    "videomae_ssv2": (VideoMAESegmentClip(frames=16, pad="first_only"), (2, 3), 297, [0, 36, 73]),
    "videomaev2_k400": (VideoMAEClip(frames=16, stride=4), (5, 3), 297, [0, 36, 73]),
    "videomaev2_ssv2": (VideoMAESegmentClip(frames=16, pad="front"), (2, 3), 297, [0, 36, 73]),
    "mae_st_k400": (FixedDurationClip(frames=16, stride=4, middle="floor"), (7, 3), 297, [0, 37, 73]),
    "mar_k400": (FixedDurationClip(frames=16, stride=4, middle="exact"), (5, 3), 297, [0, 36, 73]),
    "mar_ssv2": (MARSegmentClip(frames=16), (2, 3), 297, [0, 36, 73]),
    "mmaction2_k400": (MMAction2Clip(frames=16, stride=4), (5, 3), 298, [0, 37, 74]),
    "huggingface": (HuggingFaceClip(frames=16), (1, 1), 297, [36]),
}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 256 x 340 with fine detail, without losses."""
    frames = moving_frames(70, 256, 340)
    noise = np.random.default_rng(0).integers(-40, 40, (256, 340, 1))
    noisy = (frames.astype(int) + noise).clip(0, 255).astype(np.uint8)
    return write_video(tmp_path_factory.mktemp("protocols") / "video.mkv", noisy, codec="ffv1", pixels="bgr0")


def test_all_protocols_are_the_published_ones():
    assert PROTOCOLS.keys() == PUBLISHED.keys()
    for name, (clip, (clips, crops), _, _) in PUBLISHED.items():
        protocol = named_protocol(name)
        assert protocol.clip == clip, name
        assert (protocol.views.clips, protocol.views.crops) == (clips, crops), name
        assert protocol.views.scores == "mean_probability", name
        assert protocol.source, name


@pytest.mark.slow
def test_views_have_the_published_frames_positions_and_pixels(video: Path):
    """Crops of the frames scaled in floating point, without antialiasing except in Hugging Face's."""
    frames = torch.from_numpy(decode_all(video)).permute(0, 3, 1, 2)
    for name, (clip, (clips, crops), width, starts) in PUBLISHED.items():
        clips = min(clips, 2)
        views = read_views(video, clip, replace(PROTOCOLS[name].views, clips=clips), 224)
        assert views.shape == (clips * crops, 16, 3, 224, 224), name
        for k in range(clips):
            numbers = clip.view(len(frames), k, clips, 25.0)
            scaled = torch.nn.functional.interpolate(
                frames[numbers].float(), (224, width), mode="bilinear", antialias=name == "huggingface"
            )
            for start, view in zip(starts, views[k * crops : (k + 1) * crops], strict=True):
                error = (view - scaled[..., start : start + 224]).abs()
                assert error.max() < (1.01 if name == "huggingface" else 0.501), (name, start)


@pytest.mark.slow
def test_the_default_antialiases(video: Path):
    clip = HuggingFaceClip()
    default, plain, antialiased = (
        read_views(video, clip, Views(geometry=geometry), 112)[0].float()
        for geometry in ("default", "videomae", "huggingface")
    )
    assert (default - antialiased).abs().mean() < 2
    assert (default - plain).abs().mean() > 4
    assert torch.equal(read_views(video, clip, Views(), 112)[0].float(), default)


@pytest.mark.slow
def test_hugging_faces_processors_give_the_same_pixels(tmp_path: Path):
    from transformers import VideoMAEImageProcessor, VideoMAEVideoProcessor

    options: Any = {
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
        "do_rescale": False,
        "do_normalize": False,
    }
    processors: list[Any] = [VideoMAEImageProcessor(**options), VideoMAEVideoProcessor(**options)]
    for height, width in [(64, 85), (64, 86), (85, 64), (61, 70), (48, 48), (50, 75)]:
        path = write_video(
            tmp_path / f"{height}x{width}.mkv", moving_frames(20, height, width), codec="ffv1", pixels="bgr0"
        )
        ours = read_views(path, HuggingFaceClip(), PROTOCOLS["huggingface"].views, 32)
        frames = decode_all(path)[[20 * k // 16 for k in range(16)]]
        for processor in processors:
            theirs = processor([list(frames)], return_tensors="pt")["pixel_values"]
            assert (ours.float() - theirs.float()).abs().max() <= 1, (height, width)


def test_a_wrong_name_is_refused_with_the_nearest():
    for wrong, right in [
        ("mar_k40", "mar_k400"),
        ("videomae-ssv2", "videomae_ssv2"),
        ("hugging_face", "huggingface"),
    ]:
        with pytest.raises(UserError, match=f"protocol .*found '{wrong}'; did you mean '{right}'"):
            named_protocol(wrong)
