"""Recipes: read, checked, changed from the command line, written and compared."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from tubelet.clips import AnyClip, DenseClip, SegmentClip, VideoMAESegmentClip
from tubelet.data.augment import RandomErasing, ResizedCrop
from tubelet.data.manifest import Sample, write_manifest
from tubelet.data.mixing import Mixing
from tubelet.data.randaugment import RandAugment
from tubelet.errors import UserError
from tubelet.masking import RandomMasking, RunningCellMasking, TubeMasking
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import BridgingHeadConfig, LinearHeadConfig
from tubelet.models.sizes import DECODER_SIZES, ENCODER_SIZES
from tubelet.recipe.help import explain
from tubelet.recipe.loading import evaluate_recipe, load_recipe, recipe_names, to_yaml
from tubelet.recipe.schema import DataSource, FinetuneRecipe, PretrainRecipe, Recipe
from tubelet.run.finetuning import make_task
from tubelet.run.new_classifier import make_classifier
from tubelet.run.training import run_recipe
from tubelet.settings import difference, parse, to_plain

PRETRAIN = """
task: pretrain
data: {root: /data}
optim: {base_lr: 1.0e-3, batch_size: 8, epochs: 2}
"""
FINETUNE = """
task: finetune
data: {root: /data, clip: {kind: segment}, augment: {crop: {kind: resized}, flip: 0.5}}
optim: {base_lr: 1.0e-3, batch_size: 8, epochs: 2}
head: {kind: bridging}
masking: {ratio: 0.5}
reconstruction: {weight: 0.1}
"""


@pytest.fixture
def pretrain(tmp_path: Path) -> str:
    (tmp_path / "pretrain.yaml").write_text(PRETRAIN)
    return str(tmp_path / "pretrain.yaml")


@pytest.fixture
def finetune(tmp_path: Path) -> str:
    (tmp_path / "finetune.yaml").write_text(FINETUNE)
    return str(tmp_path / "finetune.yaml")


def pretraining(*args: str) -> PretrainRecipe:
    recipe = load_recipe(*args)
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def finetuning(*args: str) -> FinetuneRecipe:
    recipe = load_recipe(*args)
    assert isinstance(recipe, FinetuneRecipe)
    return recipe


def complaint(*args: str) -> str:
    with pytest.raises(UserError) as error:
        load_recipe(*args)
    return str(error.value)


# ------------------------------------------------------------------------------------------- reading


def test_a_recipe_lists_what_differs_from_the_defaults(pretrain: str):
    recipe = pretraining(pretrain)
    assert recipe.data.root == Path("/data")
    assert recipe.optim.epochs == 2
    assert recipe.masking == TubeMasking(ratio=0.9)
    assert recipe.data.clip == DenseClip(frames=16, stride=4)


def test_kinds_choose_among_settings(finetune: str):
    recipe = finetuning(finetune)
    assert isinstance(recipe.data.clip, SegmentClip)
    assert isinstance(recipe.data.augment.crop, ResizedCrop)
    assert isinstance(recipe.head, BridgingHeadConfig)
    assert recipe.masking == RunningCellMasking(ratio=0.5)


def test_shipped_recipes_are_valid(tmp_path: Path):
    write_manifest(tmp_path, "train", [Sample("a.mp4", 0)], ["class"])
    for name in recipe_names():
        changes = [f"data.root={tmp_path}"] if name.startswith("own/") else []
        assert load_recipe(name, *changes).task in name


def test_recipes_are_named_after_family_verb_data_and_size():
    for name in recipe_names():
        pattern = (
            r"(demo|own)/\w+|(videomae|videomaev2|mae_st|mar)/(pretrain|finetune)_"
            r"(k400|k600|k700|k710|ssv2|ucf101|hmdb51|hybrid)_(small|base|large|huge|giant)"
            r"(_25|_50|_75|_200|_800|_k600|_k710|_linear|_mae_st|_masked)?"
        )
        assert re.fullmatch(pattern, name), name


# ----------------------------------------------------------------------------------------- overriding


def test_overrides_change_single_settings(pretrain: str):
    recipe = pretraining(pretrain, "optim.epochs=7", "data.root=/a b", "masking.ratio=0.75", "init=null")
    assert recipe.optim.epochs == 7
    assert recipe.data.root == Path("/a b")
    assert recipe.masking == TubeMasking(ratio=0.75)
    assert recipe.init is None


def test_overrides_may_be_whole_settings(pretrain: str):
    recipe = pretraining(pretrain, "masking={kind: random, ratio: 0.6}", "data.clip.stride=2")
    assert recipe.masking == RandomMasking(ratio=0.6)
    assert recipe.data.clip == DenseClip(stride=2)


def test_a_home_folder_is_found_behind_an_equals_sign(pretrain: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    recipe = pretraining(pretrain, "data.root=~/a", "init=~/runs/b")
    assert (recipe.data.root, recipe.init) == (Path("/home/somebody/a"), "/home/somebody/runs/b")
    assert evaluate_recipe("data.root=~/a").data.root == Path("/home/somebody/a")


def test_a_later_override_wins(pretrain: str):
    assert pretraining(pretrain, "seed=1", "seed=2").seed == 2


def test_an_override_may_hold_an_equals_sign(pretrain: str):
    assert pretraining(pretrain, "init=a=b").init == "a=b"


def test_what_is_not_an_override_is_refused(pretrain: str):
    for override in ("optim.epochs", "=3", ""):
        assert f"'{override}' is not a setting: write key=value" in complaint(pretrain, override)
    for override in ("init=", "seed=", "data.root="):
        assert f"'{override}' has no value" in complaint(pretrain, override)


def test_text_is_taken_literally(pretrain: str):
    for text in (
        "/data/my #1 set", "2024", "0123", "2020-13-45", "2020-01-02", "12:30", "on", "1e3", "0x10",
        "!!float x", "&a", "*a", "a: b", "- a", "a=b", "None", "|", "5" * 5000, "/data/\udcff", "C:\\videos",
        " x ", "%",
    ):  # fmt: skip
        recipe = pretraining(pretrain, f"data.root={text}", f"init={text}", f"data.train={text}")
        assert (recipe.data.root, recipe.init, recipe.data.train) == (Path(text), text, text)
        assert evaluate_recipe(f"data.root={text}", f"data.split={text}").data.split == text
    for text, meant in (("null", None), ("~", None), ('"[a] #1"', "[a] #1"), ("'null'", "null")):
        assert pretraining(pretrain, f"init={text}").init == meant


def test_text_in_a_file_stays_text(pretrain: str, tmp_path: Path):
    for written, text in (
        ("2024", "2024"), ("0123", "0123"), ("2020-13-45", "2020-13-45"), ("2020-01-02", "2020-01-02"),
        ("on", "on"), ("12:30", "12:30"), ("'null'", "null"), ("5" * 5000, "5" * 5000), ("a#b", "a#b"),
        ('"/data/my #1 set"', "/data/my #1 set"), ("/data/a # a comment", "/data/a"), ("a.inf", "a.inf"),
    ):  # fmt: skip
        path = tmp_path / "text.yaml"
        path.write_text(
            f"{PRETRAIN.replace('{root: /data}', chr(10) + f'  root: {written}')}init: {written}\n"
        )
        recipe = pretraining(str(path))
        assert (recipe.data.root, recipe.init) == (Path(text), text)
        path.write_text(to_yaml(recipe))
        assert load_recipe(str(path)) == recipe


def test_numbers_switches_and_nothing_are_understood(pretrain: str):
    for override, value in (
        ("seed=12", 12), ("seed=1_000", 1000), ("seed=0123", 123), ("data.max_failures=5e-2", 0.05),
        ("runtime.compile=yes", True), ("runtime.compile=False", False), ("runtime.threads=null", None),
        ("model.encoder.std=[0.5, 1, 2e-1]", (0.5, 1.0, 0.2)),
    ):  # fmt: skip
        recipe: object = pretraining(pretrain, override)
        for name in override.partition("=")[0].split("."):
            recipe = getattr(recipe, name)
        assert (recipe, type(recipe)) == (value, type(value)), override


def test_a_value_of_another_kind_is_one_short_message(pretrain: str):
    digits = "5" * 5000
    for override in (
        "seed=!!float x", "seed=3 # a comment", f"seed={digits}", f"optim.base_lr={digits}", "seed=null",
        f"optim.epochs={digits[:400]}", f"model.encoder.dim={digits[:20]}", "seed=[1]", "seed={a: 1}",
        "seed=2020-13-45", "data.root=[a]", "data.root=null", f"seed{'.a' * 3000}=1", "data..root=3",
        f"masking={digits}", "masking={kind: [tube]}", f"masking={{kind: {digits}}}", "data.workers=true",
    ):  # fmt: skip
        _, *lines = complaint(pretrain, override).splitlines()
        assert len(lines) == 1, override
        assert override.split("=")[0].partition(".")[0] in lines[0]
        assert len(lines[0]) < 400


def test_a_nul_character_is_refused(pretrain: str, tmp_path: Path):
    for override in ("data.root=/a\0b", 'init="\\0"', 'masking={kind: "\\0"}'):
        message = complaint(pretrain, override)
        assert message.startswith(override.split("=")[0])
        assert "NUL" in message
    for text in ('init: "\\0"\n', "init: a\0\n"):
        path = tmp_path / "nul.yaml"
        path.write_text(PRETRAIN + text)
        assert f"{path}" in complaint(str(path))


def test_an_override_below_a_single_setting_is_refused(pretrain: str):
    assert "'epochs' is a single setting" in complaint(pretrain, "optim.epochs.x=3")


def test_an_override_that_is_not_yaml_is_refused(pretrain: str):
    assert "seed: '[1' is not a valid YAML value" in complaint(pretrain, "seed=[1")
    for value, problem in (
        ("[old] set", "needs quotation marks"),
        ("{kind: tube, ratio: 0.9, kind: random}", "'kind' is given twice, in line 1"),
        ("[" * 1000, "nested too deeply"),
        ("[&a [*a]]", "nested too deeply"),
    ):
        message = complaint(pretrain, f"masking={value}")
        assert message.startswith("masking: '")
        assert problem in message
        assert len(message) < 400


def test_clips_augmentation_and_mixing_are_settings(finetune: str):
    recipe = finetuning(
        finetune,
        "data.clip={kind: videomae_segment, pad: front}",
        "data.augment.randaugment={policy: rand-m9-mstd0.5-inc1, cropped: true}",
        "data.augment.erasing={}",
        "data.augment.flip_labels=swap",
        "mixing={cutmix: 0}",
    )
    assert recipe.data.clip == VideoMAESegmentClip(pad="front")
    assert recipe.data.augment.randaugment == RandAugment(policy="rand-m9-mstd0.5-inc1", cropped=True)
    assert recipe.data.augment.erasing == RandomErasing(probability=0.25)
    assert recipe.data.augment.crop == ResizedCrop()
    assert recipe.mixing == Mixing(mixup=0.8, cutmix=0)
    assert finetuning(finetune).mixing is None
    assert make_task(recipe, make_classifier(recipe_of_tiny(recipe), None, 3)).mixing == recipe.mixing


def recipe_of_tiny(recipe: FinetuneRecipe) -> FinetuneRecipe:
    """The recipe for a model that is made in no time."""
    encoder = EncoderConfig(frames=4, image_size=32, dim=32, depth=1, heads=2, mlp_dim=32)
    return replace(recipe, encoder=encoder, masking=None, reconstruction=None, head=LinearHeadConfig())


# -------------------------------------------------------------------------------------------- refusing


def test_a_misspelt_setting_is_refused_with_the_right_one(pretrain: str):
    message = complaint(pretrain, "optim.epoch=3", "model.encoder.dept=4")
    assert pretrain in message
    assert "optim.epoch is not a setting; did you mean 'optim.epochs'?" in message
    assert "model.encoder.dept is not a setting; did you mean 'model.encoder.depth'?" in message


def test_a_misspelt_setting_of_a_kind_is_refused(pretrain: str):
    message = complaint(pretrain, "masking={kind: random, ratoi: 0.5}")
    assert "masking.ratoi is not a setting; did you mean 'masking.ratio'?" in message


def test_pretraining_has_no_validation(pretrain: str, finetune: str):
    assert "data.val is not a setting" in complaint(pretrain, "data.val=nosuch")
    assert finetuning(finetune).data.val == "val"
    meanings = {key: meaning for key, _, _, meaning in explain("finetune")}
    assert "data.val" not in {key for key, *_ in explain("pretrain")}
    assert meanings["data.val"].startswith("list to validate on")
    assert meanings["data.train"] == "list to train on."


def test_a_setting_of_another_kind_is_refused(pretrain: str):
    message = complaint(pretrain, "data.clip={kind: segment, stride: 2}")
    assert "data.clip.stride is not a setting" in message


def test_a_mistake_in_an_entry_of_a_list_is_refused_with_its_path(pretrain: str):
    message = complaint(
        pretrain,
        "data.more_roots=[{root: a}, {rot: b, clip: {kind: dense, stride: 0}}]",
        "optim.betas=[1, x]",
    )
    assert "data.more_roots.1.rot is not a setting; did you mean 'data.more_roots.1.root'?" in message
    assert "data.more_roots.1.clip: stride" in message
    assert "optim.betas.1" in message
    recipe = pretraining(pretrain, "data.more_roots=[{root: a, clip: {kind: dense, stride: 2}}]")
    assert recipe.data.more_roots == (DataSource(root=Path("a"), clip=DenseClip(stride=2)),)
    assert "data.more_roots.clip[dense].stride" in {key for key, *_ in explain("pretrain")}


def test_a_wrong_type_is_refused_with_its_path(pretrain: str):
    message = complaint(pretrain, "optim.epochs=many")
    assert "optim.epochs: " in message
    assert "found 'many'" in message


def test_a_missing_setting_is_named(tmp_path: Path):
    path = tmp_path / "short.yaml"
    path.write_text("task: pretrain\noptim: {base_lr: 1.0e-3, batch_size: 8, epochs: 2}\n")
    assert "data is missing" in complaint(str(path))


def test_a_value_out_of_range_is_refused_with_its_path(pretrain: str):
    message = complaint(pretrain, "masking={kind: tube, ratio: 1.5}")
    assert "masking" in message
    assert "found 1.5" in message


# An override, where the message says the problem is, and what it says about the range and the value.
OUT_OF_RANGE = {
    "pretrain": [
        ("optim.betas=[0.9,1.5]", "optim: betas", "found 1.5"),
        ("optim.eps=-1", "optim: eps", "at least 0, found -1"),
        ("optim.base_lr=-1", "optim: base_lr", "at least 0, found -1"),
        ("optim.weight_decay=-1", "optim: weight_decay", "at least 0, found -1"),
        ("optim.layer_decay=0", "optim: layer_decay", "above 0, found 0"),
        ("optim.layer_decay=0.75", "optim.layer_decay", "1 in pre-training, found 0.75"),
        ("optim.base_lr=nan", "optim: base_lr", "a finite number, found nan"),
        ("optim.base_lr=inf", "optim: base_lr", "a finite number, found inf"),
        ("optim.min_lr=nan", "optim: min_lr", "a finite number, found nan"),
        ("optim.warmup_lr=-3", "optim: warmup_lr", "at least 0, found -3"),
        ("optim.weight_decay=nan", "optim: weight_decay", "a finite number, found nan"),
        ("optim.layer_decay=nan", "optim: layer_decay", "a finite number, found nan"),
        ("optim.clip_grad=nan", "optim: clip_grad", "a finite number, found nan"),
        ("optim.clip_grad=-.inf", "optim: clip_grad", "a finite number, found -inf"),
        ("save.every_seconds=nan", "save: every_seconds", "a finite number, found nan"),
        ("seed=-1", "seed", "found -1"),
        ("seed=99999999999999999999999", "seed", "found 99999999999999999999999"),
        ("data.max_failures=3", "data: max_failures", "found 3"),
        ("save.every_seconds=-1", "save: every_seconds", "at least 0, found -1"),
        ("model.encoder.heads=0", "model.encoder: heads", "between 1 and 65,536, found 0"),
        ("model.encoder.patch_size=0", "model.encoder: patch_size", "between 1 and 65,536, found 0"),
        ("model.encoder.tubelet=0", "model.encoder: tubelet", "between 1 and 65,536, found 0"),
        ("model.encoder.depth=-1", "model.encoder: depth", "between 0 and 1,024, found -1"),
        ("model.encoder.dim=-64", "model.encoder: dim", "between 1 and 65,536, found -64"),
        ("model.encoder.mlp_dim=0", "model.encoder: mlp_dim", "between 1 and 65,536, found 0"),
        ("model.encoder.norm_eps=-1", "model.encoder: norm_eps", "at least 0, found -1"),
        ("model.encoder.std=[0.2,nan,0.2]", "model.encoder: std", "between 1e-06 and 10,000.0, found nan"),
        ("model.encoder.std=[0.2,0,0.2]", "model.encoder: std", "between 1e-06 and 10,000.0, found 0"),
        ("model.encoder.position_grid=[8,0,14]", "model.encoder: position_grid", "at least 1, found 0"),
        ("model.decoder.heads=0", "model.decoder: heads", "between 1 and 65,536, found 0"),
        ("model.decoder.depth=-1", "model.decoder: depth", "between 0 and 1,024, found -1"),
        ("model.decoder.final_norm_eps=-1", "model.decoder: final_norm_eps", "at least 0, found -1"),
    ],
    "finetune": [
        ("data.augment.randaugment.policy=rand-m7", "'rand-m7'", "end in -inc1"),
        ("data.augment.erasing.probability=2", "probability", "found 2"),
        ("data.augment.flip_labels=swop", "data.augment.flip_labels", "found 'swop'"),
        ("data.clip={kind: fixed_duration, target_fps: 0}", "target_fps", "above 0"),
        ("mixing.switch=2", "switch", "found 2"),
        ("mixing.mixap=1", "mixing.mixap", "did you mean 'mixing.mixup'?"),
        ("head={kind: linear, norm_eps: -1}", "head: norm_eps", "at least 0, found -1"),
        ("head.heads=0", "head: heads", "between 1 and 65,536, found 0"),
        ("frames=8", "frames", "encoder.frames"),
        ("image_size=8", "image_size", "encoder.image_size"),
        ("frames=0", "frames", "between 1 and 65,536, found 0"),
        ("head.dropout=1", "head: dropout", "found 1"),
        ("head={kind: linear, dropout: 1}", "head: dropout", "found 1"),
        ("head={kind: linear, init_scale: nan}", "head: init_scale", "a finite number, found nan"),
        ("reconstruction.weight=nan", "reconstruction: weight", "a finite number, found nan"),
        ("head.depth=-1", "head: depth", "between 0 and 1,024, found -1"),
        ("reconstruction.weight=-1", "reconstruction: weight", "at least 0, found -1"),
    ],
}


def test_settings_out_of_range_are_refused_with_their_path_and_range(pretrain: str, finetune: str):
    for recipe, rows in ((pretrain, OUT_OF_RANGE["pretrain"]), (finetune, OUT_OF_RANGE["finetune"])):
        for override, where, problem in rows:
            _, *lines = complaint(recipe, override).splitlines()
            assert len(lines) == 1, override
            assert where in lines[0], override
            assert problem in lines[0], override


def test_gigantic_numbers_are_refused_with_their_path(pretrain: str, finetune: str):
    clips = [kind.__dataclass_fields__["kind"].default for kind in get_args(get_args(AnyClip)[0])]
    settings = {
        pretrain: [
            *(f"model.encoder.{name}" for name in ENCODER_SIZES["base"]),
            *(f"model.decoder.{name}" for name in DECODER_SIZES["base"]),
            *(f"model.encoder.{name}" for name in ("frames", "image_size", "tubelet")),
            *(f"data.{name}" for name in ("workers", "repeats", "augmented_copies")),
            "runtime.threads",
        ],
        finetune: ["views.clips", "views.crops", "head.dim", "head.mlp_dim", "head.depth", "frames"],
    }
    for recipe, keys in settings.items():
        for key in keys:
            for value in (2**63 - 1, 10**9, 10**30):
                message = complaint(recipe, f"{key}={value}")
                assert key.rpartition(".")[2] in message, (key, value)
                assert str(value)[:9] in message, (key, value)
    for kind in clips:
        assert "frames must be between" in complaint(pretrain, f"data.clip={{kind: {kind}, frames: {10**9}}}")


def test_a_clip_of_more_tokens_than_a_model_can_have_is_refused(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path
):
    for override in (
        "model.encoder.image_size=65536",
        "model.encoder.position_grid=[1000000,1000000,1000000]",
        "model.decoder.position_grid=[1000000,1000000,1000000]",
    ):
        with pytest.raises(UserError, match=r"must make at most 131,072 tokens") as caught:
            run_recipe(tiny_recipe("pretrain", override), tmp_path / "run")
        assert override.split("=")[0].split(".")[-1] in str(caught.value)


@pytest.mark.slow
def test_a_run_takes_the_largest_seed(tiny_recipe: Callable[..., Recipe], tmp_path: Path):
    run_recipe(tiny_recipe("finetune", "optim.epochs=1", f"seed={2**63 - 1}"), tmp_path / "run")


def test_an_unknown_kind_is_refused_with_its_path(pretrain: str):
    message = complaint(pretrain, "masking={kind: tubes, ratio: x}", "data.clip.kind=dens")
    clip, masking = message.splitlines()[1:]
    assert clip.startswith("  data.clip.kind must be one of dense, segment, videomae")
    assert "did you mean 'dense'?" in clip
    assert masking.startswith(
        "  masking.kind must be one of tube, random, frame, block, running_cell, running, dual"
    )
    assert "did you mean 'tube'?" in masking


def test_a_kind_without_its_key_is_refused_with_how_to_write_it(pretrain: str):
    for given, near in (("running_cell", "running_cell"), ("tub", "tube"), ("Dual", "dual")):
        lines = complaint(pretrain, f"masking={given}").splitlines()[1:]
        assert len(lines) == 1
        assert lines[0].startswith("  masking: ")
        assert f"'masking={{kind: {near}}}'" in lines[0]


def test_settings_of_the_previous_kind_are_refused_with_how_to_replace_them(finetune: str):
    changed = ("head={kind: bridging, dim: 8, depth: 1, dropout: 0}", "head.kind=linear", "head.x=1")
    assert complaint(finetune, *changed).splitlines()[1:] == [
        "  head.x is not a setting",
        "  head.dim, head.depth are not settings of kind linear, but of bridging: 'head={kind: linear}' or "
        "'head={kind: bridging}' replaces the whole of head",
    ]
    assert finetuning(finetune, *changed, "head={kind: linear}").head == LinearHeadConfig()


def test_a_classifier_takes_every_masking_except_the_dual_one(finetune: str):
    for kind in ("running_cell", "running", "random", "tube", "frame", "block"):
        recipe = finetuning(finetune, f"masking={{kind: {kind}, ratio: 0.5}}", "masking_start_ratio=0.75")
        assert recipe.masking is not None
        assert recipe.masking.kind == kind
    assert "masking.kind must be one of" in complaint(finetune, "masking={kind: dual}")


def test_a_start_ratio_needs_a_masking_and_a_ratio(finetune: str):
    for override, problem in (
        ("masking=null", "needs a masking"), ("masking_start_ratio=1", "in [0, 1), found 1"),
    ):  # fmt: skip
        message = complaint(finetune, "reconstruction=null", "masking_start_ratio=0.5", override)
        assert "masking_start_ratio" in message
        assert problem in message


def test_a_setting_by_another_name_or_in_another_group_is_found(finetune: str):
    for given, meant in (
        ("lr=0.1", "'optim.base_lr'"), ("optim.lr=0.1", "'optim.base_lr'"), ("epochs=3", "'optim.epochs'"),
        ("num_workers=2", "'data.workers'"),
        ("optim.epoch=3", "'optim.epochs'"), ("stride=2", "'data.clip.stride'"),
    ):  # fmt: skip
        line = complaint(finetune, given).splitlines()[1]
        assert f"did you mean {meant}" in line, given
    [line] = complaint(finetune, "data.clip={kind: segment}", "data.clip.stride=2").splitlines()[1:]
    assert "but of dense, videomae" in line


def test_a_mistake_in_settings_of_any_kind_is_one_line(pretrain: str):
    message = complaint(pretrain, "data.clip={frames: many}", "masking=tube")
    assert [line.split(", found")[0] for line in message.splitlines()[1:]] == [
        "  data.clip.frames: input should be a valid integer, unable to parse string as an integer",
        "  masking: expected settings as `key: value`",
    ]


def test_all_mistakes_are_named_at_once(pretrain: str):
    message = complaint(pretrain, "optim.epochs=many", "seed=few")
    assert "optim.epochs" in message
    assert "seed" in message


def test_reconstruction_without_masking_is_refused(finetune: str):
    assert "reconstruction needs a masking" in complaint(finetune, "masking=null")


def test_a_file_that_is_not_a_recipe_is_refused(tmp_path: Path):
    path = tmp_path / "wrong.yaml"
    for text, found in (
        ("- a\n- b\n", "found list"),
        ("", "found NoneType"),
        ("a: [1\n", "is not valid YAML"),
        ("seed: 1\n", "task must be one of pretrain, finetune, found None"),
        ("task: pretrian\n", "task must be one of pretrain, finetune, found 'pretrian'"),
        ("task: [pretrain]\n", "task must be one of pretrain, finetune, found ['pretrain']"),
        ("seed: 1\ntask: x\nseed: 2\n", ":3 is not valid YAML: 'seed' is given twice, in lines 1 and 3"),
        ("data:\n  root: a\n  root: a\n", "'root' is given twice, in lines 2 and 3"),
        ("data: {root: a, root: b}\n", "'root' is given twice, in line 1"),
        ("? [a]\n: 1\n", "cannot be the name of a setting"),
        ("a: 1\n---\nb: 1\n", ":2 is not valid YAML"),
        ("[" * 1000, "nested too deeply"),
        ("- " * 1000, "nested too deeply"),
        ("seed: &a [*a]", "nested too deeply"),
        ("seed: &a {b: *a}", "nested too deeply"),
        (alias_bomb(), "values, aliases included, are too many"),
        (f"seed: {'x' * 10**6}", "characters are too many"),
        ("task: pretrain\nseed: !!python/object/apply:os.abort []", ":2 is not valid YAML"),
        ("seed: !env SEED", "the tag !env is unknown"),
        ("a\0b", "is not valid YAML"),
    ):
        path.write_text(text)
        message = complaint(str(path))
        assert message.startswith(str(path))
        assert found in message, text


def alias_bomb() -> str:
    """Ten lines of YAML with 9**10 values."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in pairwise("abcdefghij")]
    return "\n".join(lines)


