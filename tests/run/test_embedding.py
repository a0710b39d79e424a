"""Features of videos: what `tubelet embed` writes, compared with features that are computed one by one."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import Model
from tubelet.clips import SegmentClip, Views
from tubelet.data.dataset import read_clip, read_views
from tubelet.data.manifest import read_manifest, write_manifest
from tubelet.errors import UserError
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import LinearHead
from tubelet.results.features import Features, read_features
from tubelet.results.stored import StoredResults, weights_digest
from tubelet.run import embedding
from tubelet.run.clip_features import FeatureConfig
from tubelet.run.embedding import EmbeddingConfig, embed_list
from tubelet.run.predictor import predict
from tubelet.run.video_list import list_videos
from tubelet.train.runtime import Runtime, RuntimeConfig

Command = Callable[..., tuple[int, str, str]]
embed = partial(embedding.embed, precision="fp32")


def hidden_states(model: Model, clips: torch.Tensor) -> list[torch.Tensor]:
    """The tokens before the first block and after each, (B, N, D), caught while the model encodes clips."""
    seen: list[torch.Tensor] = []
    first, *_ = blocks = model.encoder.blocks
    hooks = [first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))]
    hooks += [block.register_forward_hook(lambda _, __, found: seen.append(found)) for block in blocks]
    with torch.no_grad():
        model.eval().encode(clips)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers in their list of the videos whose features are computed."""
    numbers: list[int] = []
    add = StoredResults.add

    def seen(results: StoredResults, index: np.ndarray, values: np.ndarray) -> None:
        numbers.extend(index.tolist())
        add(results, index, values)

    monkeypatch.setattr(StoredResults, "add", seen)
    return numbers


def test_a_video_is_the_mean_of_the_normalized_tokens(trained: Path, motion: Path) -> None:
    model, video = load_model(trained / "pretrain"), motion / "videos/test/00000.mp4"
    assert model.card.clip is not None
    clip = read_clip(video, model.card.clip, size=32)
    with torch.no_grad():
        expected = model.encode(clip[None])[0].mean(0).numpy()
    vector = embed(trained / "pretrain", str(video))
    assert vector.shape == (32,)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, expected, atol=1e-5)
    np.testing.assert_allclose(embed(model, clip), expected, atol=1e-5)
    np.testing.assert_allclose(embed(model, [video, clip]), [expected, expected], atol=1e-5)


def test_layer_pooling_and_rows_are_as_documented(trained: Path, motion: Path) -> None:
    model, video = load_model(trained / "pretrain"), motion / "videos/test/00001.mp4"
    views = Views(clips=3, crops=1)
    clips = read_views(video, model.card.clip or SegmentClip(4), views, 32)
    states = hidden_states(model, clips)
    steps = model.grid.t
    for layer, state in ((0, states[0]), (1, states[1]), (2, states[2]), (-1, states[2]), (-2, states[1])):
        for norm in (True, False):
            with torch.no_grad():
                tokens = (model.encoder.norm(state) if norm else state).numpy()
            by_frame = tokens.reshape(3, steps, -1, 32)
            for per, pool, expected in (
                ("video", "mean", tokens.mean((0, 1))),
                ("video", "max", tokens.max(1).mean(0)),
                ("clip", "mean", tokens.mean(1)),
                ("clip", "max", tokens.max(1)),
                ("frame", "mean", by_frame.mean(2).reshape(3 * steps, 32)),
                ("frame", "max", by_frame.max(2).reshape(3 * steps, 32)),
                ("token", "mean", tokens.reshape(-1, 32)),
            ):
                found = embed(
                    model, video, per=per, pool=pool, layer=layer, norm=norm, views=views  # type: ignore[arg-type]
                )  # fmt: skip
                np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=f"{layer} {norm} {per} {pool}")


def test_a_linear_head_gets_the_features_of_its_classifier(trained: Path, motion: Path) -> None:
    model, video = load_model(trained / "finetune"), motion / "videos/test/00002.mp4"
    assert isinstance(model.head, LinearHead)
    views = Views()
    vector = torch.from_numpy(embed(model, video, views=views))
    with torch.no_grad():
        logits = model.head.classify(vector)
    probabilities = predict(model, video, views=views, precision="fp32").probabilities
    np.testing.assert_allclose(logits.softmax(0).numpy(), probabilities, atol=1e-5)


def test_crops_are_averaged_and_all_tokens_of_a_masked_classifier_are_visible(
    model: Model, motion: Path
) -> None:
    video, views = motion / "videos/test/00003.mp4", Views(clips=2, crops=3)
    clips = read_views(video, SegmentClip(4), views, 32)
    with torch.no_grad():
        tokens = model.eval().encode(clips)
    assert tokens.shape[1] == model.grid.volume
    found = embed(model, video, per="clip", views=views)
    np.testing.assert_allclose(found, tokens.mean(1).unflatten(0, (2, 3)).mean(1).numpy(), atol=1e-5)
    with pytest.raises(UserError, match=r"views\.crops"):
        embed(model, video, per="token", views=views)


