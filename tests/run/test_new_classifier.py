"""A new classifier: what it takes from the model that it starts from, and what of it is trained."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.conftest import TINY, TINY_DECODER, randomize
from tubelet.checkpoints.model_folder import Model
from tubelet.errors import UserError
from tubelet.masking import RunningCellMasking
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.heads import AttentiveHeadConfig, BridgingHeadConfig, LinearHeadConfig, MlpHeadConfig
from tubelet.models.layers import DropPath
from tubelet.recipe.schema import FinetuneDataConfig, FinetuneRecipe, ReconstructionConfig
from tubelet.run.finetuning import make_task
from tubelet.run.new_classifier import copy_head, freeze, make_classifier
from tubelet.train.optim import OptimConfig, make_optimizer, parameter_groups

OPTIM = OptimConfig(base_lr=1.0, batch_size=256)
NAMES = ("abseiling", "air drumming", "zumba", "Riding_a bike")


def recipe(**settings: Any) -> FinetuneRecipe:
    return FinetuneRecipe(data=FinetuneDataConfig(root=Path("x")), optim=OPTIM, init="x", **settings)


def fine_tuned(names: tuple[str, ...] = NAMES) -> VideoClassifier:
    model = VideoClassifier(ClassifierConfig(encoder=replace(TINY, final_norm=False), classes=4))
    randomize(model)
    model.card = ModelCard(classes=names)
    return model


def pretrained() -> MaskedAutoencoder:
    model = MaskedAutoencoder(AutoencoderConfig(encoder=TINY, decoder=TINY_DECODER))
    randomize(model)
    return model


def kept(start: Model, names: Sequence[str], **settings: Any) -> VideoClassifier:
    asked = recipe(keep_head=True, **settings)
    model = make_classifier(asked, start, len(names))
    copy_head(asked, start, model, names)
    return model


def refusal(start: Model, names: Sequence[str], **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        kept(start, names, **settings)
    return str(error.value)


def test_a_kept_head_has_the_rows_of_its_classes_and_its_norm():
    start = fine_tuned()
    model = kept(start, ("zumba", "riding a bike", "abseiling"))
    for name in ("weight", "bias"):
        rows = start.get_parameter(f"head.classify.{name}")[[2, 3, 0]]
        assert torch.equal(model.get_parameter(f"head.classify.{name}"), rows)
        assert torch.equal(model.get_parameter(f"head.norm.{name}"), start.get_parameter(f"head.norm.{name}"))
    video = torch.randint(256, (2, 4, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(model.eval()(video), start.eval()(video)[:, [2, 3, 0]])


def test_without_names_the_classes_are_kept_in_order_if_they_are_as_many():
    start = fine_tuned(())
    model = kept(start, ("a", "b", "c", "d"))
    assert torch.equal(
        model.get_parameter("head.classify.weight"), start.get_parameter("head.classify.weight")
    )
    assert "init_classes" in refusal(start, ("a", "b", "c"))


def test_names_of_the_classes_may_come_from_a_file(tmp_path: Path):
    path = tmp_path / "names.txt"
    path.write_text("a\nb\nc\nd\n")
    start = fine_tuned(())
    assert torch.equal(
        kept(start, ("c", "a"), init_classes=path).get_parameter("head.classify.bias"),
        start.get_parameter("head.classify.bias")[[2, 0]],
    )
    path.write_text("a\nb\nc\n")
    assert "expected the names of init's 4 classes, found 3" in refusal(start, ("a",), init_classes=path)


def test_missing_classes_are_named():
    message = refusal(fine_tuned(), ("zumba", "x1", "x2", "x3", "x4"))
    assert "4 classes of the data set, such as 'x1', 'x2', 'x3'; its first are abseiling" in message


def test_a_head_that_is_not_there_or_is_another_is_refused():
    assert "a fine-tuned model" in refusal(pretrained(), NAMES)
    start = VideoClassifier(
        ClassifierConfig(encoder=TINY, classes=4, head=BridgingHeadConfig(dim=16, heads=2))
    )
    start.card = ModelCard(classes=NAMES)
    assert "dim: 16 -> 32" in refusal(start, NAMES, head=BridgingHeadConfig(dim=32, heads=2))
    assert "heads: 2 -> 4" in refusal(start, NAMES, head=BridgingHeadConfig(dim=16, heads=4))  # equal shapes
    model = kept(start, NAMES[:2], head=BridgingHeadConfig(dim=16, heads=2, dropout=0.5))
    assert torch.equal(
        model.get_parameter("head.classify.weight"), start.get_parameter("head.classify.weight")[:2]
    )


def test_a_new_head_may_keep_the_norm_of_a_fine_tuned_one():
    start = fine_tuned()
    model = make_classifier(recipe(head=LinearHeadConfig(keep_norm=True)), start, 9)
    assert torch.equal(model.get_parameter("head.norm.weight"), start.get_parameter("head.norm.weight"))
    assert not torch.equal(
        make_classifier(recipe(), start, 9).get_parameter("head.norm.weight"),
        start.get_parameter("head.norm.weight"),
    )


def test_heads_of_normalized_tokens_take_the_encoders_norm():
    start = pretrained()
    for head in (MlpHeadConfig(), AttentiveHeadConfig(heads=2), LinearHeadConfig(normalize="tokens")):
        model = make_classifier(recipe(head=head), start, 4)
        assert torch.equal(
            model.get_parameter("encoder.norm.weight"), start.get_parameter("encoder.norm.weight")
        )
        with pytest.raises(UserError, match="ends in a LayerNorm"):
            make_classifier(recipe(head=head), fine_tuned(), 4)


def test_what_is_frozen_is_not_trained_and_is_not_dropped():
    parts: list[tuple[str | int, set[str]]] = [
        ("encoder", {"head"}),
        (0, {"block0", "block1", "head"}),
        (1, {"block1", "head"}),
    ]
    for part, expected in parts:
        asked = recipe(drop_path=0.5, freeze=part)
        model = make_classifier(asked, pretrained(), 4)
        freeze(model, part)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        found = {f"block{name.split('.')[3]}" if "blocks" in name else name.split(".")[0] for name in trained}
        assert found == expected, part
        rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
        assert rates == {"encoder": [0, 0], 0: [0, 0.5], 1: [0, 0.5]}[part]
        optimizer = make_optimizer(make_task(asked, model), OPTIM)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(trained)
    with pytest.raises(UserError, match=r"freeze=3.*only 2 blocks"):
        freeze(model, 3)


def test_settings_that_need_an_init_are_refused_without_it():
    for settings in ({"keep_head": True}, {"freeze": "encoder"}, {"init_classes": Path("x")}):
        with pytest.raises(UserError, match=next(iter(settings))):
            replace(recipe(), init=None, encoder=TINY, **settings)
    for wrong, problem in ((-1, "at least 0"), ("decoder", "encoder or a number of blocks")):
        with pytest.raises(UserError, match=f"freeze must be {problem}"):
            recipe(freeze=wrong)


def test_tokens_of_the_head_have_the_rate_of_the_head():
    optim = replace(OPTIM, layer_decay=0.5, layer_decay_scope="matrices")
    for head in (BridgingHeadConfig(dim=16, heads=2, mask_tokens=True), AttentiveHeadConfig(heads=2)):
        asked = recipe(
            head=head, reconstruction=ReconstructionConfig(), masking=RunningCellMasking(ratio=0.5)
        )
        task = make_task(asked, make_classifier(asked, pretrained(), 4))
        scales = {
            id(p): group["lr_scale"] for group in parameter_groups(task, optim) for p in group["params"]
        }
        found = {name: scales[id(task.get_parameter(name))] for name in task.learned_tokens()}
        decoders, of_head = found.pop("model.decoder.mask_token"), set(found.values())
        assert (decoders, of_head) == (0.5 ** (task.num_layers - 1), {1.0})