def test_anchors_are_understood(pretrain: str, tmp_path: Path):
    path = tmp_path / "anchors.yaml"
    path.write_text(PRETRAIN + "model: {encoder: {mean: &half [0.5, 0.5, 0.5], std: *half}}\n")
    encoder = pretraining(str(path)).model.encoder
    assert encoder.mean == encoder.std == (0.5, 0.5, 0.5)


def test_a_folder_or_a_binary_file_is_not_a_recipe(tmp_path: Path):
    path = tmp_path / "wrong.yaml"
    path.mkdir()
    assert f"there is no recipe file at {path}: it is a folder" in complaint(str(path))
    path.rmdir()
    path.write_bytes(bytes(range(256)))
    assert f"{path} must be UTF-8 text" in complaint(str(path))


def test_a_recipe_in_another_encoding_is_refused(tmp_path: Path):
    path = tmp_path / "wrong.yaml"
    path.write_bytes("# für uns\n".encode("latin-1") + PRETRAIN.encode())
    assert f"{path} must be UTF-8 text" in complaint(str(path))


def test_settings_of_a_test_out_of_range_are_refused():
    with pytest.raises(UserError, match="data: workers must be between 0 and 4,096, found -1"):
        evaluate_recipe("data.root=/data", "data.workers=-1")