def test_a_class_token_is_a_pooling_only_where_the_model_has_one(trained: Path) -> None:
    torch.manual_seed(0)
    encoder = EncoderConfig(
        frames=4,
        image_size=32,
        dim=32,
        depth=2,
        heads=2,
        mlp_dim=64,
        patch_size=8,
        class_token=True,
        positions="joint",
    )
    model = MaskedAutoencoder(AutoencoderConfig(encoder=encoder))
    clip = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    states = hidden_states(model, clip[None])
    assert states[1].shape[1] == model.grid.volume + 1
    for norm in (True, False):
        with torch.no_grad():
            tokens = (model.encoder.norm(states[2]) if norm else states[2])[0]
        found = {pool: embed(model, clip, pool=pool, norm=norm) for pool in ("class", "mean")}
        np.testing.assert_allclose(found["class"], tokens[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(found["mean"], tokens[1:].mean(0).numpy(), atol=1e-5)
    for wrong, setting in (
        ({"pool": "class", "per": "frame"}, "per=frame"),
        ({"pool": "max", "per": "token"}, "per=token"),
        ({"layer": 3}, "layer"),
        ({"layer": -4}, "layer"),
        ({"pool": "median"}, "pool"),
        ({"per": "hour"}, "per"),
    ):
        with pytest.raises(UserError, match=setting):
            embed(model, clip, **wrong)
    with pytest.raises(UserError, match="class token"):
        embed(trained / "pretrain", clip, pool="class")


def test_a_data_set_is_embedded_with_its_labels_lists_and_header(
    tubelet: Command, trained: Path, motion: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "features.npz"
    code, text, err = tubelet("embed", trained / "pretrain", motion, "-o", out, "--precision", "fp32")
    assert (code, err) == (0, "")
    assert text == f"{out}: 48 rows of 32 numbers\n"
    found = read_features(out)
    assert isinstance(found.vectors, np.memmap)
    samples = [(split, s) for split in ("train", "val", "test") for s in read_manifest(motion, split).samples]
    assert found.names == [s.name for _, s in samples]
    assert found.splits == [split for split, _ in samples]
    assert found.labels.tolist() == [s.label for _, s in samples]
    assert found.classes == read_manifest(motion, "test").classes
    assert np.isnan(found.start).all()
    model = load_model(trained / "pretrain")
    for row in (0, 30, 47):
        expected = embed(model, motion / found.names[row])
        np.testing.assert_allclose(found.vectors[row], expected, atol=1e-5)
    with np.load(out, allow_pickle=False) as saved:
        header = json.loads(str(saved["header"]))
        np.testing.assert_array_equal(saved["features"], found.vectors)
    assert header["weights"] == weights_digest(model)
    assert (header["model"], header["layer"], header["pool"], header["per"]) == (
        str(trained / "pretrain"), 2, "mean", "video",
    )  # fmt: skip
    assert header["clip"]["kind"] == "dense"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.slow
def test_one_list_files_and_windows_with_their_times(
    tubelet: Command, trained: Path, motion: Path, tmp_path: Path
) -> None:
    out = tmp_path / "windows.npz"
    words = (trained / "finetune", motion, "--split", "test", "--window", "0.4s", "--hop", "0.2", "-o", out)
    assert tubelet("embed", *words, "--per", "frame", "views.clips=1", "--precision", "fp32")[0] == 0
    found = read_features(out)
    assert found.vectors.shape == (len(found), 2, 32)
    assert set(found.splits) == {"test"}
    first = [row for row, name in enumerate(found.names) if name.startswith("videos/test/00000.mp4")]
    np.testing.assert_allclose(found.start[first][:3], [0, 0.2, 0.4])
    np.testing.assert_allclose(found.end[first] - found.start[first], 0.4, atol=1e-5)
    assert found.names[first[1]] == "videos/test/00000.mp4#t=0.2,0.6"
    label = read_manifest(motion, "test").samples[0].label
    assert found.labels[first].tolist() == [label] * len(first)
    expected = embed(
        trained / "finetune", motion / "videos/test/00000.mp4", per="frame", start=0.2, end=0.6, views=Views()
    )
    np.testing.assert_allclose(found.vectors[first[1]], expected, atol=1e-5)
    assert found.header["windows"] == {"length": 0.4, "hop": 0.2, "unit": "s"}

    mixed = tmp_path / "mixed.npz"
    video = motion / "videos/test/00000.mp4"
    assert tubelet("embed", trained / "pretrain", video, motion, "-o", mixed)[0] == 0
    found = read_features(mixed)
    assert (len(found), found.names[0], found.labels[0], found.splits[0]) == (49, str(video), -1, "")
    assert Path(found.names[1]).is_file()


def test_videos_that_cannot_be_read_are_reported_and_only_they_are_tried_again(
    tubelet: Command, trained: Path, motion: Path, tmp_path: Path, computed: list[int]
) -> None:
    data, out = tmp_path / "data", tmp_path / "features.npz"
    shutil.copytree(motion / "videos/test", data)
    whole = (data / "00004.mp4").read_bytes()
    (data / "00004.mp4").write_text("not a video")
    code, text, err = tubelet("embed", trained / "pretrain", data, "-o", out)
    assert code == 2
    assert err.count("00004.mp4") == 1
    assert "1 of 12 videos" in err
    assert "11 rows" in text
    windows = ("--window", "0.2s", "--hop", "0.2s", "-o", data / "windows.npz")
    code, _, err = tubelet("embed", trained / "pretrain", data / "00004.mp4", data / "00005.mp4", *windows)
    assert code == 2
    assert "00004.mp4: " in err
    assert "(#t=0,0.2)" in err
    found = read_features(out)
    assert [Path(name).name for name in found.broken] == ["00004.mp4"]
    computed.clear()
    (data / "00004.mp4").write_bytes(whole)
    assert tubelet("embed", trained / "pretrain", data, "-o", out)[0] == 0
    assert computed == [4]
    assert len(read_features(out)) == 12
    assert not list(tmp_path.glob("*.parts"))


def test_an_interrupted_run_resumes_but_not_for_other_features(
    trained: Path, motion: Path, tmp_path: Path, computed: list[int]
) -> None:
    model, videos = load_model(trained / "pretrain"), list_videos([str(motion)], "train")
    assert model.card.clip is not None
    config = EmbeddingConfig(clip=model.card.clip, views=Views(), batch_size=4, workers=0)

    def run(config: EmbeddingConfig = config, stop_after: int | None = None) -> Features:
        def stop(done: int, total: int) -> None:
            if done == stop_after:
                raise KeyboardInterrupt

        computed.clear()
        with Runtime(RuntimeConfig(device="cpu", precision="fp32")) as runtime:
            return embed_list(model, videos, config, runtime, tmp_path / "f.npz", progress=stop)

    whole = run().vectors.copy()
    with pytest.raises(KeyboardInterrupt):
        run(stop_after=8)
    assert (tmp_path / "f.npz").is_file()  # of the finished run
    resumed = run()
    assert computed == list(range(8, 24))
    np.testing.assert_array_equal(resumed.vectors, whole)
    with pytest.raises(KeyboardInterrupt):
        run(stop_after=8)
    run(replace(config, features=FeatureConfig(layer=1)))
    assert len(computed) == 24


def test_bad_input_is_one_message(tubelet: Command, trained: Path, motion: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "f.npz"
    for words, named in (
        ((tmp_path / "empty",), "empty"),
        ((tmp_path / "gone.mp4",), "gone.mp4"),
        ((motion, "--split", "other"), "other.csv"),
        ((motion, "--hop", "1s"), "--hop"),
        ((motion, "--window", "0s"), "window"),
        ((motion, "--layer", "9"), "layer"),
        ((motion, "-o", "features.csv"), "features.csv"),
        ((motion, "views.clips=0"), "clips"),
        ((motion, "clip.frames=3"), "clip.frames"),
    ):
        code, text, err = tubelet("embed", trained / "pretrain", "-o", out, *words)
        assert (code, text) == (2, ""), words
        assert err.count("tubelet: ") == 1, err
        assert named in err
    assert not out.exists()


def test_settings_of_the_clip_are_those_of_predict(
    tubelet: Command, trained: Path, motion: Path, tmp_path: Path
) -> None:
    out = tmp_path / "f.npz"
    code, _, err = tubelet(
        "embed", trained / "pretrain", motion, "-o", out, "clip.kind=dense", "clip.stride=1"
    )
    assert code == 0, err
    clip = read_features(out).header["clip"]
    assert (clip["kind"], clip["stride"]) == ("dense", 1)


def test_data_sets_of_other_classes_are_not_mixed(motion: Path, tmp_path: Path) -> None:
    samples = [replace(s, path=str(motion / s.path), label=0) for s in read_manifest(motion, "test").samples]
    write_manifest(tmp_path, "test", samples, ["only"])
    with pytest.raises(UserError, match=r"classes\.txt"):
        list_videos([str(motion), str(tmp_path)])


def test_multi_label_rows_have_all_their_labels(
    tubelet: Command, trained: Path, tagged: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tagged.npz"
    assert tubelet("embed", trained / "pretrain", tagged, "--split", "test", "-o", out)[0] == 0
    expected = [tuple(sorted(s.labels)) for s in read_manifest(tagged, "test").samples]
    assert [tuple(np.flatnonzero(row)) for row in read_features(out).labels] == expected


@pytest.mark.slow
def test_two_processes_write_what_one_does(
    trained: Path, motion: Path, tmp_path: Path, tubelet: Command
) -> None:
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    assert tubelet("embed", trained / "pretrain", motion, "-o", one)[0] == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [
        *torchrun,
        "--log-dir",
        tmp_path / "logs",
        "-m",
        "tubelet",
        "embed",
        trained / "pretrain",
        motion,
    ]
    done = subprocess.run(
        [*map(str, words), "-o", str(two)], env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("48 rows") == 1
    first, second = read_features(one), read_features(two)
    assert first.names == second.names
    np.testing.assert_array_equal(first.vectors, second.vectors)
    assert not list(tmp_path.glob("*.parts"))
