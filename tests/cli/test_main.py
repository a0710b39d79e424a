"""The command as a user types it."""

import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from tubelet.checkpoints.hints import ArchitectureHints
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import Model
from tubelet.checkpoints.save import save_model
from tubelet.cli.checkpoints import inspect
from tubelet.cli.main import COMMANDS, app
from tubelet.cli.options import Device, Precision, TrainingPrecision
from tubelet.data.manifest import read_manifest, write_manifest
from tubelet.machine import version
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.encoder import EncoderConfig
from tubelet.recipe.loading import load_recipe, recipe_names
from tubelet.run import evaluation
from tubelet.run.inference import on_device
from tubelet.train.runtime import Runtime, RuntimeConfig
from tubelet.video.reader import Crop, VideoFile


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
    listed = re.findall(r"^  (\w+)  +[A-Z]", result.stdout, re.MULTILINE)
    assert listed == [name for panel in COMMANDS.values() for name in panel]
    assert all(panel in result.stdout for panel in COMMANDS)


def test_every_command_says_what_it_is_for(tubelet) -> None:
    for panel in COMMANDS.values():
        for name, command in panel.items():
            code, out, _ = tubelet(name, "--help")
            assert code == 0, name
            if isinstance(command, typer.Typer):
                assert command.info.help, name
                words = [(name, each.name) for each in command.registered_commands]
                assert all("Usage" in tubelet(*each, "--help")[1] for each in words), name
            else:
                assert command.__doc__, name
                assert command.__doc__.splitlines()[0].split()[0] in out, name


def test_the_version_is_printed(tubelet) -> None:
    assert tubelet("--version")[:2] == (0, f"tubelet {version()}\n")


