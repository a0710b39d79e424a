"""The command as a user types it."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def test_help_needs_no_torch() -> None:
    program = """
import sys
sys.argv = ["tubelet", "--help"]
from tubelet.cli.main import main
try:
    main()
except SystemExit:
    pass
assert not {"torch", "numpy", "av", "pydantic"} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for verb in ("demo", "prepare", "pretrain", "finetune", "evaluate", "predict", "visualize", "recipe"):
        assert verb in result.stdout


def test_prepare_pretrain_finetune_evaluate_predict_visualize(tubelet, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        tubelet(
            "prepare",
            "synthetic",
            "data",
            "--size",
            32,
            "--train",
            12,
            "--val",
            12,
            "--test",
            12,
            "--workers",
            0,
        )[0]
        == 0
    )
    encoder = "{frames: 4, image_size: 32, patch_size: 8, dim: 32, depth: 1, heads: 2, mlp_dim: 32}"
    Path("pre.yaml").write_text(
        "task: pretrain\n"
        "data: {root: data, clip: {kind: dense, frames: 4, stride: 2}, workers: 0}\n"
        f"model: {{encoder: {encoder}, decoder: {{dim: 16, depth: 1, heads: 2, mlp_dim: 32}}}}\n"
        "optim: {base_lr: 1e-3, batch_size: 4}\n"
    )
    Path("fine.yaml").write_text(
        "task: finetune\n"
        "data: {root: data, clip: {kind: segment, frames: 4}, workers: 0}\n"
        "optim: {base_lr: 1e-3, batch_size: 4}\n"
    )
    code, out, _ = tubelet("pretrain", "pre.yaml")
    assert (code, out.split()[:2]) == (0, ["runs/pre:", "done"])
    code, out, _ = tubelet("finetune", "fine.yaml", "init=runs/pre", "--out", "tuned")
    assert code == 0
    assert "val/top1" in out
    code, out, _ = tubelet(
        "evaluate", "tuned", "data.root=data", "data.workers=0", "views.clips=2", "--dump", "out.npz"
    )
    assert code == 0
    assert "of 12 videos" in out
    assert np.load("out.npz")["probabilities"].shape == (12, 12)
    code, out, _ = tubelet("predict", "tuned", "data/videos/test/00000.mp4", "--top", 3, "--json")
    assert code == 0
    assert len(json.loads(out)["top"]) == 3
    code, out, _ = tubelet("visualize", "runs/pre", "data/videos/test/00000.mp4", "-o", "x.gif")
    assert code == 0
    with Image.open("x.gif") as picture:
        assert picture.format == "GIF"