def test_a_missing_file_is_named(tmp_path: Path):
    assert str(tmp_path / "gone.yaml") in complaint(str(tmp_path / "gone.yaml"))


def test_a_misspelt_recipe_is_refused_with_the_right_one():
    known = recipe_names()[0]
    assert f"did you mean '{known}'?" in complaint(known[:-1])


# ------------------------------------------------------------------------------------ writing, comparing


@pytest.mark.parametrize("text", [PRETRAIN, FINETUNE], ids=["pretrain", "finetune"])
def test_a_recipe_survives_writing_and_reading(tmp_path: Path, text: str):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    recipe = load_recipe(str(path), "optim.base_lr=1e-7")
    again = tmp_path / "b.yaml"
    again.write_text(to_yaml(recipe))
    assert load_recipe(str(again)) == recipe


def test_plain_settings_parse_back(finetune: str):
    recipe: Recipe = load_recipe(finetune)
    assert parse(type(recipe), to_plain(recipe), "again") == recipe


def test_differences_are_named_with_both_values(pretrain: str):
    old = to_plain(load_recipe(pretrain))
    new = to_plain(load_recipe(pretrain, "optim.epochs=9", "masking={kind: random, ratio: 0.9}"))
    assert difference(old, new) == ["optim.epochs: 2 -> 9", "masking.kind: tube -> random"]
    assert difference(old, old) == []
