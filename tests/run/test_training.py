"""From a recipe to a trained model, on real videos."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch

from tests.videos import write_video
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.save import save_model
from tubelet.clips import DenseClip, SegmentClip, Views
from tubelet.data.manifest import Sample, read_manifest, write_manifest
from tubelet.errors import UserError
from tubelet.files import exclusive
from tubelet.masking import RandomMasking
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.classifier import VideoClassifier
from tubelet.models.resize import resize_model
from tubelet.models.target import PixelTarget
from tubelet.recipe.loading import load_recipe, to_yaml
from tubelet.recipe.schema import FinetuneRecipe, Recipe
from tubelet.run import training
from tubelet.run.finetuning import class_weights
from tubelet.run.predictor import predict
from tubelet.run.training import RunFolder, make_loggers, run_recipe
from tubelet.train.checkpoint import CheckpointStore
from tubelet.train.loggers import JsonLines
from tubelet.train.runtime import Runtime, RuntimeConfig

Load = Callable[..., Recipe]


def logged(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_recipe_its_log_and_a_model(trained: Path) -> None:
    run = trained / "finetune"
    assert load_recipe(str(run / "recipe.yaml")) == load_recipe(str(trained / "finetune.yaml"))
    model = load_model(run)
    assert isinstance(model, VideoClassifier)
    assert model.card.classes[0] == "moving left"
    assert model.card.clip == SegmentClip(frames=4)
    assert model.card.views == Views(clips=2, crops=1)
    assert isinstance(load_model(run / "best"), VideoClassifier)
    assert {"val/top1", "val/top5"} <= logged(run)[-1].keys()


@pytest.mark.slow
def test_a_classifier_keeps_the_last_ratio_of_its_masking(tiny_recipe: Load, tmp_path: Path) -> None:
    recipe = tiny_recipe("finetune", "masking={kind: random, ratio: 0.25}", "masking_start_ratio=0.75")
    run_recipe(recipe, tmp_path / "run")
    model = load_model(tmp_path / "run")
    assert isinstance(model, VideoClassifier)
    assert model.config.masking == RandomMasking(ratio=0.25)
    with pytest.raises(UserError, match=r"masking_start_ratio=0\.99 leaves none"):
        run_recipe(
            tiny_recipe("finetune", "masking={kind: random, ratio: 0}", "masking_start_ratio=0.99"),
            tmp_path / "none",
        )


@pytest.mark.slow
def test_data_sets_are_joined_each_with_its_own_clips(
    tiny_recipe: Load, motion: Path, tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(motion, tmp_path / "other")
    drawn: dict[str, set[int]] = {}

    def spy(rule: DenseClip, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        numbers = sample(rule, length, rng, fps)
        drawn.setdefault(str(rule.stride), set()).update(np.diff(numbers).tolist())
        return numbers

    sample = DenseClip.sample
    monkeypatch.setattr(DenseClip, "sample", spy)
    every_second = "{kind: dense, frames: 4, stride: 2}"
    more = f"data.more_roots=[{{root: {other}, clip: {every_second}}}, {{root: {motion}}}]"
    recipe = tiny_recipe("pretrain", more, "optim.epochs=1", "optim.batch_size=24")
    run_recipe(recipe, tmp_path / "run")
    assert logged(tmp_path / "run")[-1]["step"] == 3  # 3 x 24 videos
    assert drawn.keys() == {"2", "4"}
    moved = other.rename(tmp_path / "moved")
    again = tiny_recipe(
        "pretrain", more.replace(str(other), str(moved)), "optim.epochs=1", "optim.batch_size=24"
    )
    with pytest.raises(UserError, match="more_roots"):
        run_recipe(again, tmp_path / "run")
    frames = more.replace("frames: 4", "frames: 8").replace(str(other), str(moved))
    with pytest.raises(UserError, match=r"data\.clip\.frames is 8"):
        run_recipe(tiny_recipe("pretrain", frames), tmp_path / "frames")
    fine = tiny_recipe("finetune", f"data.more_roots=[{{root: {tagged}}}]")
    with pytest.raises(UserError, match="labels of one kind"):
        run_recipe(fine, tmp_path / "fine")


def test_balanced_class_weights_are_one_on_average_over_the_videos(tiny_recipe: Load, motion: Path) -> None:
    manifest = read_manifest(motion, "train")
    samples = tuple(replace(s, label=(0, 0, 0, 1, 5)[k % 5]) for k, s in enumerate(manifest.samples[:20]))
    recipe = tiny_recipe("finetune", "class_weights=balanced")
    assert isinstance(recipe, FinetuneRecipe)
    weights = class_weights(recipe, replace(manifest, samples=samples))
    assert weights is not None
    assert weights == pytest.approx([20 / 3 / 12, 20 / 3 / 4, 0, 0, 0, 20 / 3 / 4] + [0.0] * 6)
    assert sum(weights[s.label or 0] for s in samples) / 20 == pytest.approx(1)
    wrong = tiny_recipe("finetune", "class_weights=[1, 2]")
    assert isinstance(wrong, FinetuneRecipe)
    with pytest.raises(
        UserError, match=r"class_weights: expected a number for each of the 12 classes.*found 2"
    ):
        class_weights(wrong, manifest)


def test_all_that_cannot_be_read_is_named_in_one_message(
    tiny_recipe: Load, motion: Path, trained: Path, tmp_path: Path
) -> None:
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    settings = (f"data.root={lonely}", f"data.more_roots=[{{root: {tmp_path / 'none'}}}]", "encoder=null")
    with pytest.raises(UserError) as error:
        run_recipe(tiny_recipe("finetune", *settings), tmp_path / "run")
    message = str(error.value)
    for part in ("lonely has no train.csv", "lonely has no val.csv", "no data set at", "none"):
        assert part in message
    wrong = tiny_recipe("finetune", *settings, f"init={tmp_path / 'missing.pth'}")
    with pytest.raises(UserError, match=r"(?s)train\.csv.*val\.csv.*missing\.pth"):
        run_recipe(wrong, tmp_path / "run")
    pretraining = tiny_recipe("pretrain", f"init={trained / 'finetune'}")
    with pytest.raises(UserError, match="is a classifier: pre-training starts from an autoencoder"):
        run_recipe(pretraining, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fine_tuning_starts_from_the_pretrained_encoder_and_decoder(
    tiny_recipe: Load, trained: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe("mar", "optim.base_lr=0", "optim.weight_decay=0", init=trained / "pretrain")
    run_recipe(recipe, tmp_path / "run")
    before, after = load_model(trained / "pretrain"), load_model(tmp_path / "run")
    assert after.decoder is not None
    assert before.decoder is not None
    for part in ("encoder", "decoder"):
        expected, found = getattr(before, part).state_dict(), getattr(after, part).state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


OTHER_TARGET = "model.target={normalize: patch, pixels: normalized, frames: 2}"


@pytest.mark.slow
def test_a_pretrained_decoder_keeps_its_target(tiny_recipe: Load, tmp_path: Path) -> None:
    start = tmp_path / "start"
    run_recipe(tiny_recipe("pretrain", OTHER_TARGET, "optim.epochs=1"), start)
    learned = load_model(start).config.target
    assert learned == PixelTarget(normalize="patch", pixels="normalized", frames=2)
    run_recipe(tiny_recipe("mar", init=start), tmp_path / "run")
    assert load_model(tmp_path / "run").config.target == learned
    same = OTHER_TARGET.replace("model.", "reconstruction.", 1)
    run_recipe(tiny_recipe("mar", same, init=start), tmp_path / "same")
    with pytest.raises(
        UserError,
        match=r"reconstruction\.target.*\n  normalize: patch -> channel\n  pixels: normalized -> zero_one",
    ):
        run_recipe(tiny_recipe("mar", "reconstruction.target={}", init=start), tmp_path / "other")
    new = "reconstruction.decoder={dim: 16, depth: 1, heads: 2, mlp_dim: 32}"
    run_recipe(tiny_recipe("mar", new, init=start), tmp_path / "new")
    assert load_model(tmp_path / "new").config.target == PixelTarget()


@pytest.mark.parametrize(
    ("setting", "head"),
    [("kind=bridging", "{kind: bridging, dim: 32, heads: 2}"), ("normalize=tokens", "{normalize: tokens}")],
)
def test_a_head_that_needs_the_encoders_last_norm_is_refused_without_it(
    tiny_recipe: Load, trained: Path, tmp_path: Path, setting: str, head: str
) -> None:
    recipe = tiny_recipe("finetune", "encoder=null", f"init={trained / 'finetune'}", f"head={head}")
    with pytest.raises(UserError, match=rf"head\.{setting} needs an init whose encoder ends in a LayerNorm"):
        run_recipe(recipe, tmp_path / "run")


@pytest.mark.slow
def test_a_linear_head_may_keep_the_encoders_last_norm(
    tiny_recipe: Load, trained: Path, tmp_path: Path
) -> None:
    start = load_model(trained / "pretrain")
    with torch.no_grad():
        start.state_dict()["encoder.norm.weight"].normal_()
    save_model(start, tmp_path / "start")
    frozen = ("optim.base_lr=0", "optim.weight_decay=0", "encoder=null", f"init={tmp_path / 'start'}")
    run_recipe(tiny_recipe("finetune", *frozen, "head.keep_norm=true"), tmp_path / "kept")
    norm, kept, ones = "head.norm.weight", load_model(tmp_path / "kept"), torch.ones(start.config.encoder.dim)
    assert torch.equal(kept.state_dict()[norm], start.state_dict()["encoder.norm.weight"])
    run_recipe(tiny_recipe("finetune", *frozen), tmp_path / "fresh")
    assert torch.equal(load_model(tmp_path / "fresh").state_dict()[norm], ones)
    with pytest.raises(UserError, match="keep_norm"):
        run_recipe(tiny_recipe("finetune", "head.keep_norm=true"), tmp_path / "no-start")


def test_fine_tuning_starts_from_a_file_of_another_code_base(
    tiny_recipe: Load, trained: Path, tmp_path: Path
) -> None:
    start = load_model(trained / "pretrain")
    save_model(start, tmp_path / "hf", layout="huggingface")
    recipe = tiny_recipe("mar", "optim.base_lr=0", "optim.weight_decay=0", init=tmp_path / "hf")
    run_recipe(recipe, tmp_path / "run")
    found = load_model(tmp_path / "run").encoder.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in start.encoder.state_dict().items())


@pytest.mark.slow
def test_recomputing_activations_does_not_change_the_weights(tiny_recipe: Load, tmp_path: Path) -> None:
    for run, recompute in (("kept", "false"), ("again", "true")):
        run_recipe(tiny_recipe("pretrain", f"runtime.recompute={recompute}"), tmp_path / run)
    kept, again = (load_model(tmp_path / run).state_dict() for run in ("kept", "again"))
    for name, tensor in kept.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_training_changes_the_weights_and_lowers_the_loss(tiny_recipe: Load, tmp_path: Path) -> None:
    run_recipe(tiny_recipe("pretrain", "optim.epochs=12", "log.every_steps=3"), tmp_path / "run")
    losses = [line["loss"] for line in logged(tmp_path / "run")]
    assert losses[-1] < losses[0]


def test_a_finished_run_returns_at_once_and_changes_nothing(
    tiny_recipe: Load, trained: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained / "finetune", tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    metrics = run_recipe(tiny_recipe("finetune"), run)
    assert metrics["val/top1"] == logged(run)[-1]["val/top1"]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_folder_of_another_recipe_is_refused_with_the_difference(
    tiny_recipe: Load, trained: Path
) -> None:
    with pytest.raises(UserError, match=r"another recipe.*\n.*optim\.base_lr: 0\.01 -> 0\.5"):
        run_recipe(tiny_recipe("finetune", "optim.base_lr=0.5"), trained / "finetune")


def test_where_it_runs_what_it_logs_and_what_is_published_do_not_make_another_recipe(
    tiny_recipe: Load, trained: Path
) -> None:
    for override in (
        "runtime.threads=1",
        "data.workers=1",
        "log.every_steps=5",
        "save.every_seconds=9",
        "published={top1: 81.5, source: a paper}",
    ):
        run_recipe(tiny_recipe("finetune", override), trained / "finetune")


def test_another_path_to_the_same_folder_does_not_make_another_recipe(
    tiny_recipe: Load, trained: Path, motion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    ways = (f"data.root={os.path.relpath(motion)}", "init=pretrain")
    run_recipe(tiny_recipe("mar", *ways), trained / "mar")
    with pytest.raises(UserError, match=r"init: .*/pretrain -> videomae_base_k400"):
        run_recipe(tiny_recipe("mar", "init=videomae_base_k400"), trained / "mar")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [("pretrain", ()), ("mar", ("drop_path=0.5",))])
def test_a_run_resumes_without_the_model_of_init(
    tiny_recipe: Load,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    settings: Any,
) -> None:
    start = shutil.copytree(trained / "pretrain", tmp_path / "start")
    recipe = tiny_recipe(name, f"init={start}", "optim.epochs=2", *settings)
    run_recipe(recipe, tmp_path / "whole")
    save = CheckpointStore.save_last

    def save_and_stop(store: CheckpointStore, *state: Any) -> None:
        save(store, *state)
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointStore, "save_last", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "run")
    monkeypatch.setattr(CheckpointStore, "save_last", save)
    shutil.rmtree(start)
    (tmp_path / "run" / "model.safetensors").write_text("damaged")
    for _ in ("begun", "finished"):
        run_recipe(recipe, tmp_path / "run")
        whole, found = (load_model(tmp_path / run).state_dict() for run in ("whole", "run"))
        assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())
    with pytest.raises(UserError, match=f"no model at {start}"):
        run_recipe(recipe, tmp_path / "new")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.batch_size=100", "optim.batch_size=100 is more than the 24 videos"),
        ("optim.accumulate=3", "use a multiple of 3"),
        ("data.clip.frames=8", "the model takes 4 frames: set data.clip.frames=4 or encoder.frames=8"),
        ("data.root=/nowhere", "no data set at /nowhere"),
        ("data.train=trian", "has no trian.csv"),
        ("encoder=null", "either init=MODEL.* or encoder"),
        ("init=/nowhere", "no model at /nowhere"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_folder_is_made(
    tiny_recipe: Load, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_recipe(tiny_recipe("finetune", override), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_resumes_in_smaller_parts_of_a_step(
    tiny_recipe: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("pretrain", "optim.epochs=2", "log.every_steps=1")
    whole = run_recipe(recipe, tmp_path / "whole")

    def stop(self: JsonLines, step: int, values: dict[str, float]) -> None:
        if values["epoch"] > 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(JsonLines, "log", stop)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, tmp_path / "parts")
    parts = replace(recipe, optim=replace(recipe.optim, accumulate=2))
    assert run_recipe(parts, tmp_path / "parts")["loss"] == pytest.approx(whole["loss"], rel=1e-4)


def test_a_run_does_not_resume_with_other_classes(tiny_recipe: Load, motion: Path, tmp_path: Path) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    recipe = tiny_recipe("finetune", f"data.root={data}", "optim.epochs=1")
    run_recipe(recipe, tmp_path / "run")
    names = (data / "classes.txt").read_text().splitlines()
    (data / "classes.txt").write_text("\n".join(names[::-1]) + "\n")
    with pytest.raises(UserError, match="lists other videos or classes than when the run began"):
        run_recipe(recipe, tmp_path / "run")
    assert load_model(tmp_path / "run").card.classes == tuple(names)


def test_best_starts_again_with_another_validation_list(
    tiny_recipe: Load, motion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    recipe = tiny_recipe("finetune", f"data.root={data}", "optim.epochs=1")
    metrics = run_recipe(recipe, tmp_path / "run")
    assert "validation list" not in capsys.readouterr().err
    header, *rows = (data / "val.csv").read_text().splitlines()
    (data / "val.csv").write_text("\n".join([header, *rows[:6]]) + "\n")
    assert run_recipe(recipe, tmp_path / "run") == metrics
    assert "the validation list has other videos or labels than before" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_ends_with_one_message_when_its_folder_is_deleted(
    tiny_recipe: Load, tmp_path: Path, replaced: bool
) -> None:
    tiny_recipe("pretrain")
    changes = ["optim.epochs=100000", "data.workers=1", "log.every_steps=1"]
    command = [sys.executable, "-m", "tubelet", "pretrain", str(tmp_path / "pretrain.yaml"), *changes]
    run = tmp_path / "run"
    process = subprocess.Popen([*command, "--out", str(run)], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (run / "last.pt").exists():
        time.sleep(0.1)
    run.rename(tmp_path / "moved")
    if replaced:
        run.mkdir()
        (run / "recipe.yaml").write_text("another run")
    _, errors = process.communicate(timeout=3600)
    assert process.returncode == 2, errors
    assert "run was deleted, moved or replaced during the run" in errors
    assert "Traceback" not in errors
    assert [path.name for path in run.glob("*")] == ["recipe.yaml"] * replaced


def test_a_run_whose_recipe_is_deleted_stops(tiny_recipe: Load, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", tiny_recipe("pretrain")) as folder:
        folder.claim_existing()
        folder.begin()
        assert folder.is_in_place()
        (tmp_path / "run" / "recipe.yaml").unlink()
        assert not folder.is_in_place()


@pytest.mark.slow
def test_fine_tuning_at_another_size_starts_from_the_resized_model(
    tiny_recipe: Load, trained: Path, motion: Path, tmp_path: Path
) -> None:
    settings = ("frames=8", "image_size=48", "data.clip.frames=8")
    recipe = tiny_recipe("mar", *settings, init=trained / "pretrain")
    run_recipe(tiny_recipe("mar", *settings, "optim.base_lr=0", init=trained / "pretrain"), tmp_path / "same")
    before = resize_model(load_model(trained / "pretrain"), frames=8, image_size=48)
    same = load_model(tmp_path / "same")
    assert before.decoder is not None
    assert same.decoder is not None
    assert same.grid == before.grid == (4, 6, 6)
    for part in ("encoder", "decoder"):
        expected, found = getattr(before, part).state_dict(), getattr(same, part).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    run_recipe(recipe, tmp_path / "run")
    tuned = load_model(tmp_path / "run")
    assert tuned.grid == (4, 6, 6)
    assert not torch.equal(tuned.encoder.embed.project.weight, before.encoder.embed.project.weight)
    assert sum(p for _, p in predict(tuned, motion / "videos/test/00000.mp4").top(12)) == pytest.approx(1)
    run_recipe(recipe, tmp_path / "run")  # a finished run returns at once


@pytest.mark.slow
def test_learned_positions_are_fine_tuned_at_another_size(
    tiny_recipe: Load, trained: Path, tmp_path: Path
) -> None:
    learned = "model.encoder.positions=separable"
    run_recipe(tiny_recipe("pretrain", learned, "optim.epochs=1"), tmp_path / "start")
    still = ("optim.base_lr=0", "optim.epochs=1", "data.val=null")
    settings = ("encoder=null", "image_size=64", *still, f"init={tmp_path / 'start'}")
    run_recipe(tiny_recipe("finetune", *settings), tmp_path / "run")
    expected = resize_model(load_model(tmp_path / "start"), image_size=64).encoder.state_dict()
    found = load_model(tmp_path / "run").encoder.state_dict()
    assert found["positions.space"].shape[1] == 64
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.clip.frames=8", "the model takes 4 frames: set data.clip.frames=4 or frames=8"),
        ("frames=8", "the model takes 8 frames: set data.clip.frames=8 or frames=4"),
        ("image_size=50", "the model of init cannot be resized to image_size=50: .* a multiple of 8"),
    ],
)
def test_a_size_that_does_not_fit_the_model_of_init_is_refused(
    tiny_recipe: Load, trained: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_recipe(tiny_recipe("mar", override, init=trained / "pretrain"), tmp_path / "run")


def test_init_of_another_architecture_is_refused(tiny_recipe: Load, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"another architecture.*\n.*decoder\.dim: 16 -> 32"):
        run_recipe(
            tiny_recipe("pretrain", "model.decoder.dim=32", f"init={trained / 'pretrain'}"), tmp_path / "run"
        )


@pytest.mark.slow
def test_pretraining_may_start_from_another_models_weights(
    tiny_recipe: Load, trained: Path, tmp_path: Path
) -> None:
    start = trained / "pretrain"
    run_recipe(
        tiny_recipe("pretrain", f"init={start}", "optim.base_lr=0", "optim.weight_decay=0"), tmp_path / "run"
    )
    model = load_model(tmp_path / "run")
    assert isinstance(model, MaskedAutoencoder)
    expected = load_model(start).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_a_broken_video_is_replaced_and_reported(
    tiny_recipe: Load, motion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    broken = data / "videos/train/00003.mp4"
    broken.write_bytes(broken.read_bytes()[:300])
    run_recipe(tiny_recipe("pretrain", f"data.root={data}", "optim.epochs=1"), tmp_path / "run")
    failures = json.loads((tmp_path / "run" / "failures.json").read_text())
    assert list(failures) == ["videos/train/00003.mp4"]
    assert (
        f"1 video was unreadable and replaced: see {tmp_path / 'run' / 'failures.json'}"
        in capsys.readouterr().out
    )
    listed = (data / "train.csv").read_text()
    (data / "train.csv").write_text("\n".join([*listed.splitlines()[:1], *listed.splitlines()[:0:-1]]) + "\n")
    with pytest.raises(UserError, match="other videos or classes"):
        run_recipe(tiny_recipe("pretrain", f"data.root={data}", "optim.epochs=1"), tmp_path / "run")
    assert (tmp_path / "run" / "failures.json").exists()
    (data / "train.csv").write_text(listed)
    shutil.copy(motion / "videos/train/00003.mp4", broken)
    (tmp_path / "run" / "last.pt").unlink()
    run_recipe(tiny_recipe("pretrain", f"data.root={data}", "optim.epochs=1"), tmp_path / "run")
    assert not (tmp_path / "run" / "failures.json").exists()
    assert "unreadable" not in capsys.readouterr().out


def test_too_many_broken_videos_stop_the_run(
    tiny_recipe: Load, motion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    for path in (data / "videos/train").iterdir():
        path.write_text("no video")
    with pytest.raises(UserError, match="videos cannot be read"):
        run_recipe(tiny_recipe("pretrain", f"data.root={data}"), tmp_path / "run")
    assert len(json.loads((tmp_path / "run" / "failures.json").read_text())) > 1
    assert "replaced" not in capsys.readouterr().out


@pytest.mark.slow
def test_multi_label_training_selects_the_best_by_average_precision(
    tiny_recipe: Load, tagged: Path, trained: Path, tmp_path: Path
) -> None:
    settings = (f"data.root={tagged}", "optim.epochs=3", "log.every_steps=1", "mixing={}", "optim.ema=0.5")
    recipe = tiny_recipe("mar", *settings, "data.balanced=true", init=trained / "pretrain")
    metrics = run_recipe(recipe, tmp_path / "run")
    lines = logged(tmp_path / "run")
    assert not any(name in line for line in lines for name in ("accuracy", "val/top1", "val/top5"))
    scores = [line["val/mAP"] for line in lines if "val/mAP" in line]
    assert len(scores) == 3
    assert metrics["best/mAP"] == max(scores)
    best = tmp_path / "run" / "best"
    assert json.loads((best / "metrics.json").read_text()) == {"mAP": max(scores)}
    assert load_model(best).card.multi_label
    assert not load_model(trained / "mar").card.multi_label


@pytest.mark.slow
def test_any_mixture_of_classes_is_learned(tiny_recipe: Load, tmp_path: Path) -> None:
    """Red, green and blue, each in the video or not, in mixtures that are not in the training set."""
    rng = np.random.default_rng(0)
    for split, mixtures in (("train", (0, 1, 2, 4, 7)), ("val", (3, 5, 6, 0))):
        samples = []
        for k, mixture in enumerate(mixtures * 4):
            shown = tuple(channel for channel in range(3) if mixture >> channel & 1)
            frames = rng.integers(0, 60, (6, 32, 32, 3)) + 150 * np.isin(range(3), shown)
            write_video(tmp_path / split / f"{k}.mp4", frames.astype(np.uint8))
            samples.append(Sample(f"{split}/{k}.mp4", labels=shown))
        write_manifest(tmp_path, split, samples, ["red", "green", "blue"])
    settings = (f"data.root={tmp_path}", "optim.base_lr=0.1", "optim.epochs=20", "save.every_epochs=20")
    metrics = run_recipe(tiny_recipe("finetune", *settings), tmp_path / "run")
    assert metrics["val/mAP"] > 0.95
    best = load_model(tmp_path / "run" / "best")
    likely = [name for name, p in predict(best, tmp_path / "val" / "1.mp4").top(3) if p > 0.5]
    assert set(likely) == {"red", "blue"}


def test_a_multi_label_validation_list_with_a_single_label_training_list_is_refused(
    tiny_recipe: Load, motion: Path, tagged: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    shutil.copy(tagged / "val.csv", data / "val.csv")
    with pytest.raises(UserError, match=r"val\.csv is multi-label, train\.csv"):
        run_recipe(tiny_recipe("finetune", f"data.root={data}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["pretrain", "mar", "multi_label"])
def test_two_processes_train_as_one(
    tiny_recipe: Load, trained: Path, tagged: Path, tmp_path: Path, name: str, parallel: str
) -> None:
    overrides = ["optim.epochs=1", "log.every_steps=1", "runtime.precision=fp32", "runtime.device=cpu"]
    if name != "pretrain":
        overrides.append("drop_path=0")  # the only randomness that is not an item's own
    if name == "multi_label":
        name = "mar"
        overrides.append(f"data.root={tagged}")
    one = run_recipe(tiny_recipe(name, *overrides, init=trained / "pretrain"), tmp_path / "one")
    verb = "pretrain" if name == "pretrain" else "finetune"
    settings = (*overrides, f"runtime.parallel={parallel}")
    result = in_two_processes(verb, tmp_path / f"{name}.yaml", *settings, "--out", tmp_path / "two")
    assert result.returncode == 0, result.stderr
    single, together = logged(tmp_path / "one"), logged(tmp_path / "two")
    keys = ("loss", "reconstruction", "val/top1", "val/mAP")
    for a, b in zip(single, together, strict=True):
        assert {k: a[k] for k in keys if k in a} == pytest.approx({k: b[k] for k in keys if k in b}, abs=1e-4)
    assert one["loss"] == pytest.approx(together[-2 if name == "mar" else -1]["loss"], abs=1e-4)
    first, second = (load_model(tmp_path / run).state_dict() for run in ("one", "two"))
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, atol=2e-3, rtol=0)


@pytest.mark.slow
def test_two_processes_stop_for_their_unreadable_videos_together(
    tiny_recipe: Load, motion: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    first = np.random.default_rng((0, 0, 0)).permutation(24).reshape(3, 2, 4)  # step, process, video
    for process in range(2):
        (data / f"videos/train/{first[1, process, 0]:05}.mp4").write_text("no video")
    tiny_recipe("pretrain")
    settings = (f"data.root={data}", "log.every_steps=1", "runtime.device=cpu")  # 1 of 24 may fail
    run = tmp_path / "run"
    result = in_two_processes("pretrain", tmp_path / "pretrain.yaml", *settings, "--out", run)
    assert result.returncode != 0
    assert "2 of 24 videos cannot be read, more than data.max_failures=0.05 allows" in result.stderr
    assert [line["step"] for line in logged(run)] == [1, 2, 3]
    assert len(json.loads((run / "failures.json").read_text())) == 2


def in_two_processes(*words: object) -> "subprocess.CompletedProcess[str]":
    launch = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port())
    with TemporaryDirectory() as logs:  # else torchrun leaves its own log folder
        command = [sys.executable, *launch, "--log-dir", logs, "-m", "tubelet", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("send", [os.killpg, os.kill])
def test_a_signal_saves_and_ends_the_run(
    tiny_recipe: Load, tmp_path: Path, send: Callable[[int, int], None], number: signal.Signals
) -> None:
    """To the group, as terminals and schedulers send it, decoding processes included; or only to it."""
    tiny_recipe("pretrain")
    words = [str(tmp_path / "pretrain.yaml"), "optim.epochs=100000", "data.workers=2", "log.every_steps=1"]
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "tubelet", "pretrain", *words, "--out", str(run)],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and not (run / "log.jsonl").exists():
        time.sleep(0.1)
    send(process.pid, number)
    try:
        _, errors = process.communicate(timeout=3600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 128 + number, errors
    assert f"stopped by {number.name}" in errors
    assert (run / "last.pt").exists()
    assert (run / "model.safetensors").exists()


@pytest.mark.slow
def test_two_runs_do_not_share_a_folder(tiny_recipe: Load, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    changes = ["optim.epochs=100000", "data.workers=1", "log.every_steps=1"]
    recipe = tiny_recipe("pretrain", *changes)
    run = tmp_path / "run"
    command = [sys.executable, "-m", "tubelet", "pretrain", str(tmp_path / "pretrain.yaml"), *changes]
    process = subprocess.Popen([*command, "--out", str(run)], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not (run / "log.jsonl").exists():
            time.sleep(0.1)
        with pytest.raises(UserError, match=r"run is in use by another process; wait until it ends"):
            run_recipe(recipe, run)
    finally:
        process.kill()
        process.wait()
    with exclusive(run):
        """The decoding process of the killed run, which may not have noticed yet, does not hold the lock."""


def test_a_folder_that_another_run_made_meanwhile_is_refused(tiny_recipe: Load, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tiny_recipe("pretrain", "seed=1")
    with RunFolder(run, tiny_recipe("pretrain")) as folder:
        folder.claim_existing()
        assert not run.exists()
        with RunFolder(run, other) as first:
            first.begin()
        with pytest.raises(UserError, match="seed: 1 -> 0"):
            folder.begin()
    assert load_recipe(str(run / "recipe.yaml")) == other


def test_an_unreadable_validation_video_is_counted(tiny_recipe: Load, motion: Path, tmp_path: Path) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    (data / "videos/val/00002.mp4").write_text("no video")
    metrics = run_recipe(tiny_recipe("finetune", f"data.root={data}", "optim.epochs=1"), tmp_path / "run")
    assert metrics["val/broken"] == 1


def test_a_missing_validation_list_is_found_before_the_folder_is_made(
    tiny_recipe: Load, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"has no vall\.csv.*without validation: data\.val=null"):
        run_recipe(tiny_recipe("finetune", "data.val=vall"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "override",
    [
        "encoder.heads=3",
        "encoder.image_size=50",
        "encoder.dim=24 encoder.positions=sinusoid_3d",
    ],
)
def test_a_model_whose_settings_do_not_fit_is_one_message(
    tiny_recipe: Load, tmp_path: Path, override: str
) -> None:
    with pytest.raises(UserError, match="settings do not fit each other"):
        run_recipe(tiny_recipe("finetune", *override.split()), tmp_path / "run")


def test_a_damaged_recipe_in_the_folder_is_named_with_what_to_do(tiny_recipe: Load, tmp_path: Path) -> None:
    recipe, path = tiny_recipe("pretrain"), tmp_path / "run" / "recipe.yaml"
    path.parent.mkdir()
    whole = to_yaml(recipe).encode()
    for content in (b"", whole[:40], b"\xff" + whole, whole.replace(b"optim", b"optin"), b"[" * 1000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"run cannot be resumed: .*recipe\.yaml") as error:
            run_recipe(recipe, path.parent)
        assert "--out" in str(error.value)
        assert "tubelet recipe show" in str(error.value)
    path.write_bytes(whole)
    run_recipe(recipe, path.parent)


@pytest.mark.parametrize(
    ("name", "override", "left"),
    [
        ("pretrain", "masking.ratio=0.001", "all"),
        ("pretrain", "masking.kind=random masking.ratio=0.999", "none"),
        ("pretrain", "masking.kind=dual masking.ratio=0.01", "all"),
        ("mar", "masking.ratio=0.2", "all"),
    ],
)
def test_a_masking_without_visible_or_masked_tokens_is_refused(
    tiny_recipe: Load, trained: Path, tmp_path: Path, name: str, override: str, left: str
) -> None:
    with pytest.raises(UserError, match=f"leaves {left} of the clip's"):
        run_recipe(tiny_recipe(name, *override.split(), init=trained / "pretrain"), tmp_path / "run")


def test_a_missing_tensorboard_is_reported_once(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    training._report_once.cache_clear()
    for run in ("a", "b"):
        loggers = make_loggers(tiny_recipe("pretrain"), tmp_path / run, Runtime(RuntimeConfig(device="cpu")))
        assert [type(logger).__name__ for logger in loggers] == ["Console", "JsonLines"]
    err = capsys.readouterr().err
    assert (err.count("tubelet[track]"), "log.jsonl" in err) == (1, True)