def test_a_list_of_several_classes_is_prepared_trained_on_tested_and_predicted(
    tubelet, motion: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    videos = sorted((motion / "videos/val").iterdir())
    for split, shift in (("train", 0), ("val", 1)):
        lines = [f"{video},{k % 4};{(k + 1) % (3 + shift)}" for k, video in enumerate(videos)]
        Path(f"tags_{split}.csv").write_text("\n".join(["path,labels", *lines]) + "\n")
    code, out, _ = tubelet(
        "prepare", "list", "tags_train.csv", "tags_val.csv", "--out", "data", "--workers", 1
    )
    assert code == 0
    assert "ready to train on" in out
    Path("fine.yaml").write_text(
        "task: finetune\n"
        "data: {root: data, clip: {kind: segment, frames: 4}, workers: 0}\n"
        "encoder: {frames: 4, image_size: 32, patch_size: 8, dim: 32, depth: 1, heads: 2, mlp_dim: 32}\n"
        "optim: {base_lr: 1e-3, batch_size: 4}\n"
    )
    code, out, _ = tubelet("finetune", "fine.yaml", "--out", "run")
    assert code == 0
    assert "val/mAP" in out
    assert "top1" not in out
    code, out, _ = tubelet("evaluate", "run", "data.root=data", "data.split=val", "data.workers=0")
    assert code == 0
    assert re.match(r"mAP \d+\.\d\d%  of 12 videos, over 4 classes  \(", out)
    code, out, _ = tubelet("predict", "run/best", videos[0], "--json")
    assert code == 0
    assert [set(entry) for entry in json.loads(out)["top"]] == [{"class", "probability"}] * 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe", "show", "nosuch"], "no recipe 'nosuch'; `tubelet recipe list` shows them all"),
        (["recipe", "help", "nosuch"], "no recipes for 'nosuch'; there are: pretrain"),
        (["recipe", "help", "pretran"], "did you mean 'pretrain'? there are: pretrain"),
        (["pretrain", "demo/pretran"], "did you mean 'demo/pretrain'"),
        (["pretrain", "demo/pretrain", "optim.epoch=3"], "did you mean 'epochs'"),
        (["pretrain", "demo/pretrain", "data.root=/nowhere"], "no data set at /nowhere"),
        (["finetune", "demo/pretrain"], "use `tubelet pretrain demo/pretrain`"),
        (["evaluate", "/nowhere", "data.root=x"], "no model at /nowhere"),
        (["evaluate", "/nowhere"], "data is missing"),
        (["recipe", "show", "nothing.yaml"], "no recipe file at nothing.yaml"),
        (["prepare", "synthetic", "x", "--size", "31"], "size must be even"),
        (["visualize", "x", "y", "--seed", "99999999999999999999999"], "Invalid value for '--seed'"),
        (["demo", "--seed", "-1"], "Invalid value for '--seed'"),
        (["bench", "data", "--size", "0"], "Invalid value for '--size'"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    tubelet, tmp_path, monkeypatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = tubelet(*words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err + out


def test_a_folder_without_a_list_is_named(tubelet, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no videos here")
    code, _, err = tubelet("pretrain", "demo/pretrain", f"data.root={tmp_path}")
    assert code == 2
    assert "has no train.csv" in err
    assert "docs/data.md" in err


def test_predict_names_what_it_cannot_read_and_goes_on(
    tubelet, trained: Path, motion: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    good = motion / "videos/test/00001.mp4"
    code, out, err = tubelet("predict", trained / "finetune", broken, good, tmp_path / "gone.mp4")
    assert code == 2
    assert str(good) in out
    assert "broken.mp4" in err
    assert "gone.mp4: no such file" in err
    assert "2 of 3 videos could not be read" in err


def test_predict_names_one_class_at_least(tubelet, trained: Path, motion: Path) -> None:
    video = motion / "videos/test/00001.mp4"
    code, _, err = tubelet("predict", trained / "finetune", video, "--top", -1)
    assert code == 2
    assert "--top" in err


def test_a_classifier_that_can_paint_is_not_shown(tubelet, trained: Path, motion: Path) -> None:
    code, _, err = tubelet(
        "visualize", trained / "mar", motion / "videos/test/00001.mp4", "-o", trained / "x.gif"
    )
    assert code == 2
    assert "is a classifier, which cannot be shown: give the pre-trained autoencoder" in err


def test_a_folder_of_videos_is_not_predicted(tubelet, trained: Path, motion: Path) -> None:
    folder = motion / "videos/test"
    code, _, err = tubelet("predict", trained / "finetune", folder)
    assert code == 2
    assert f"of a folder of videos give the files, such as {folder}/*.mp4" in err


@pytest.mark.parametrize("place", ["file/x", "folder"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    tubelet, trained: Path, motion: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    for words in (
        ("evaluate", trained / "finetune", f"data.root={motion}", "--dump"),
        ("visualize", trained / "pretrain", motion / "videos/test/00001.mp4", "-o"),
    ):
        code, out, err = tubelet(*words, tmp_path / place)
        assert (code, out) == (2, "")
        assert f"{tmp_path / place} cannot be written: " in err
        assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_recipes_are_listed_shown_and_explained(tubelet) -> None:
    assert "demo/finetune_mar" in tubelet("recipe", "list")[1]
    assert "epochs: 7" in tubelet("recipe", "show", "demo/pretrain", "optim.epochs=7")[1]
    _, out, _ = tubelet("recipe", "help", "finetune")
    assert "optim.base_lr  (float; required)" in out
    assert "label_smoothing" in out


def test_a_full_disk_is_one_message(tubelet, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/pre/log.jsonl")

    monkeypatch.setattr("tubelet.recipe.loading.recipe_names", full)
    code, _, err = tubelet("recipe", "list")
    assert code == 2
    assert "runs/pre/log.jsonl: No space left on device" in err