def test_the_shell_completes_commands_recipes_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def completed(line: str) -> list[str]:
        monkeypatch.setenv("_TUBELET_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        with pytest.raises(SystemExit):
            app(prog_name="tubelet")
        return capsys.readouterr().out.split()

    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("task: pretrain\n")
    assert {"pretrain", "finetune", "predict"} <= set(completed("tubelet "))
    assert completed("tubelet pretrain demo/pre") == ["demo/pretrain"]
    assert set(completed("tubelet pretrain ")) == {*recipe_names(), "own.yaml"}
    assert completed("tubelet pretrain demo/pretrain optim.epo") == ["optim.epochs="]
    assert completed("tubelet pretrain demo/pretrain optim.epochs=3 masking.rat") == ["masking.ratio="]
    assert completed("tubelet evaluate runs/x views.c") == ["views.clips=", "views.crops="]
    assert completed("tubelet recipe show demo/pretrain seed") == ["seed="]
    assert "bf16" in completed("tubelet predict runs/x --precision ")


def test_the_options_are_those_of_the_settings_and_of_load_model() -> None:
    for option, name in ((Device, "device"), (Precision, "precision"), (TrainingPrecision, "precision")):
        assert get_args(get_args(option)[0]) == get_args(get_type_hints(RuntimeConfig)[name])
    own = {name for name in signature(load_model).parameters if name not in ("source", "hints")}
    options = {name for name in signature(inspect).parameters if name != "model"}
    assert options == own | {*get_type_hints(ArchitectureHints)}


@pytest.mark.slow
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
    code, out, _ = tubelet("predict", "tuned", "data/videos/test/00000.mp4", "--top", 3, "--format", "jsonl")
    assert code == 0
    assert len(json.loads(out)["top"]) == 3
    code, out, _ = tubelet("visualize", "runs/pre", "data/videos/test/00000.mp4")
    assert (code, out) == (0, "reconstruction.gif\n")
    with Image.open("reconstruction.gif") as picture:
        assert picture.format == "GIF"


@pytest.mark.slow
def test_a_multi_label_list_is_prepared_trained_on_tested_and_predicted(
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
    assert "data is ready" in out
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
    assert re.match(r"mAP \d+\.\d\d%  of 12 videos, over 4 classes", out)
    code, out, _ = tubelet("predict", "run/best", videos[0], "--format", "jsonl")
    assert code == 0
    assert [set(entry) for entry in json.loads(out)["top"]] == [{"class", "probability"}] * 4


MISTAKES = (
    (("recipe", "show", "nosuch"), "nosuch"),
    (("recipe", "help", "nosuch"), "nosuch"),
    (("recipe", "help", "pretran"), "did you mean 'pretrain'"),
    (("pretrain", "demo/pretran"), "did you mean 'demo/pretrain'"),
    (("pretrain", "demo/pretrain", "optim.epoch=3"), "did you mean 'optim.epochs'"),
    (("pretrain", "demo/pretrain", "data.root=/nowhere"), "/nowhere"),
    (("finetune", "demo/pretrain"), "tubelet pretrain demo/pretrain"),
    (("evaluate", "/nowhere", "data.root=x"), "/nowhere"),
    (("predict", "x", "views.clips=2"), "views.clips=2"),
    (("predict", "x", "*.mkv"), "*.mkv"),
    (("predict", "x", "y.mp4", "view.clips=2"), "'views'"),
    (("evaluate", "x", "data.root=x", "runtime.device=cpu", "--device", "cuda"), "runtime.device=cpu"),
    (("evaluate", "x", "data.root=x", "runtime.precision=bf16", "--precision", "fp32"), "--precision fp32"),
    (("predict", "x", "y", "--device", "tpu"), "--device"),
    (("predict", "x", "y", "--precision", "fp8"), "--precision"),
    (("recipe", "show", "nothing.yaml"), "nothing.yaml"),
    (("prepare", "synthetic", "x", "--size", "31"), "size"),
    (("visualize", "x", "y", "--seed", "99999999999999999999999"), "--seed"),
    (("demo", "--seed", "-1"), "--seed"),
    (("bench", "data", "--size", "0"), "--size"),
)


def test_a_mistake_is_one_message_and_exit_code_2(tubelet, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, named in MISTAKES:
        code, out, err = tubelet(*words)
        assert code == 2, words
        assert named in err, (words, err)
        assert "Traceback" not in err + out, words


def test_device_and_precision_are_options_and_settings(
    tubelet, trained: Path, motion: Path, monkeypatch
) -> None:
    used: list[tuple[object, ...]] = []

    def seen(model: Model, *chosen: Any) -> tuple[Model, Runtime]:
        used.append(chosen)
        return on_device(model, *chosen)

    monkeypatch.setattr(evaluation, "on_device", seen)
    common = ("evaluate", trained / "finetune", f"data.root={motion}", "data.workers=0")
    for words, expected in (
        ((), ("auto", "auto", None)),
        (("--device", "cpu", "--precision", "bf16"), ("cpu", "bf16", None)),
        (("runtime.device=cpu", "runtime.precision=fp32", "runtime.threads=1"), ("cpu", "fp32", 1)),
        (("runtime.device=cpu", "--device", "cpu"), ("cpu", "auto", None)),
    ):
        assert tubelet(*common, *words)[0] == 0
        assert used.pop() == expected, words


@pytest.mark.slow
def test_a_checkpoint_gets_the_hints_that_are_given(
    tubelet, trained: Path, motion: Path, tmp_path: Path
) -> None:
    encoder = EncoderConfig(
        frames=4, image_size=32, patch_size=8, dim=32, depth=1, heads=4, mlp_dim=64, final_norm=False
    )
    path, video = tmp_path / "x.pth", motion / "videos/test/00001.mp4"
    save_model(VideoClassifier(ClassifierConfig(encoder=encoder, classes=12)), path, "videomae")
    sizes = ("--heads", 4, "--image-size", 32, "--frames", 4)
    assert "4 heads" in tubelet("inspect", path, *sizes)[1]
    assert tubelet("predict", path, video, *sizes)[0] == 0
    code, out, _ = tubelet("evaluate", path, f"data.root={motion}", "data.workers=0", *sizes)
    assert (code, "of 12 videos" in out) == (0, True)
    assert tubelet("convert", path, tmp_path / "out", *sizes)[0] == 0
    assert load_model(tmp_path / "out").config.encoder.heads == 4


def test_a_folder_without_a_list_is_named(tubelet, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a video")
    code, _, err = tubelet("pretrain", "demo/pretrain", f"data.root={tmp_path}")
    assert code == 2
    assert "train.csv" in err
    assert "docs/data.md" in err


def test_predict_names_what_it_cannot_read_and_predicts_the_others(
    tubelet, trained: Path, motion: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("not a video")
    good = motion / "videos/test/00001.mp4"
    code, out, err = tubelet("predict", trained / "finetune", broken, good, tmp_path / "gone.mp4")
    assert code == 2
    assert str(good) in out
    assert "broken.mp4" in err
    assert "gone.mp4: no such file" in err
    assert "2 of 3 videos could not be read" in err


def test_a_video_that_fails_in_a_new_way_does_not_stop_the_others(
    tubelet, trained: Path, motion: Path, monkeypatch
) -> None:
    videos = sorted((motion / "videos/test").iterdir())[:3]
    read = VideoFile.read_crops

    def fail(video: VideoFile, crops: Sequence[Crop]) -> list[torch.Tensor]:
        if str(video._deadline.path) == str(videos[1]):
            raise ZeroDivisionError("division by zero")
        return read(video, crops)

    monkeypatch.setattr(VideoFile, "read_crops", fail)
    code, out, err = tubelet("predict", trained / "finetune", *videos, "--format", "jsonl")
    assert code == 2
    assert [json.loads(line)["video"] for line in out.splitlines()] == [str(videos[0]), str(videos[2])]
    assert f"{videos[1]}: " in err
    assert "1 of 3 videos could not be read" in err


def test_a_model_with_broken_weights_predicts_nothing(
    tubelet, trained: Path, motion: Path, tmp_path: Path
) -> None:
    model = load_model(trained / "finetune")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    broken = tmp_path / "broken"
    save_model(model, broken)
    videos = sorted((motion / "videos/test").iterdir())[:2]
    code, out, err = tubelet("predict", broken, *videos, "--format", "jsonl")
    assert (code, out) == (2, "")
    assert "not finite" in err or "NaN" in err


@pytest.mark.slow
def test_the_results_of_a_test_are_kept_beside_its_output(
    tubelet, trained: Path, motion: Path, tmp_path: Path
) -> None:
    ignored = shutil.ignore_patterns("evaluations")
    run = shutil.copytree(trained / "finetune", tmp_path / "run", ignore=ignored)
    model = load_model(run)
    save_model(model, tmp_path / "x.pth", "videomae")
    common = (f"data.root={motion}", "data.workers=0", "data.clip={kind: segment, frames: 4}")
    hints = ("--heads", 2, "--image-size", 32, "--frames", 4)
    for words, folder in (
        ((run, *common), run / "evaluations"),
        ((run, *common, "--out", tmp_path / "out"), tmp_path / "out"),
        ((run, *common, "--dump", tmp_path / "a.npz", "views.crops=2"), run / "evaluations"),
        ((tmp_path / "x.pth", *common, *hints, "--dump", tmp_path / "b.npz"), tmp_path / "b.npz.evaluations"),
    ):
        before = set(folder.rglob("*.npy"))
        first, again = tubelet("evaluate", *words), tubelet("evaluate", *words)
        assert (first[0], again[0]) == (0, 0), words
        assert len(set(folder.rglob("*.npy")) - before) == 1, words
        assert "12 videos of these were tested by an earlier run" in again[1]
    files = set(tmp_path.iterdir())
    assert tubelet("evaluate", tmp_path / "x.pth", *common, *hints)[0] == 0
    assert set(tmp_path.iterdir()) == files


def test_a_test_stopped_by_ctrl_c_says_where_its_results_are(
    tubelet, trained: Path, motion: Path, tmp_path: Path, monkeypatch
) -> None:
    compute, num_batches = evaluation._probabilities, iter(range(100))

    def stop(*arguments: Any) -> torch.Tensor:
        if next(num_batches) == 2:
            raise KeyboardInterrupt
        return compute(*arguments)

    monkeypatch.setattr(evaluation, "_probabilities", stop)
    words = (trained / "finetune", f"data.root={motion}", "data.workers=0", "batch_size=2")
    code, out, err = tubelet("evaluate", *words, "--out", tmp_path / "kept")
    assert (code != 0, out) == (True, "")
    assert f"{tmp_path / 'kept'} has the results" in err
    code, out, _ = tubelet("evaluate", *words, "--out", tmp_path / "kept")
    assert code == 0
    assert "4 videos of these were tested by an earlier run" in out


def test_predict_prints_at_least_one_class(tubelet, trained: Path, motion: Path) -> None:
    video = motion / "videos/test/00001.mp4"
    code, _, err = tubelet("predict", trained / "finetune", video, "--top", -1)
    assert code == 2
    assert "--top" in err


def test_a_classifier_is_visualized_if_it_has_a_decoder(
    tubelet, trained: Path, motion: Path, tmp_path: Path
) -> None:
    video = motion / "videos/test/00001.mp4"
    assert tubelet("visualize", trained / "mar", video, "-o", tmp_path / "mar.gif")[0] == 0
    assert (tmp_path / "mar.gif").is_file()
    code, _, err = tubelet("visualize", trained / "finetune", video, "-o", tmp_path / "x.gif")
    assert code == 2
    assert f"{trained / 'finetune'} is a classifier without a decoder" in err


@pytest.mark.slow
def test_folders_patterns_and_files_are_predicted_alike(tubelet, trained: Path, motion: Path) -> None:
    folder = motion / "videos/test"
    expected = [str(path) for path in sorted(folder.glob("0000[01].mp4"))]
    for words in (expected, [f"{folder}/0000[01].mp4"], [f"{folder.parent}/*/0000[01].mp4"]):
        code, out, _ = tubelet("predict", trained / "finetune", *words, "--format", "jsonl", "views.clips=1")
        videos = [json.loads(line)["video"] for line in out.splitlines()]
        assert (code, [video for video in videos if str(folder) in video]) == (0, expected)
    code, out, _ = tubelet("predict", trained / "finetune", folder, "--format", "jsonl")
    assert (code, len(out.splitlines())) == (0, 12)


def test_views_of_a_prediction_are_a_setting(tubelet, trained: Path, motion: Path) -> None:
    video = motion / "videos/test/00001.mp4"
    one, two, usual = (
        tubelet("predict", trained / "finetune", video, "--format", "jsonl", *words)[1]
        for words in (("views.clips=1",), ("views.clips=2",), ())
    )
    assert one != two == usual  # the recipe's test takes two clips


def test_a_run_is_tested_on_its_own_data(tubelet, trained: Path, motion: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained / "finetune", tmp_path / "run")
    code, out, err = tubelet("evaluate", run, "data.workers=0")
    assert (code, f"{motion / 'test.csv'}, 12 videos" in err) == (0, True)
    assert re.match(r"top-1 \d+\.\d\d%  \(\d+ of 12 videos\)  top-5", out)
    assert "moving left" in out
    assert f"{motion / 'val.csv'}" in tubelet("evaluate", run, "data.split=val", "data.workers=0")[2]
    copy = shutil.copytree(motion, tmp_path / "unlabeled")
    manifest = read_manifest(copy, "test")
    write_manifest(copy, "test", [replace(sample, label=None) for sample in manifest.samples])
    words = (run, f"data.root={copy}", "data.workers=0")
    assert f"{copy / 'val.csv'}, 12 videos" in tubelet("evaluate", *words)[2]
    code, _, err = tubelet("evaluate", *words, "data.split=test")
    assert (code, "12 videos have no label" in err, "data.split=val" in err) == (2, True, True)


def test_a_model_that_does_not_record_its_data_needs_it(tubelet, trained: Path, tmp_path: Path) -> None:
    model = load_model(trained / "finetune")
    for provenance in ({}, {"recipe": {"data": {"root": str(tmp_path / "moved")}}}):
        model.card = replace(model.card, provenance=provenance)
        save_model(model, tmp_path / "model")
        code, _, err = tubelet("evaluate", tmp_path / "model")
        assert (code, "data.root=" in err) == (2, True)
        shutil.rmtree(tmp_path / "model")


def test_a_path_that_cannot_be_written_is_refused_before_the_work(
    tubelet, trained: Path, motion: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder.npz").mkdir()
    for path in (tmp_path / "file/x.npz", tmp_path / "folder.npz"):
        for words in (
            ("evaluate", trained / "finetune", f"data.root={motion}", "--dump"),
            ("visualize", trained / "pretrain", motion / "videos/test/00001.mp4", "-o"),
        ):
            code, out, err = tubelet(*words, path)
            assert (code, out) == (2, ""), path
            assert f"{path} cannot be written: " in err
            assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder.npz"}


def test_recipes_are_listed_shown_and_explained(tubelet) -> None:
    assert "demo/finetune_mar" in tubelet("recipe", "list")[1]
    assert "epochs: 7" in tubelet("recipe", "show", "demo/pretrain", "optim.epochs=7")[1]
    _, out, _ = tubelet("recipe", "help", "finetune")
    assert "optim.base_lr  (float; required)" in out
    assert "label_smoothing" in out


def test_listed_recipes_have_columns_and_fit(tubelet) -> None:
    lines = tubelet("recipe", "list")[1].splitlines()
    assert lines[0].split() == ["recipe", "model", "epochs", "top-1", "published", "in"]
    assert max(map(len, lines)) <= 80
    cells = {line.split()[0]: re.split(r"  +", line)[1:] for line in lines}
    assert cells["mar/finetune_ssv2_base_50"] == ["ViT-B", "40", "71.0", "arXiv 2207.11660"]
    assert cells["mae_st/pretrain_k400_base"] == ["ViT-B", "200", "81.3", "SlowFast"]
    assert cells.keys() - {"recipe"} == set(recipe_names())
    some = tubelet("recipe", "list", "hmdb51")[1].splitlines()[1:]
    assert [line.split()[0] for line in some] == [name for name in recipe_names() if "hmdb51" in name]
    assert tubelet("recipe", "list", "hmdb52")[0] == 2


def test_a_shown_recipe_keeps_its_comment_and_loads_again(tubelet, tmp_path: Path) -> None:
    out = tubelet("recipe", "show", "videomae/pretrain_k400_base")[1]
    assert out.startswith("# ")
    (tmp_path / "own.yaml").write_text(out)
    assert load_recipe(str(tmp_path / "own.yaml")) == load_recipe("videomae/pretrain_k400_base")


def test_models_below_a_folder_are_named(tubelet, trained: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").symlink_to(trained)
    for source, named in (
        ("runs/finetun", "did you mean 'runs/finetune'"),
        ("runs/zzzzzzzzzzzzzzzzzz", "runs/finetune, runs/mar, runs/pretrain"),
        ("runs", "in finetune, mar, pretrain: give one of these, such as runs/finetune"),
    ):
        code, _, err = tubelet("predict", source, "x.mp4")
        assert (code, err.count("\n")) == (2, 1)
        assert named in err, err


def test_a_longer_schedule_is_another_run(tubelet, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained / "finetune", tmp_path / "run")
    code, _, err = tubelet("finetune", trained / "finetune.yaml", "optim.epochs=3", "--out", run)
    assert code == 2
    assert "optim.epochs: 2 -> 3" in err
    assert f"init={run}" in err


def test_a_full_disk_is_one_message(tubelet, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/pre/log.jsonl")

    monkeypatch.setattr("tubelet.recipe.loading.recipe_names", full)
    code, _, err = tubelet("recipe", "list")
    assert code == 2
    assert "runs/pre/log.jsonl: No space left on device" in err


def test_no_message_grows_with_the_arguments_or_files(tubelet, tmp_path: Path) -> None:
    recipe = tmp_path / "odd.yaml"
    recipe.write_text(f"task: {'x' * 150_000}\n")
    names = [f"{name}={'x' * 100_000}" for name in ("data.root", "optim.epochs", "data.clip.kind", "nothing")]
    for words in (
        *(("recipe", "show", "demo/finetune_full", name) for name in names),
        ("recipe", "show", "demo/finetune_full", "x" * 100_000),
        ("recipe", "show", "demo/finetune_full", f"{'x' * 100_000}=1"),
        ("recipe", "show", "demo/finetune_full", f"data.{'x' * 100_000}=1"),
        ("recipe", "show", "x" * 100_000),
        ("recipe", "show", recipe),
        ("inspect", "x" * 100_000),
        ("predict", "x" * 100_000, "x" * 100_000),
        ("prepare", "list", "x" * 100_000, "--out", tmp_path / "out"),
        ("prepare", "folder", tmp_path, "--out", tmp_path / ("x" * 100_000)),
    ):
        code, out, err = tubelet(*words)
        if words[-1] != names[0]:  # a path of any length is valid in a recipe
            assert code == 2, words[:2]
            assert len(out) + len(err) < 3000, (words[:2], err[:300])
            assert err.count("tubelet: ") == 1, words[:2]
