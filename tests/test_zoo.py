"""Models on disk."""

import importlib
import json
import pkgutil
from pathlib import Path

import pytest
import torch

import tubelet
from tubelet.errors import UserError
from tubelet.models.card import ModelCard
from tubelet.zoo import load_model, save_model


@pytest.mark.parametrize("name", ["pretrain", "finetune", "mar"])
def test_a_model_comes_back_bit_for_bit(trained: Path, tmp_path: Path, name: str) -> None:
    model = load_model(trained / name)
    save_model(model, tmp_path / "copy")
    again = load_model(tmp_path / "copy")
    assert type(again) is type(model)
    assert again.config == model.config
    assert again.card == model.card
    assert not again.training
    expected = model.state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())


def test_the_card_travels_with_the_weights(trained: Path, tmp_path: Path) -> None:
    model = load_model(trained / "finetune")
    model.card = ModelCard(classes=("a", "b"), license="CC-BY-NC-4.0", provenance={"source": "a paper"})
    save_model(model, tmp_path)
    assert load_model(tmp_path).card == model.card


def test_the_public_names_are_there_whatever_was_imported_before() -> None:
    for module in pkgutil.walk_packages(tubelet.__path__, "tubelet."):
        if module.name != "tubelet.__main__":
            importlib.import_module(module.name)
    for name in tubelet.__all__:
        assert getattr(tubelet, name) is not None
        assert name == "visualize" or callable(getattr(tubelet, name)), name  # no module of a like name
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        tubelet.load_modle  # noqa: B018


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"expected a folder with config.json and model.safetensors"):
        load_model(tmp_path)


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("task: pretrain\n")
    with pytest.raises(UserError, match="give its command again"):
        load_model(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"tubelet": 99, "kind": "classifier"}'])
def test_a_damaged_config_is_refused(trained: Path, tmp_path: Path, damage: bytes) -> None:
    save_model(load_model(trained / "finetune"), tmp_path)
    (tmp_path / "config.json").write_bytes(damage)
    with pytest.raises(UserError, match=r"config\.json"):
        load_model(tmp_path)


def test_truncated_weights_are_refused(trained: Path, tmp_path: Path) -> None:
    save_model(load_model(trained / "finetune"), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        load_model(tmp_path)


def test_weights_that_do_not_fit_are_named(trained: Path, tmp_path: Path) -> None:
    save_model(load_model(trained / "finetune"), tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["model"]["classes"] = 7
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"head\.classify\.bias: expected \(7,\), found \(12,\)"):
        load_model(tmp_path)
