"""The README.md of a model folder: a model card as the Hugging Face hub expects it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import yaml
from torch import nn

from tubelet.clips import Views
from tubelet.errors import plural
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig

README = "README.md"
_METRICS = {"top1": "top-1 accuracy", "top5": "top-5 accuracy", "mAP": "mean average precision"}
_HUB_METRICS = {"top1": "accuracy", "top5": "accuracy", "mAP": "mean_average_precision"}
_HUB_LICENSES = frozenset(
    {"apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc-by-nc-sa-4.0"}
)
_TUBELET_LOADING = """```python
import tubelet

model = tubelet.load_model("FOLDER")
{use}
```
"""
_TRANSFORMERS_LOADING = """```python
from transformers import {architecture}, VideoMAEImageProcessor

model = {architecture}.from_pretrained("FOLDER")
processor = VideoMAEImageProcessor.from_pretrained("FOLDER")
```
"""
_USES = {
    "classifier": 'print(tubelet.predict(model, "video.mp4").top(5))',
    "encoder": 'vector = tubelet.embed(model, "video.mp4")',
    "autoencoder": 'vector = tubelet.embed(model, "video.mp4")  # or fine-tune it: init=FOLDER',
}
_ARCHITECTURES = {"autoencoder": "VideoMAEForPreTraining", "classifier": "VideoMAEForVideoClassification"}


def write_readme(
    folder: Path, model: nn.Module, card: ModelCard, layout: Literal["tubelet", "huggingface"]
) -> None:
    """Write the model card of a model into its folder.

    Args:
        folder: the model's folder.
        model: a `MaskedAutoencoder` or `VideoClassifier`.
        card: what is known of it; it may say more than that of the model.
        layout: the folder's layout, which decides how it is loaded.
    """
    config: Any = model.config
    front = yaml.safe_dump(_front_matter(config, card, layout), sort_keys=False, allow_unicode=True)
    text = "\n".join(_text(config, card, sum(p.numel() for p in model.parameters()), layout))
    content = f"---\n{front}---\n\n{text}"
    (folder / README).write_text(content, encoding="utf-8", errors="replace")


def _kind(config: AutoencoderConfig | ClassifierConfig) -> str:
    if isinstance(config, AutoencoderConfig):
        return "autoencoder"
    return "classifier" if config.classes else "encoder"


def _front_matter(
    config: AutoencoderConfig | ClassifierConfig, card: ModelCard, layout: str
) -> dict[str, Any]:
    kind, known = _kind(config), (card.license or "").lower()
    front: dict[str, Any] = {"license": known if known in _HUB_LICENSES else "unknown"}
    if card.license and known not in _HUB_LICENSES and known != "not stated":
        front |= {"license": "other", "license_name": card.license}
    front["library_name"] = "transformers" if layout == "huggingface" else "tubelet"
    if kind == "classifier":
        front["pipeline_tag"] = "video-classification"
    masked = isinstance(config, ClassifierConfig) and config.masking is not None
    tags = ["tubelet", "video", "masked-autoencoder", *(["masked-action-recognition"] if masked else [])]
    front["tags"] = tags
    if results := list(_results(card)):
        front["metrics"] = sorted({_HUB_METRICS[name] for result in results for name in result["metrics"]})
        front["model-index"] = [{"name": _title(config, card), "results": list(map(_hub_result, results))}]
    return front


def _hub_result(result: Mapping[str, Any]) -> dict[str, Any]:
    data, split = str(result["data"]), result.get("list")
    metrics = [
        {"type": _HUB_METRICS[name], "name": _METRICS[name], "value": round(100 * value, 2)}
        for name, value in result["metrics"].items()
    ]
    dataset = {"name": data, "type": data} | ({"split": split} if split else {})
    return {"task": {"type": "video-classification"}, "dataset": dataset, "metrics": metrics}


def _results(card: ModelCard) -> Iterator[dict[str, Any]]:
    """Yield the results that the card records, with the metrics that are known here."""
    recorded = card.provenance.get("results")
    for result in recorded if isinstance(recorded, list | tuple) else ():
        found = result.get("metrics") if isinstance(result, Mapping) else None
        known = found.items() if isinstance(found, Mapping) else ()
        metrics = {
            name: float(value) for name, value in known if name in _METRICS and isinstance(value, int | float)
        }
        if metrics:
            yield {"data": "", "how": "", **result, "metrics": metrics}


def _title(config: AutoencoderConfig | ClassifierConfig, card: ModelCard) -> str:
    if name := card.provenance.get("name"):
        return str(name)
    if isinstance(config, ClassifierConfig) and config.classes:
        return f"Video classifier of {plural(config.classes, 'class', 'classes')}"
    return "Masked video autoencoder" if isinstance(config, AutoencoderConfig) else "Video encoder"


def _text(
    config: AutoencoderConfig | ClassifierConfig, card: ModelCard, parameters: int, layout: str
) -> Iterator[str]:
    kind = _kind(config)
    yield f"# {_title(config, card)}\n"
    yield f"{_architecture(config, parameters)} {_origin(card)}\n"
    yield "## Input\n"
    yield from _input(config, card)
    yield "\n## Results\n"
    yield from _result_table(card)
    yield "\n## How to load it\n"
    yield "`FOLDER` is this folder, or the id of its repository on the Hugging Face hub.\n"
    if layout == "huggingface" and kind in _ARCHITECTURES:
        yield _TRANSFORMERS_LOADING.format(architecture=_ARCHITECTURES[kind])
    yield _TUBELET_LOADING.format(use=_USES[kind])
    if card.classes:
        note = ", of which a video may have more than one" if card.multi_label else ""
        yield f"## Classes\n\n{plural(len(card.classes), 'class', 'classes')}, by index{note}:\n"
        yield from (f"    {index} {name}" for index, name in enumerate(card.classes))
        yield ""
    yield f"## License\n\n{card.license or 'The license of the weights is not recorded.'}\n"


def _architecture(config: AutoencoderConfig | ClassifierConfig, parameters: int) -> str:
    encoder = config.encoder
    kind = {
        "autoencoder": "A masked video autoencoder: an encoder and the decoder of its pre-training",
        "classifier": "A video classifier: an encoder and a classification head",
        "encoder": "A video encoder without a classification head",
    }[_kind(config)]
    text = (
        f"{kind}. The encoder is a vision transformer of {encoder.depth} blocks, {encoder.dim} wide, with "
        f"{encoder.heads} heads; all in all {parameters / 1e6:.1f} million parameters."
    )
    masking = config.masking if isinstance(config, ClassifierConfig) else None
    if masking:
        kind = masking.kind.replace("_", " ")
        text += f" It classifies by {1 - masking.ratio:.0%} of a clip's tokens ({kind} masking)."
    return text


def _origin(card: ModelCard) -> str:
    about = card.provenance
    recipe = about.get("recipe")
    if isinstance(recipe, Mapping):
        verb = "pre-trained" if recipe.get("task") == "pretrain" else "fine-tuned"
        data = recipe.get("data")
        root = Path(str(data.get("root"))).name if isinstance(data, Mapping) else ""
        on = f" on `{root}`" if root else ""
        return f"It was {verb}{on} by Tubelet {about.get('tubelet')}; `config.json` has the whole recipe."
    if family := about.get("family"):
        return f"Its weights are those of `{about.get('file')}`, a file of the family {family}."
    return "Where its weights are from is not recorded."


def _input(config: AutoencoderConfig | ClassifierConfig, card: ModelCard) -> Iterator[str]:
    encoder = config.encoder
    size = encoder.image_size
    yield f"- clips of {encoder.frames} frames of {size} x {size} pixels"
    if card.clip:
        assumed = " (assumed: as in the published recipes)" if "clip" in card.provenance else ""
        settings = {name: value for name, value in asdict(card.clip).items() if name != "frames"}
        yield f"- frames: {', '.join(f'{name} {value}' for name, value in settings.items())}{assumed}"
    mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (encoder.mean, encoder.std))
    yield f"- pixels in [0, 1] less the mean {mean}, over the deviation {std} (Tubelet's models do it)"
    if _kind(config) == "classifier":
        views = card.views or Views()
        yield f"- a test averages over {views.clips} x {views.crops} views (clips x crops) of a video"


def _result_table(card: ModelCard) -> Iterator[str]:
    results = list(_results(card))
    if not results:
        yield "No results are recorded with this model."
        return
    yield "| data | list | metric | value | measured |"
    yield "| --- | --- | --- | --- | --- |"
    for result in results:
        for name, value in result["metrics"].items():
            cells = (result["data"], result.get("list") or "", _METRICS[name], f"{value:.2%}", result["how"])
            yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
