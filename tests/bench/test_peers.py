"""What benchmarks/ compares Tubelet with: other loaders, and synthetic videos."""

import sys
from pathlib import Path

import pytest
import torch

import made_videos
import peer_loaders
from reading import loader_table
from tests.videos import index_of, moving_frames, write_video
from tubelet.bench.measure import ClipRequest, our_loader
from tubelet.clips import DenseClip


@pytest.mark.slow
def test_made_videos_resemble_public_data_sets_and_are_written_once(tmp_path: Path):
    files = made_videos.write_made_videos(tmp_path, 1, seconds=2.5)
    original, encoded, webm = (index_of(paths[0]) for paths in files.values())
    assert (original.codec, original.width, original.height, len(original)) == ("h264", 340, 256, 75)
    assert (encoded.codec, encoded.width, encoded.height, len(encoded)) == ("h264", 340, 256, 75)
    assert encoded.keys == (0, 16, 32, 48, 64)
    assert len(original.keys) == 1
    assert (webm.codec, webm.width, webm.height, len(webm)) == ("vp9", 427, 240, 12)

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    made_videos.write_made_videos(tmp_path, 1, seconds=2.5)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before


@pytest.mark.slow
def test_all_loaders_read_the_same_clip(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", moving_frames(60, 96, 128), options={"g": "12", "crf": "12"})
    request = ClipRequest(path, DenseClip(frames=4, stride=4), 64, seed=3, start=0.4)
    (ours,) = our_loader()(request)
    for name, load in peer_loaders.peer_loaders()[0].items():
        clip = torch.as_tensor(load(request))
        if clip.is_floating_point():  # normalized, channels first
            mean, std = (torch.tensor(x)[:, None, None, None] for x in (peer_loaders.MEAN, peer_loaders.STD))
            clip = ((clip * std + mean) * 255).transpose(0, 1)
        assert clip.shape == ours.shape, name
        assert (clip.float() - ours.float()).abs().mean() < 12, name


def test_a_missing_library_is_reported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    found, missing = peer_loaders.peer_loaders()
    assert not any("decord" in name for name in found)
    assert "decord" in missing["decord + PIL, as VideoMAE"]


def test_a_table_compares_all_loaders(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", moving_frames(60, 96, 128))
    lines = loader_table([path], stride=4, rounds=1, frames=4, size=32)
    names = {line.split("|")[1].strip() for line in lines if line.startswith("| ")}
    assert names >= {"tubelet", "tubelet, data.repeats=4", *peer_loaders.peer_loaders()[0]}
    (ours,) = (line for line in lines if line.split("|")[1:2] and line.split("|")[1].strip() == "tubelet")
    assert float(ours.split("|")[3]) == 1
