"""The model card of a folder, read by huggingface_hub without the network."""

import json
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard as HubCard

from tests.models.conftest import TINY, TINY_DECODER
from tubelet.checkpoints.catalogue import published_checkpoint
from tubelet.checkpoints.load import load_model, load_published
from tubelet.checkpoints.save import save_model
from tubelet.clips import DenseClip, Views
from tubelet.masking import RunningCellMasking
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.resize import resize_model


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a model card needs no network")

    monkeypatch.setattr(socket, "create_connection", refuse)


def classifier(**card: Any) -> VideoClassifier:
    encoder = replace(TINY, final_norm=False)
    model = VideoClassifier(ClassifierConfig(encoder=encoder, classes=3))
    model.card = ModelCard(classes=("a", "b: c", "d | `e` <b>"), **card)
    return model


def read(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the metadata and the text as the hub's library reads them."""
    card = HubCard.load(folder / "README.md")
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("---\n")
    return card.data.to_dict(), card.text


def test_a_classifiers_card_says_what_it_is_and_how_to_load_it(tmp_path: Path) -> None:
    model = classifier(clip=DenseClip(4, stride=3), views=Views(clips=5, crops=3), license="Apache-2.0")
    save_model(model, tmp_path / "model")
    data, text = read(tmp_path / "model")
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == (
        "apache-2.0", "tubelet", "video-classification",
    )  # fmt: skip
    assert {"tubelet", "video"} <= set(data["tags"])
    assert "model-index" not in data
    assert "eval_results" not in data
    for part in (
        "3 classes", "    1 b: c\n", "    2 d | `e` <b>\n", "stride 3", "5 x 3 views", "16 x 16 pixels",
        "Apache-2.0", "No results are recorded",
    ):  # fmt: skip
        assert part in text, part
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    loading = snippet.replace("FOLDER", str(tmp_path / "model")).partition("print(")[0]
    scope: dict[str, Any] = {}
    exec(loading, scope)
    assert isinstance(scope["model"], VideoClassifier)


def test_other_models_are_not_video_classifiers(tmp_path: Path) -> None:
    autoencoder = MaskedAutoencoder(AutoencoderConfig(encoder=TINY, decoder=TINY_DECODER))
    encoder = VideoClassifier(ClassifierConfig(encoder=replace(TINY, final_norm=False), classes=0))
    for model, title in ((autoencoder, "# Masked video autoencoder"), (encoder, "# Video encoder")):
        save_model(model, tmp_path / "model")
        data, text = read(tmp_path / "model")
        assert "pipeline_tag" not in data
        assert data["license"] == "unknown"
        assert title in text
        assert "## Classes" not in text
    masked = VideoClassifier(ClassifierConfig(encoder=TINY, classes=3, masking=RunningCellMasking(ratio=0.5)))
    save_model(masked, tmp_path / "mar")
    data, text = read(tmp_path / "mar")
    assert "masked-action-recognition" in data["tags"]
    assert "50% of a clip's tokens" in text


def test_licenses_that_the_hub_does_not_list_are_named(tmp_path: Path) -> None:
    for given, expected in (
        ("CC-BY-NC-4.0", {"license": "cc-by-nc-4.0"}),
        ("not stated", {"license": "unknown"}),
        ("Our own terms: 2", {"license": "other", "license_name": "Our own terms: 2"}),
    ):
        save_model(classifier(license=given), tmp_path / "model")
        data, text = read(tmp_path / "model")
        assert {key: data[key] for key in data if key.startswith("license")} == expected
        assert given in text


def test_published_numbers_are_in_the_card_but_not_in_that_of_a_resized_model(tmp_path: Path) -> None:
    row = published_checkpoint("videomae_base_k400_finetuned")
    save_model(classifier(), tmp_path / "x.pth", "videomae")
    model = load_published(row, tmp_path / "x.pth", {"heads": 3})
    save_model(model, tmp_path / "model")
    card = HubCard.load(tmp_path / "model/README.md")
    assert card.data.model_name == row.name
    found = {
        (each.dataset_name, each.metric_name): each.metric_value for each in card.data.eval_results or []
    }
    assert found == {("K400", "top-1 accuracy"): row.top1, ("K400", "top-5 accuracy"): row.top5}
    assert f"| K400 |  | top-1 accuracy | {row.top1:.2f}% | by its authors" in card.text
    again = load_model(tmp_path / "model")
    save_model(resize_model(again, frames=8), tmp_path / "resized")
    data, text = read(tmp_path / "resized")
    assert "model-index" not in data
    assert "No results are recorded" in text


def test_a_trained_models_card_has_the_numbers_of_its_validation(trained: Path) -> None:
    for folder in (trained / "finetune", trained / "finetune/best"):
        card = HubCard.load(folder / "README.md")
        results = {each.metric_name: each for each in card.data.eval_results or []}
        top1 = results["top-1 accuracy"]
        assert (top1.dataset_split, top1.metric_type) == ("val", "accuracy")
        assert "fine-tuned on `motion" in card.text
        assert str(trained) not in card.text  # whose disk it was is nobody's business
    measured = json.loads((trained / "finetune/best/metrics.json").read_text())
    assert top1.metric_value == pytest.approx(100 * measured["top1"], abs=0.01)
    last = [json.loads(line) for line in (trained / "finetune/log.jsonl").read_text().splitlines()][-1]
    card = HubCard.load(trained / "finetune/README.md")
    values = {each.metric_name: each.metric_value for each in card.data.eval_results or []}
    assert values["top-1 accuracy"] == pytest.approx(100 * last["val/top1"], abs=0.01)
    assert "eval_results" not in HubCard.load(trained / "pretrain/README.md").data.to_dict()


@pytest.mark.slow
def test_convert_to_hugging_face_writes_a_card_with_transformers_way_of_loading(
    tubelet: Callable[..., tuple[int, str, str]], trained: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    code, _, err = tubelet("convert", trained / "finetune", tmp_path / "hub", "--to", "huggingface")
    assert code == 0, err
    data, text = read(tmp_path / "hub")
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "video-classification")
    loading = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0].replace("FOLDER", str(tmp_path / "hub"))
    scope: dict[str, Any] = {}
    exec(loading, scope)
    assert isinstance(scope["model"], transformers.VideoMAEForVideoClassification)
    tubelet("convert", trained / "pretrain", tmp_path / "pre", "--to", "huggingface")
    data, text = read(tmp_path / "pre")
    assert "VideoMAEForPreTraining" in text
    assert "pipeline_tag" not in data
    assert not list(tmp_path.glob(".*"))


def test_a_card_is_written_for_any_provenance(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained / "pretrain", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for results in ("x", [3], [{"metrics": {"top1": "high"}}], [{"metrics": None}], {"top1": 1}):
        config["card"]["provenance"] = {"results": results, "recipe": ["x"], "name": 3}
        (folder / "config.json").write_text(json.dumps(config))
        save_model(load_model(folder), tmp_path / "again")
        assert "No results are recorded" in read(tmp_path / "again")[1]
