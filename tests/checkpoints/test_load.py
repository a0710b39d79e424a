"""Models on disk, and published models by their names."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints.layouts import (
    HINTS,
    TINY,
    huggingface_classifier,
    huggingface_config,
    mae_st_released,
    mmaction2,
    random_weights,
    videomae_autoencoder,
    videomae_classifier,
    with_constants,
)
from tubelet.checkpoints import load
from tubelet.checkpoints.catalogue import catalogue, published_checkpoint
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.save import save_model
from tubelet.clips import DenseClip, SegmentClip, Views
from tubelet.errors import UserError
from tubelet.models.card import ModelCard
from tubelet.models.classifier import VideoClassifier

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
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


def test_the_card_is_stored_with_the_weights(trained: Path, tmp_path: Path) -> None:
    model = load_model(trained / "finetune")
    model.card = ModelCard(
        classes=tuple("abcdefghijkl"),
        multi_label=True,
        clip=SegmentClip(frames=4),
        views=Views(clips=3, crops=2),
        license="CC-BY-NC-4.0",
        provenance={"source": "a paper"},
    )
    save_model(model, tmp_path)
    assert load_model(tmp_path).card == model.card


def test_a_card_without_multi_label_is_not_multi_label(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained / "finetune" / "best", tmp_path / "older")
    config = json.loads((folder / "config.json").read_text())
    assert config["card"].pop("multi_label") is False
    (folder / "config.json").write_text(json.dumps(config))
    assert load_model(folder).card == load_model(trained / "finetune" / "best").card


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file or folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"expected a folder with config.json and model.safetensors"):
        load_model(tmp_path)


def test_an_unfinished_run_says_how_to_resume(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("task: pretrain\n")
    with pytest.raises(UserError, match=f"{tmp_path} .* resume"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"{", b"[]", b"\xff\xfe",
        b'{"tubelet": 99, "kind": "classifier"}', b'{"tubelet": 1, "kind": "x"}',
        b'{"tubelet": 1, "kind": "classifier"}', b'{"tubelet": 1, "kind": "classifier", "model": 3}',
        b'{"tubelet": 1, "kind": "classifier", "model": {"encoder": {"heads": 7}, "classes": 3}}',
        b'{"tubelet": 1, "kind": "classifier", "model": {"encoder": {"image_size": 225}, "classes": 3}}',
        b'{"tubelet": 1, "kind": "classifier", "model": {"encoder": {"dims": 7}, "classes": 3}}',
    ],
)  # fmt: skip
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


def test_missing_weights_are_reported(trained: Path, tmp_path: Path) -> None:
    save_model(load_model(trained / "finetune"), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["heads", "decoder_heads", "bridge_heads", "norm_eps"])
def test_a_folder_that_records_a_setting_refuses_its_hint(trained: Path, name: str) -> None:
    given: dict[str, Any] = {name: 1}
    with pytest.raises(UserError, match=f"pretrain records {name}"):
        load_model(trained / "pretrain", **given)


@pytest.mark.slow
def test_the_commands_take_an_epsilon(tubelet: Command, tmp_path: Path) -> None:
    source, out = tmp_path / "x.pth", tmp_path / "out"
    torch.save({"module": random_weights(videomae_classifier(TINY))}, source)
    hints = ("--heads", 3, "--image-size", 12, "--frames", 4, "--norm-eps", 1e-5)
    assert tubelet("inspect", source, *hints)[0] == 0
    assert tubelet("convert", source, out, *hints)[0] == 0
    assert load_model(out).config.encoder.norm_eps == 1e-5
    for words in (("inspect", out), ("convert", out, tmp_path / "again")):
        code, _, err = tubelet(*words, "--norm-eps", 1e-5)
        assert (code, err.count("\n")) == (2, 1)
        assert f"{out} records norm_eps" in err


# Names of the zoo and of the hub.


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("videomae_base_k40", "videomae_base_k400"),
        ("mae_st_larg_k400", "mae_st_large_k400"),
        ("videomae-base-ssv2", "videomae_base_ssv2"),
    ],
)
def test_a_misspelled_name_of_the_zoo_gets_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"no model at {name}: .* did you mean '{nearest}'"):
        load_model(name)


@pytest.mark.parametrize("source", ["./runs/x", "/runs/x", "a/b/c", "runs/x.pth", "x.safetensors", "~/x"])
def test_a_path_is_not_searched_on_the_hub(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(load, "fetch_hub", lambda *_: pytest.fail("searched the hub"))
    with pytest.raises(UserError, match=f"no model at {source}: there is no such file or folder"):
        load_model(source)


@pytest.mark.parametrize("source", ["owner/name", "owner/name-1.5", "owner/name_k400.v2"])
def test_an_owner_and_a_name_are_searched_on_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    asked = []

    def fetch(repo: str) -> Path:
        asked.append(repo)
        raise UserError(f"the hub has no {repo}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load, "fetch_hub", fetch)
    with pytest.raises(UserError, match=f"there is no folder {source} here, and the hub has no {source}"):
        load_model(source)
    assert asked == [source]


def test_a_model_of_the_hub_is_read_from_its_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_file(random_weights(huggingface_classifier(TINY)), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(huggingface_config(TINY)))
    monkeypatch.setattr(load, "fetch_hub", lambda repo: tmp_path)
    model = load_model("owner/name")
    assert model.card.provenance["family"] == "huggingface"


def test_a_setting_out_of_range_is_refused_with_the_folder(tmp_path: Path) -> None:
    save_file(random_weights(huggingface_classifier(TINY)), tmp_path / "model.safetensors")
    config = huggingface_config(TINY) | {"num_attention_heads": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"{tmp_path}/config.json: expected num_attention_heads .* found 0"):
        load_model(tmp_path)


def published(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Pretend that a published file was downloaded to `path`."""
    row = published_checkpoint(name)
    assert row.url

    def fetch(asked: Any, **_: Any) -> Path:
        assert asked is row
        return path

    monkeypatch.setattr(load, "fetch_published", fetch)


