"""Models on disk, and those that others have published by their names."""

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
    GIVEN,
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
from tubelet.checkpoints import load as zoo
from tubelet.checkpoints.catalogue import PUBLISHED, Web, find
from tubelet.checkpoints.load import load_model, save_model
from tubelet.errors import UserError
from tubelet.models.card import ModelCard
from tubelet.models.classifier import VideoClassifier

Command = Callable[..., tuple[int, str, str]]


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
    model.card = ModelCard(
        classes=("a", "b"), multi_label=True, license="CC-BY-NC-4.0", provenance={"source": "a paper"}
    )
    save_model(model, tmp_path)
    assert load_model(tmp_path).card == model.card


def test_a_config_that_does_not_say_whether_classes_come_together_is_of_one_class(
    trained: Path, tmp_path: Path
) -> None:
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


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("task: pretrain\n")
    with pytest.raises(UserError, match="give its command again"):
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


def test_missing_weights_are_told(trained: Path, tmp_path: Path) -> None:
    save_model(load_model(trained / "finetune"), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["heads", "decoder_heads", "bridge_heads", "norm_eps"])
def test_a_folder_of_ours_needs_to_be_told_no_heads_and_no_epsilon(trained: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"pretrain tells {name} itself: leave out {name}"):
        load_model(trained / "pretrain", **{name: 0})


def test_the_commands_take_an_epsilon(tubelet: Command, tmp_path: Path) -> None:
    source, out = tmp_path / "x.pth", tmp_path / "out"
    torch.save({"module": random_weights(videomae_classifier(TINY))}, source)
    told = ("--heads", 3, "--image-size", 12, "--frames", 4, "--norm-eps", 1e-5)
    assert tubelet("inspect", source, *told)[0] == 0
    assert tubelet("convert", source, out, *told)[0] == 0
    assert load_model(out).config.encoder.norm_eps == 1e-5
    for words in (("inspect", out), ("convert", out, tmp_path / "again")):
        code, _, err = tubelet(*words, "--norm-eps", 1e-5)
        assert (code, err) == (2, f"tubelet: {out} tells norm_eps itself: leave out norm_eps\n")


# Names of the zoo and of the hub.


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("videomae_base_k40", "videomae_base_k400"),
        ("mae_st_larg_k400", "mae_st_large_k400"),
        ("videomae-base-ssv2", "videomae_base_ssv2"),
    ],
)
def test_a_misspelt_name_of_the_zoo_gets_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"no model at {name}: .* did you mean '{nearest}'"):
        load_model(name)


@pytest.mark.parametrize("source", ["./runs/x", "/runs/x", "a/b/c", "runs/x.pth", "x.safetensors", "~/x"])
def test_a_path_is_not_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(zoo, "fetch_hub", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match=f"no model at {source}: there is no such file or folder"):
        load_model(source)


