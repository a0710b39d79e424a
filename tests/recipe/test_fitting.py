"""Settings that are `auto` become plain values, which depend only on what is given and the situation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.videos import moving_frames, write_video
from tubelet.clips import DenseClip, FixedDurationClip, SegmentClip
from tubelet.data.manifest import Sample, write_manifest
from tubelet.errors import UserError
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.recipe.fitting import Situation, describe_fit, fit_settings, has_auto
from tubelet.recipe.loading import load_recipe, read_settings, recipe_text, to_yaml
from tubelet.recipe.schema import FinetuneRecipe, PretrainRecipe
from tubelet.settings import parse
from tubelet.train.optim import scaled_lr

GIB = 2**30
LAPTOP = Situation(num_videos=40, classes=("a", "b", "c"), seconds=3.0, memory_bytes=16 * GIB)
GPU = Situation(num_videos=2000, classes=("a", "b"), seconds=3.0, device="cuda", memory_bytes=80 * GIB)
BASE = AutoencoderConfig(encoder=EncoderConfig(size="base"), decoder=DecoderConfig(size="base"))


def finetuning(situation: Situation, *overrides: str) -> FinetuneRecipe:
    settings = read_settings("own/finetune", *overrides)
    return parse(FinetuneRecipe, fit_settings(settings, situation, "own/finetune"), "own/finetune")


def pretraining(situation: Situation, *overrides: str) -> PretrainRecipe:
    settings = read_settings("own/pretrain", *overrides)
    return parse(PretrainRecipe, fit_settings(settings, situation, "own/pretrain"), "own/pretrain")


def test_forty_videos_on_a_laptop():
    recipe = finetuning(LAPTOP)
    assert recipe.encoder is not None
    assert recipe.encoder.dim < 384
    assert recipe.data.clip == SegmentClip(frames=recipe.encoder.frames)
    assert recipe.data.augment.randaugment is None
    assert recipe.masking is None
    assert 4 <= recipe.optim.batch_size <= 20
    assert 2000 <= recipe.optim.epochs * 40 <= 4000
    assert recipe.optim.warmup_epochs == recipe.optim.epochs / 10


def test_two_thousand_videos_on_a_gpu():
    recipe = finetuning(replace(GPU, start=BASE, start_clip=DenseClip()), "init=base.pth")
    assert recipe.encoder is None
    assert recipe.data.clip == DenseClip()
    assert (recipe.optim.batch_size, recipe.optim.accumulate, recipe.optim.epochs) == (64, 1, 30)
    assert recipe.optim.layer_decay == 0.75
    assert recipe.data.augment.randaugment is not None
    assert 2e-4 < scaled_lr(recipe.optim.base_lr, 64) < 1e-3
    assert finetuning(GPU).encoder == EncoderConfig(size="base")
    assert pretraining(GPU).model.encoder == EncoderConfig(size="base")


def test_a_gpu_with_little_memory_gets_parts_and_then_half_of_the_tokens():
    for gib, masked, parts in ((80, False, 1), (24, False, 2), (12, False, 8), (6, True, 16)):
        recipe = finetuning(replace(GPU, memory_bytes=gib * GIB))
        assert (recipe.masking is not None) == masked, gib
        assert 64 // recipe.optim.accumulate * 0.45 <= 0.7 * gib * (2 if masked else 1), gib
        assert abs(recipe.optim.accumulate / parts - 1) <= 1, gib


@pytest.mark.slow
def test_every_number_of_videos_and_processes_gives_a_recipe():
    for num_videos in (1, 2, 5, 7, 33, 1000, 10**6):
        for processes in (1, 3, 8):
            for device in ("cpu", "cuda", "mps"):
                situation = Situation(num_videos=num_videos, processes=processes, device=device)
                for recipe in (finetuning(situation), pretraining(situation)):
                    optim = recipe.optim
                    assert optim.batch_size % (processes * optim.accumulate) == 0
                    assert optim.batch_size <= max(num_videos, processes)
                    assert optim.epochs >= 10
                    assert optim.base_lr > 0


def test_flips_are_off_where_class_names_have_sides():
    for classes, flip in (
        (("run", "jump"), 0.5),
        (("turn left", "turn right"), 0),
        (("left hook", "kick"), 0),
    ):
        assert finetuning(replace(LAPTOP, classes=classes)).data.augment.flip == flip, classes


def test_long_videos_are_seen_in_parts():
    clip = finetuning(replace(LAPTOP, seconds=26.0)).data.clip
    assert isinstance(clip, DenseClip)
    assert clip.frames * clip.stride == 64


def test_what_is_given_stays_and_the_rest_follows():
    given = ("optim.batch_size=4", "optim.epochs=7", "encoder.frames=16", "data.augment.flip=0")
    recipe = finetuning(LAPTOP, *given)
    assert (recipe.optim.batch_size, recipe.optim.epochs, recipe.optim.warmup_epochs) == (4, 7, 0.7)
    assert recipe.encoder is not None
    assert recipe.encoder.frames == recipe.data.clip.frames == 16
    assert recipe.data.augment.flip == 0
    assert scaled_lr(recipe.optim.base_lr, 4) < scaled_lr(finetuning(LAPTOP).optim.base_lr, 8)
    assert finetuning(LAPTOP, "masking.ratio=0.75").masking is not None
    assert finetuning(replace(GPU, memory_bytes=4 * GIB), "masking=null").masking is None


def test_init_decides_the_model_and_its_clips():
    encoder = EncoderConfig(dim=96, depth=2, heads=3, mlp_dim=96, frames=4)
    start = AutoencoderConfig(encoder=encoder, decoder=DecoderConfig(dim=48, depth=1, heads=3, mlp_dim=96))
    situation = replace(GPU, start=start, start_clip=FixedDurationClip(frames=4, stride=2))
    assert pretraining(situation, "init=x").model == start
    recipe = finetuning(situation, "init=x", "frames=8")
    assert recipe.data.clip == FixedDurationClip(frames=8, stride=2)
    assert recipe.encoder is None


def test_wrong_settings_are_named_as_usual():
    for override, name in (
        ("optim.epochs=many", "optim.epochs"),
        ("optim.bach_size=3", "batch_size"),
        ("optim.eps=auto", "optim.eps"),
        ("optim.warmup_epochs=-1", "warmup_epochs"),
    ):
        with pytest.raises(UserError, match=name):
            finetuning(LAPTOP, override)


def test_only_recipes_with_auto_look_at_the_data(tmp_path: Path):
    assert not has_auto(read_settings("demo/pretrain", "runtime.device=auto"))
    assert has_auto(read_settings("demo/pretrain", "optim.epochs=auto"))
    with pytest.raises(UserError, match=r"data\.root"):
        load_recipe("own/finetune", f"data.root={tmp_path / 'nothing'}")
    assert "epochs: auto" in recipe_text("own/finetune", f"data.root={tmp_path / 'nothing'}")


@pytest.mark.slow
def test_what_was_decided_is_said_and_is_plain_in_the_recipe(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", moving_frames(8))
    write_manifest(tmp_path, "train", [Sample(str(path), k % 2, 8, 25.0) for k in range(12)], ["a", "b"])
    said: list[str] = []
    recipe = load_recipe("own/finetune", f"data.root={tmp_path}", "runtime.device=cpu", report=said.append)
    assert said[0].startswith("12 videos, 2 classes, CPU:")
    assert all(len(line) <= 80 for line in said)
    settings: dict[str, Any] = dict(vars(recipe.optim))
    assert "auto" not in settings.values()
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(recipe))
    assert load_recipe(again) == recipe
    assert recipe_text("own/finetune", f"data.root={tmp_path}", "runtime.device=cpu").endswith(
        to_yaml(recipe)
    )


def test_lines_fit_a_terminal():
    for situation in (LAPTOP, GPU):
        measured = replace(situation, multiply_adds_per_s=1e11, reads_per_s=50)
        lines = describe_fit(finetuning(situation), measured)
        assert all(len(line) <= 80 for line in lines), lines