def test_a_published_name_adds_its_license_and_hints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "mae_st_large_k400"
    assert published_checkpoint(name).hints == {"decoder_heads": 8}
    torch.save({"model_state": random_weights(mae_st_released(TINY))}, tmp_path / "x.pth")
    published(monkeypatch, name, tmp_path / "x.pth")
    model = load_model(name, heads=3)
    assert model.config.decoder is not None
    assert (model.config.encoder.heads, model.config.decoder.heads) == (3, 8)
    assert model.card.license == published_checkpoint(name).license
    assert model.card.provenance["name"] == name
    assert model.card.provenance["family"] == "mae_st"
    model = load_model(name, heads=3, decoder_heads=4)  # The user's hints come first.
    assert model.config.decoder is not None
    assert model.config.decoder.heads == 4


def test_every_published_name_is_downloaded_or_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = tmp_path / "x"
    monkeypatch.setattr("tubelet.checkpoints.download.fetch", lambda *_, **__: missing)
    monkeypatch.setattr("tubelet.checkpoints.download.fetch_hub", lambda *_, **__: missing)
    for row in catalogue().values():
        with pytest.raises(UserError) as caught:
            load_model(row.name)
        expected = str(missing) if row.source else "by hand"
        assert expected in str(caught.value), row.name


def test_the_clip_that_is_assumed_for_174_classes_is_visible(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pth"
    torch.save({"module": random_weights(videomae_classifier(replace(TINY, classes=174)))}, path)
    card = load_model(path, **HINTS).card
    assert card.clip == SegmentClip(frames=4)
    assert "assumed" in card.provenance["clip"]
    assert f"{path} " in caplog.text
    assert "174 classes" in caplog.text
    caplog.clear()
    torch.save({"module": random_weights(videomae_classifier(TINY))}, path)
    assert load_model(path, **HINTS).card.clip == DenseClip(frames=4, stride=4)
    assert caplog.text == ""


# The command.


def test_convert_writes_any_layout(tubelet: Command, tmp_path: Path) -> None:
    source = tmp_path / "x.pth"
    torch.save({"module": random_weights(videomae_classifier(TINY))}, source)
    hints = ("--heads", 3, "--image-size", 12, "--frames", 4)
    expected = load_model(source, **HINTS).state_dict()
    for layout in ("tubelet", "huggingface", "videomae", "videomaev2", "mmaction2"):
        out = tmp_path / layout
        assert tubelet("convert", source, out, "--to", layout, *hints) == (0, f"{out}\n", "")
        again = load_model(out, **(HINTS if out.is_file() else {})).state_dict()
        assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert tubelet("convert", source, tmp_path / "plain", *hints)[0] == 0
    assert (tmp_path / "plain" / "config.json").is_file()


def test_what_a_layout_cannot_hold_of_the_card_is_named(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(trained / "finetune")
    save_model(model, tmp_path / "x.pth", "videomae")
    lost = ("does not store the class names", "clip={'kind': 'segment', 'frames': 4", "views={'clips': 2")
    for part in lost:
        assert part in caplog.text
    caplog.clear()
    save_model(model, tmp_path / "hf", "huggingface")
    assert "huggingface does not store clip={'kind': 'segment', 'frames': 4" in caplog.text
    assert load_model(tmp_path / "hf").card.classes == model.card.classes
    caplog.clear()
    save_model(model, tmp_path / "own")
    save_model(
        load_model(tmp_path / "x.pth", heads=2, image_size=32, frames=4), tmp_path / "y.pth", "videomae"
    )
    assert not caplog.records


def test_multi_label_models_are_refused_by_layouts_that_cannot_store_it(
    trained: Path, tmp_path: Path
) -> None:
    model = load_model(trained / "finetune")
    model.card = replace(model.card, multi_label=True)
    for layout in ("videomae", "videomaev2", "mmaction2"):
        with pytest.raises(UserError, match=f"the layout {layout} .*multi_label=True"):
            save_model(model, tmp_path / "x.pth", layout)
    assert not (tmp_path / "x.pth").exists()
    save_model(model, tmp_path / "hf", "huggingface")
    assert load_model(tmp_path / "hf").card.multi_label


def test_convert_resizes_models_that_record_their_size(tubelet: Command, tmp_path: Path) -> None:
    source = tmp_path / "x.pth"
    torch.save({"state_dict": with_constants(random_weights(mmaction2(TINY)), TINY)}, source)
    assert tubelet("convert", source, tmp_path / "a", "--heads", 3, "--image-size", 12)[0] == 0
    code, _, _ = tubelet("convert", tmp_path / "a", tmp_path / "b", "--image-size", 24, "--frames", 8)
    assert code == 0
    model = load_model(tmp_path / "b")
    assert isinstance(model, VideoClassifier)
    assert (model.config.encoder.image_size, model.config.encoder.frames) == (24, 8)
    assert model.config.encoder.position_grid == (2, 3, 3)
    code, _, err = tubelet("convert", tmp_path / "b", tmp_path / "c", "--to", "videomae")
    assert code == 2
    assert "encoder.position_grid=(2, 3, 3)" in err


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("mar", "the layout mar cannot hold a linear head"),
        ("mae_st", "the layout mae_st cannot hold a classifier without class token"),
        ("hugingface", "layout is one of tubelet, videomae, videomaev2, mae_st, mmaction2, mar, huggingface, "
         "found hugingface; did you mean 'huggingface'?"),
    ],
)  # fmt: skip
def test_convert_says_what_it_cannot_write(tubelet: Command, tmp_path: Path, to: str, message: str) -> None:
    source, out = tmp_path / "x.pth", tmp_path / "out"
    torch.save({"module": random_weights(videomae_classifier(TINY))}, source)
    hints = ("--heads", 3, "--image-size", 12, "--frames", 4)
    code, printed, err = tubelet("convert", source, out, "--to", to, *hints)
    assert (code, printed) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not out.exists()
    if "cannot hold" in message:  # the layouts that can are named
        assert err.strip().endswith(
            "Layouts that hold this model: tubelet, videomae, videomaev2, mmaction2, huggingface"
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"not a checkpoint at all", "not a checkpoint"),
        (b"PK\x03\x04 and no more", "damaged"),
        (b"\x80\x02}q\x00", "damaged"),
    ],
)
def test_an_unreadable_file_is_one_line_of_the_command(
    tubelet: Command, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    for words in (("inspect", path), ("convert", path, tmp_path / "out")):
        code, out, err = tubelet(*words)
        assert (code, out) == (2, "")
        assert message in err
        assert str(path) in err
        assert err.count("\n") == 1


def test_the_message_about_missing_heads_says_what_works(
    tubelet: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": random_weights(videomae_autoencoder(TINY))}, "x.pth")
    advice = "add --heads N, in Python load_model(..., heads=N)"
    for words in (("convert", "x.pth", "out"), ("visualize", "x.pth", "x.mp4")):
        code, _, err = tubelet(*words)
        assert code == 2
        assert advice in err
        assert err.count("\n") == 1
    hints = ("--heads", 3, "--decoder-heads", 2, "--image-size", 16, "--frames", 4)
    assert tubelet("convert", "x.pth", "OUT", *hints)[0] == 0
    assert load_model("OUT").config.encoder.heads == 3


def test_zoo_lists_all_names_and_describes_one(tubelet: Command) -> None:
    code, out, err = tubelet("zoo")
    assert (code, err) == (0, "")
    heading, *parts = out.split("\n\n")
    assert heading.split() == ["name", "data", "top-1", "download"]
    assert "tubelet zoo NAME" in parts.pop().replace("\n", " ").replace("`", "")
    listed = {
        line.split()[0]: (title.split()[0].lower().strip(":s,"), line)
        for title, *lines in map(str.splitlines, parts)
        for line in lines
    }
    assert listed.keys() == catalogue().keys()
    for name, row in catalogue().items():
        contains, line = listed[name]
        assert contains == row.contains
        assert f" {row.data} " in line
        assert line.endswith("by hand" if row.source is None else "yes")
        assert row.top1 is None or f"{row.top1:.1f} %" in line
    name = "mae_st_large_k400"
    code, out, _ = tubelet("zoo", name)
    assert code == 0
    assert name in out
    assert str(published_checkpoint(name).source) in out


def test_a_misspelled_name_of_the_zoo_is_one_line(tubelet: Command) -> None:
    for words in (("zoo", "mae_st_large_k40"), ("inspect", "mae_st_large_k40")):
        code, _, err = tubelet(*words)
        assert code == 2
        assert "did you mean 'mae_st_large_k400'?" in err


def test_hints_are_checked_by_name_and_range() -> None:
    with pytest.raises(TypeError, match="'head'"):
        load_model("x.pth", head=3)  # type: ignore[call-arg]
    for name, wrong in (("heads", 0), ("decoder_heads", 0), ("frames", -1), ("norm_eps", -1e-6)):
        with pytest.raises(UserError, match=f"{name} must be at least"):
            load_model("x.pth", **{name: wrong})  # type: ignore[arg-type]