@pytest.mark.parametrize("source", ["owner/name", "owner/name-1.5", "owner/name_k400.v2"])
def test_an_owner_and_a_name_are_looked_for_on_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    asked = []

    def fetch(repo: str) -> Path:
        asked.append(repo)
        raise UserError(f"the hub knows no {repo}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "fetch_hub", fetch)
    with pytest.raises(UserError, match=f"there is no folder {source} here, and the hub knows no {source}"):
        load_model(source)
    assert asked == [source]


def test_a_model_of_the_hub_is_read_from_where_it_was_put(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save_file(random_weights(huggingface_classifier(TINY)), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(huggingface_config(TINY)))
    monkeypatch.setattr(zoo, "fetch_hub", lambda repo: tmp_path)
    model = load_model("owner/name")
    assert model.card.provenance["family"] == "huggingface"


def test_a_setting_that_cannot_be_is_refused_with_the_folder(tmp_path: Path) -> None:
    save_file(random_weights(huggingface_classifier(TINY)), tmp_path / "model.safetensors")
    config = huggingface_config(TINY) | {"num_attention_heads": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"{tmp_path}: heads must be at least 1, found 0"):
        load_model(tmp_path)


def published(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """As if it had been downloaded."""
    row = find(name)
    assert isinstance(row.source, Web)

    def fetch(asked: Any, **_: Any) -> Path:
        assert asked is row
        return path

    monkeypatch.setattr(zoo, "fetch_published", fetch)


def test_a_published_name_brings_its_license_and_what_its_file_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = "mae_st_large_k400"
    assert find(name).given == {"decoder_heads": 8}
    torch.save({"model_state": random_weights(mae_st_released(TINY))}, tmp_path / "x.pth")
    published(monkeypatch, name, tmp_path / "x.pth")
    model = load_model(name, heads=3)
    assert model.config.decoder is not None
    assert (model.config.encoder.heads, model.config.decoder.heads) == (3, 8)
    assert model.card.license == find(name).license
    assert model.card.provenance["name"] == name
    assert model.card.provenance["family"] == "mae_st"
    model = load_model(name, heads=3, decoder_heads=4)  # who says otherwise is believed
    assert model.config.decoder is not None
    assert model.config.decoder.heads == 4


def test_every_published_name_leads_somewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To a download, or to words on how to get it."""
    missing = tmp_path / "x"
    monkeypatch.setattr("tubelet.checkpoints.download.fetch", lambda *_, **__: missing)
    monkeypatch.setattr("tubelet.checkpoints.download.fetch_hub", lambda *_, **__: missing)
    for row in PUBLISHED:
        with pytest.raises(UserError) as caught:
            load_model(row.name)
        expected = str(missing) if row.source else "cannot be downloaded by its name"
        assert expected in str(caught.value), row.name


# The command.


def test_convert_writes_any_layout(tubelet: Command, tmp_path: Path) -> None:
    source = tmp_path / "x.pth"
    torch.save({"module": random_weights(videomae_classifier(TINY))}, source)
    told = ("--heads", 3, "--image-size", 12, "--frames", 4)
    expected = load_model(source, **GIVEN).state_dict()
    for layout in ("tubelet", "huggingface", "videomae", "videomaev2", "mmaction2"):
        out = tmp_path / layout
        assert tubelet("convert", source, out, "--to", layout, *told) == (0, f"{out}\n", "")
        again = load_model(out, **(GIVEN if out.is_file() else {})).state_dict()
        assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert tubelet("convert", source, tmp_path / "plain", *told)[0] == 0
    assert (tmp_path / "plain" / "config.json").is_file()


def test_what_a_layout_cannot_hold_of_the_card_is_named(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(trained / "finetune")
    save_model(model, tmp_path / "x.pth", "videomae")
    assert (
        "the layout videomae has no place for the names of the classes, "
        "clip={'kind': 'segment', 'frames': 4}, views={'clips': 2, 'crops': 1}"
    ) in caplog.text
    caplog.clear()
    save_model(model, tmp_path / "hf", "huggingface")
    assert "the layout huggingface has no place for clip={'kind': 'segment', 'frames': 4}, v" in caplog.text
    assert load_model(tmp_path / "hf").card.classes == model.card.classes
    caplog.clear()
    save_model(model, tmp_path / "own")
    save_model(
        load_model(tmp_path / "x.pth", heads=2, image_size=32, frames=4), tmp_path / "y.pth", "videomae"
    )
    assert not caplog.records


def test_several_classes_a_video_are_refused_where_a_layout_cannot_hold_them(
    trained: Path, tmp_path: Path
) -> None:
    model = load_model(trained / "finetune")
    model.card = replace(model.card, multi_label=True)
    for layout in ("videomae", "videomaev2", "mmaction2"):
        with pytest.raises(
            UserError, match=f"the layout {layout} cannot hold this model: .* several classes"
        ):
            save_model(model, tmp_path / "x.pth", layout)
    assert not (tmp_path / "x.pth").exists()
    save_model(model, tmp_path / "hf", "huggingface")
    assert load_model(tmp_path / "hf").card.multi_label


def test_convert_resizes_what_tells_its_size(tubelet: Command, tmp_path: Path) -> None:
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
    assert "no place for encoder.position_grid=(2, 3, 3)" in err


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("mar", "the layout mar cannot hold a linear head"),
        ("mae_st", "the layout mae_st cannot hold a classifier without class token"),
        ("hugingface", "layout is one of tubelet, videomae, videomaev2, mae_st, mmaction2, mar, huggingface, "
         "found hugingface; did you mean 'huggingface'?"),
    ],
)  # fmt: skip
def test_convert_names_what_it_cannot_write(tubelet: Command, tmp_path: Path, to: str, message: str) -> None:
    source, out = tmp_path / "x.pth", tmp_path / "out"
    torch.save({"module": random_weights(videomae_classifier(TINY))}, source)
    told = ("--heads", 3, "--image-size", 12, "--frames", 4)
    code, printed, err = tubelet("convert", source, out, "--to", to, *told)
    assert (code, printed) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"not a checkpoint at all", "is no checkpoint"),
        (b"PK\x03\x04 and no more", "damaged, cut short or no checkpoint"),
        (b"\x80\x02}q\x00", "damaged, cut short or no checkpoint"),
    ],
)
def test_what_cannot_be_read_is_one_line_of_the_command(
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


def test_the_message_of_heads_that_shapes_do_not_tell_can_be_obeyed(
    tubelet: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": random_weights(videomae_autoencoder(TINY))}, "x.pth")
    said = "say load_model(..., heads=N) in Python, or once `tubelet convert x.pth OUT --heads N`"
    for words in (("convert", "x.pth", "out"), ("visualize", "x.pth", "x.mp4")):
        code, _, err = tubelet(*words)
        assert code == 2
        assert said in err
        assert err.count("\n") == 1
    given = ("--heads", 3, "--decoder-heads", 2, "--image-size", 16, "--frames", 4)
    assert tubelet("convert", "x.pth", "OUT", *given)[0] == 0
    assert load_model("OUT").config.encoder.heads == 3


def test_zoo_lists_all_names_and_describes_one(tubelet: Command) -> None:
    code, out, err = tubelet("zoo")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == [row.name for row in PUBLISHED]
    for line, row in zip(lines, PUBLISHED, strict=True):
        assert row.contains in line
        assert line.endswith(row.license)
        assert row.top1 is None or f"{row.top1:.1f} %" in line
    name = "mae_st_large_k400"
    code, out, _ = tubelet("zoo", name)
    assert code == 0
    assert name in out
    assert str(find(name).source) in out


def test_a_misspelt_name_of_the_zoo_is_one_line(tubelet: Command) -> None:
    for words in (("zoo", "mae_st_large_k40"), ("inspect", "mae_st_large_k40")):
        code, _, err = tubelet(*words)
        assert code == 2
        assert "did you mean 'mae_st_large_k400'?" in err
