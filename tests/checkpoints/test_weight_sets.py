"""Which weights of a file are taken: averages, prefixes of wrappers, and unexpected tensors beside them."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from tests.checkpoints.layouts import (
    HINTS,
    TINY,
    mar,
    mmaction2,
    random_weights,
    videomae_autoencoder,
    videomae_classifier,
    with_constants,
)
from tubelet.checkpoints.load import load_model
from tubelet.errors import UserError
from tubelet.run.inspection import inspect_checkpoint

Weights = dict[str, Tensor]
Command = Callable[..., tuple[int, str, str]]
COUNT = torch.tensor(3)


@pytest.fixture
def raw() -> Weights:
    return random_weights(videomae_classifier(TINY))


@pytest.fixture
def average(raw: Weights) -> Weights:
    return {name: value + 1 for name, value in raw.items()}


def bias(source: Path, **given: Any) -> Tensor:
    """A tensor that distinguishes the weights from their average."""
    return load_model(source, **HINTS, **given).state_dict()["head.classify.bias"]


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


def pairs(raw: Weights, average: Weights) -> dict[str, tuple[dict[str, Any], bool]]:
    """Files with both, and whether their own code base loads the average."""
    one = {"state_dict": prefixed("model.", raw) | prefixed("ema_model.", average)}
    wrapped = {"n_averaged": COUNT, **prefixed("module.", average)}
    return {
        "videomae": ({"model": raw, "model_ema": average, "epoch": 3}, False),
        "camel case": ({"model": raw, "modelEMA": average}, False),
        "capitals": ({"model": raw, "model_EMA": average}, False),
        "timm": ({"state_dict": raw, "state_dict_ema": average}, False),
        "lightning": (one, False),
        "torch": ({"model": raw, "swa_model": wrapped}, False),
        "torch, in one dictionary": (
            {"state_dict": prefixed("net.", raw) | prefixed("averages.", wrapped)},
            False,
        ),
        "mmengine": (
            {
                "meta": {"mmengine_version": "0.10"},
                "state_dict": average,
                "ema_state_dict": prefixed("module.", raw),
            },
            True,
        ),
        "lightning's callback": (
            {"state_dict": prefixed("model.", average), "current_model_state": prefixed("model.", raw)},
            True,
        ),
    }


def test_the_average_is_chosen_by_name_and_a_line_says_what_was_taken(
    raw: Weights, average: Weights, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "x.pth"
    for name, (content, takes_average) in pairs(raw, average).items():
        torch.save(content, path)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="tubelet"):
            assert torch.equal(bias(path), (average if takes_average else raw)["head.bias"]), name
        assert "weights=ema" in caplog.text, name
        assert str(path) in caplog.text, name
        assert torch.equal(bias(path, weights="ema"), average["head.bias"]), name


def test_sets_are_chosen_by_their_own_names(raw: Weights, average: Weights, tmp_path: Path):
    torch.save({"model": raw, "model_ema": average}, tmp_path / "x.pth")
    assert torch.equal(bias(tmp_path / "x.pth", weights="model"), raw["head.bias"])
    assert torch.equal(bias(tmp_path / "x.pth", weights="model_ema"), average["head.bias"])
    torch.save({"state_dict": prefixed("student.", raw) | prefixed("teacher.", average)}, tmp_path / "x.pth")
    assert torch.equal(bias(tmp_path / "x.pth", weights="teacher"), average["head.bias"])
    with pytest.raises(UserError, match=r"x\.pth has more than one .*state_dict\.student.*--weights"):
        bias(tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth: expected weights=ema .*state_dict\.teacher"):
        bias(tmp_path / "x.pth", weights="ema")


def test_a_file_with_one_set_needs_no_choice(
    raw: Weights, tmp_path: Path, trained: Path, caplog: pytest.LogCaptureFixture
):
    torch.save({"model_ema": raw}, tmp_path / "average.pth")
    torch.save(raw, tmp_path / "raw.pth")
    with caplog.at_level(logging.WARNING, logger="tubelet"):
        bias(tmp_path / "average.pth")
        bias(tmp_path / "average.pth", weights="ema")
    assert not caplog.messages
    with pytest.raises(UserError, match=r"raw\.pth: expected weights=ema"):
        bias(tmp_path / "raw.pth", weights="ema")
    with pytest.raises(UserError, match="records weights: leave out weights"):
        load_model(trained / "finetune", weights="ema")


def test_the_command_chooses_and_reports_the_weights(
    raw: Weights, average: Weights, tmp_path: Path, tubelet: Command
):
    torch.save({"model": raw, "model_ema": average}, tmp_path / "x.pth")
    hints = ("--heads", "3", "--image-size", "12", "--frames", "4")
    code, out, _ = tubelet("inspect", tmp_path / "x.pth", *hints, "--weights", "ema")
    assert code == 0
    assert "model_ema" in out
    assert tubelet("convert", tmp_path / "x.pth", tmp_path / "y", *hints, "--weights", "ema")[0] == 0
    assert torch.equal(load_model(tmp_path / "y").state_dict()["head.classify.bias"], average["head.bias"])
    assert dict(inspect_checkpoint(tmp_path / "y").lines)["weights"].startswith("model_ema")


WRAPPED: dict[str, Callable[[Weights], dict[str, Any]]] = {
    "lightning, beside a loss and metrics": lambda w: {
        "state_dict": prefixed("model.", w)
        | {"criterion.weight": torch.ones(5), "train_acc.tp": torch.zeros(5, dtype=torch.int64)}
    },
    "net": lambda w: {"state_dict": prefixed("net.", w)},
    "a module of any name": lambda w: prefixed("trainer.video_model.", w),
    "an averaged model": lambda w: {"n_averaged": COUNT, **prefixed("module.", w)},
    "fsdp": lambda w: {
        name.replace("blocks.1.", "blocks.1._fsdp_wrapped_module."): value
        for name, value in prefixed("_fsdp_wrapped_module.", w).items()
    },
    "checkpointed blocks": lambda w: {
        name.replace("blocks.1.", "blocks.1._checkpoint_wrapped_module."): value for name, value in w.items()
    },
    "fsdp of checkpointed and compiled blocks": lambda w: {
        name.replace("blocks.0.", "blocks.0._fsdp_wrapped_module._checkpoint_wrapped_module._orig_mod."): x
        for name, x in w.items()
    },
    "fabric": lambda w: {"model": prefixed("_forward_module.module.", w)},
    "numbers among the weights": lambda w: {**w, "epoch": 3, "_extra_state": None},
    "optimizer by name": lambda w: {"model": w, "optimizer": {"exp_avg": dict(w)}},
}  # fmt: skip


def test_wrappers_are_removed(raw: Weights, tmp_path: Path):
    for name, wrap in WRAPPED.items():
        torch.save(wrap(raw), tmp_path / "x.pth")
        assert torch.equal(bias(tmp_path / "x.pth"), raw["head.bias"]), name


def test_what_torch_itself_averages_is_read(tmp_path: Path):
    model = torch.nn.Module()
    for name, value in random_weights(videomae_classifier(TINY)).items():
        *path, last = name.split(".")
        part = model
        for step in path:
            if not hasattr(part, step):
                part.add_module(step, torch.nn.Module())
            part = getattr(part, step)
        part.register_parameter(last, torch.nn.Parameter(value))
    torch.save(AveragedModel(model).state_dict(), tmp_path / "x.pth")
    assert torch.equal(bias(tmp_path / "x.pth", weights="ema"), model.get_parameter("head.bias"))


def test_unexpected_tensors_beside_a_model_are_named(
    raw: Weights, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    torch.save(WRAPPED["lightning, beside a loss and metrics"](raw), tmp_path / "x.pth")
    with caplog.at_level(logging.WARNING, logger="tubelet"):
        bias(tmp_path / "x.pth")
    assert "criterion.weight, train_acc.tp" in caplog.text
    for unexpected in (torch.ones(5), torch.ones(5, dtype=torch.int64)):
        torch.save(raw | {"criterion.weight": unexpected}, tmp_path / "x.pth")
        with pytest.raises(UserError, match=r"criterion\.weight") as caught:
            bias(tmp_path / "x.pth")
        assert "known family" not in str(caught.value)


def test_a_part_of_a_model_is_not_taken_for_a_model(tmp_path: Path):
    """MAR's model without one of its tensors has a complete VideoMAE encoder under `backbone.`."""
    weights = with_constants(random_weights(mar(TINY)), TINY)
    del weights["encoder_to_decoder.weight"]
    torch.save({"model_state": weights}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"expected only backbone\.\*.*found also mean, std"):
        bias(tmp_path / "x.pth")


def test_all_families_are_found_under_a_prefix(tmp_path: Path):
    for shapes in (videomae_autoencoder(TINY), mar(TINY), mmaction2(TINY)):
        weights = with_constants(random_weights(shapes), TINY)
        save_file(weights, tmp_path / "plain.safetensors")
        save_file(prefixed("model.", weights), tmp_path / "wrapped.safetensors")
        plain, wrapped = (
            load_model(tmp_path / f"{name}.safetensors", **HINTS) for name in ("plain", "wrapped")
        )
        assert plain.config == wrapped.config


def test_an_adapter_is_named(raw: Weights, tmp_path: Path):
    lora = {f"base_model.model.{name}.lora_A.weight": value for name, value in raw.items()}
    save_file(lora, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"adapter_model\.safetensors is a PEFT adapter.*merge_and_unload"):
        load_model(tmp_path / "adapter_model.safetensors")
