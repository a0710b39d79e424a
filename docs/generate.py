"""Write the generated parts of the documentation: `make docs`."""

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tubelet.checkpoints.catalogue import catalogue
from tubelet.clips import AnyClip, DenseClip, ScoresName, Views
from tubelet.data.protocols import PROTOCOLS, EvaluationProtocol
from tubelet.masking import RunningCellMasking
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.encoder import EncoderConfig
from tubelet.models.flops import gflops_per_view, parameter_count
from tubelet.models.heads import BridgingHeadConfig, LinearHeadConfig
from tubelet.models.sizes import SizeName
from tubelet.recipe.fitting import Situation, fit_settings
from tubelet.recipe.help import explain
from tubelet.recipe.loading import list_recipes, load_recipe, read_settings
from tubelet.recipe.schema import TASKS, Recipe
from tubelet.settings import parse, to_plain
from tubelet.video.crop import GEOMETRIES, Scaling

DOCS = Path(__file__).parent

SIZES: dict[str, SizeName] = {
    "ViT-S": "small", "ViT-B": "base", "ViT-L": "large", "ViT-H": "huge", "ViT-g": "giant",
}  # fmt: skip

# (method, size, masked fraction, published GFLOPs, published millions of parameters)
COSTS: tuple[tuple[str, str, float, float | None, float | None], ...] = (
    ("VideoMAE", "ViT-S", 0, 57, 22),
    ("VideoMAE", "ViT-B", 0, 180, 87),
    ("VideoMAE", "ViT-L", 0, 597, 305),
    ("VideoMAE", "ViT-H", 0, 1192, 633),
    ("VideoMAE V2", "ViT-g", 0, None, None),
    ("MAE-ST", "ViT-B", 0, 180, 87),
    ("MAE-ST", "ViT-L", 0, 598, 304),
    ("MAE-ST", "ViT-H", 0, 1193, 632),
    ("MAR", "ViT-B", 0, None, 94),
    ("MAR", "ViT-B", 0.25, 138.04, 94),
    ("MAR", "ViT-B", 0.5, 86.35, 94),
    ("MAR", "ViT-B", 0.75, 40.95, 94),
    ("MAR", "ViT-L", 0, None, 311),
    ("MAR", "ViT-L", 0.25, None, 311),
    ("MAR", "ViT-L", 0.5, 276, 311),
    ("MAR", "ViT-L", 0.75, 131, 311),
)


def classifier(method: str, size: str, ratio: float) -> VideoClassifier:
    """Return a published classifier of 400 classes, without weights."""
    mar, learned = method == "MAR", method == "MAE-ST"
    encoder = EncoderConfig(
        size=SIZES[size],
        positions="separable" if learned else "sinusoid",
        class_token=learned,
        key_bias=learned,
        final_norm=mar,
    )
    with torch.device("meta"):
        return VideoClassifier(
            ClassifierConfig(
                encoder=encoder,
                classes=400,
                head=BridgingHeadConfig() if mar else LinearHeadConfig(),
                masking=RunningCellMasking(ratio=ratio) if ratio else None,
            )
        )


def upstream_extra(method: str, size: str, ratio: float) -> float:
    """Return the GFLOPs of MAR's own code for embedding the tokens that it then drops."""
    encoder = EncoderConfig(size=SIZES[size])
    embedding = encoder.grid.volume * encoder.patch_values * encoder.dim / 1e9
    return ratio * embedding if method == "MAR" else 0.0


def costs() -> Iterator[str]:
    """Yield the lines of the table of GFLOPs and parameters."""
    yield "| model, 16 x 224 x 224, 400 classes | masked | GFLOPs | published | parameters | published |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for method, size, ratio, gflops, millions in COSTS:
        model = classifier(method, size, ratio)
        ours, count = gflops_per_view(model), parameter_count(model)
        cost = f"{ours:.2f}"
        if gflops and abs(ours / gflops - 1) > 0.01:
            cost += f" (+ {upstream_extra(method, size, ratio):.2f})"
        cells = (
            f"{method} {size}",
            f"{ratio:.0%}",
            cost,
            "" if gflops is None else f"{gflops:g}",
            f"{count:,}",
            "" if millions is None else f"{millions:g} M",
        )
        yield "| " + " | ".join(cells) + " |"


def zoo() -> Iterator[str]:
    """Yield the lines of the table of published checkpoints."""
    yield "| name | holds | trained on | top-1 / top-5 | protocol | license | where |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in catalogue().values():
        accuracy = " / ".join(f"{value}" for value in (row.top1, row.top5) if value is not None)
        cells = (
            f"`{row.name}`",
            f"{row.contains}, {row.size}",
            row.data,
            accuracy,
            row.protocol or "",
            row.license,
            "by its name" if row.source else "by hand",
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


FILTERS: dict[Scaling, str] = {
    "one_step": "with antialiasing, in one step",
    "antialias": "with antialiasing",
    "bilinear": "without antialiasing",
}

AVERAGES: dict[ScoresName, str] = {"mean_probability": "probabilities", "mean_logit": "logits"}


def protocols() -> Iterator[str]:
    """Yield the lines of the table of test protocols, and of the default."""
    titles = ("`protocol=`", "`data.clip`", "clips x crops", "scaled to", "three crops at", "a single one at")
    yield f"| {' | '.join((*titles, 'bilinear', 'average of', 'source'))} |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    usual = EvaluationProtocol(clip=DenseClip(), views=Views(crops=3), source="")
    for name, protocol in (PROTOCOLS | {"": usual}).items():
        settings = {"kind": protocol.clip.kind} | difference_from_defaults(protocol.clip)
        views, geometry = protocol.views, GEOMETRIES[protocol.views.geometry or "default"]
        height, width = geometry.scaled(256, 340, 224)
        cells = (
            f"`{name}`" if name else "the default",
            f"`{{{', '.join(f'{key}: {value}' for key, value in settings.items())}}}`" if name else "",
            f"{views.clips} x {views.crops}" if name else "",
            f"{height} x {width}",
            ", ".join(map(str, geometry.starts(width - height, 3))) if views.crops > 1 else "",
            str(geometry.starts(width - height, 1)[0]),
            FILTERS[geometry.scaling],
            AVERAGES[views.scores or "mean_probability"],
            protocol.source,
        )
        yield "| " + " | ".join(cells) + " |"


def difference_from_defaults(clip: AnyClip) -> dict[str, Any]:
    """Return the settings of a clip that are not its kind's defaults."""
    return {key: value for key, value in to_plain(clip).items() if value != to_plain(type(clip)())[key]}


def settings() -> str:
    """Return `settings.md`: every setting of every kind of recipe, as tables."""
    lines = [
        "# Settings",
        "",
        "Generated by `make docs` from the code; `tubelet recipe help` prints the same.",
    ]
    for task in ("pretrain", "finetune", "evaluate", "predict"):
        lines += ["", f"## {task}", "", "| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
        for row in explain(task):
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def models() -> str:
    """Return `models.md` with new tables; the text between them is written by hand."""
    return with_tables("models.md", {"costs": costs(), "zoo": zoo()})


def evaluation() -> str:
    """Return `evaluation.md` with a new table; the text around it is written by hand."""
    return with_tables("evaluation.md", {"protocols": protocols()})


def recipes() -> str:
    """Return `recipes.md` with a new table; the text around it is written by hand."""
    return with_tables("recipes.md", {"recipes": published_recipes(), "one gpu": one_gpu()})


def performance() -> str:
    """Return `performance.md` with the table of the stored numbers; the text around it is written by hand."""
    benchmarks = DOCS.parent / "benchmarks"
    report = json.loads((benchmarks / "predict.json").read_text(encoding="utf-8"))
    table = runpy.run_path(str(benchmarks / "predict.py"))["table"]
    return with_tables("performance.md", {"prediction": table(report)})


def published_recipes() -> Iterator[str]:
    """Yield the lines of the table of published runs."""
    yield "| recipe | model | data | epochs | batch | top-1 | source |"
    yield "| --- | --- | --- | ---: | ---: | ---: | --- |"
    for row in list_recipes():
        if row.source:
            yield f"| `{row.name}` | " + " | ".join(row[1:]) + " |"


REASONS = {
    "batch_size": "with few videos, small batches give more steps",
    "accumulate": "the batch is computed in parts that fit",
    "epochs": "2 million clips, 60,000 in fine-tuning: hours, not weeks",
    "warmup_epochs": "a tenth of the epochs",
    "base_lr": "for 256 clips; it grows with the root of the batch",
    "data.repeats": "more clips from each decoded video",
    "data.augmented_copies": "half of the computing for each video",
    "data.augment.flip": "more variety in few videos",
}


def one_gpu() -> Iterator[str]:
    """Yield the lines of the table of what `own/` recipes change for 2,000 videos on one GPU."""
    yield "| setting | published, 64 GPUs | 24 GB | 8 GB | why |"
    yield "| --- | --- | --- | --- | --- |"
    for task in ("pretrain", "finetune"):
        published = load_recipe(f"videomae/{task}_k400_base")
        fitted = [_fitted(f"own/{task}", gigabytes) for gigabytes in (24, 8)]
        for key, reason in REASONS.items():
            cells = [_cell(recipe, key) for recipe in (published, *fitted)]
            if len(set(cells)) > 1:
                name = key if "." in key else f"optim.{key}"
                yield f"| {task}: `{name}` | {' | '.join(cells)} | {reason} |"


def _fitted(name: str, gigabytes: int) -> Recipe:
    """Return a recipe for 2,000 videos that start from VideoMAE's ViT-B, on a GPU of this memory."""
    situation = Situation(
        num_videos=2000,
        classes=tuple("abcdefghij"),
        seconds=5.0,
        device="cuda",
        memory_bytes=gigabytes * 2**30,
        start=AutoencoderConfig(),
        start_clip=DenseClip(),
    )
    settings = fit_settings(read_settings(name, "init=videomae_base_k400"), situation, name)
    return parse(TASKS[settings["task"]], settings, name)


def _cell(recipe: Recipe, key: str) -> str:
    value: Any = recipe if "." in key else recipe.optim
    for part in key.split("."):
        value = getattr(value, part)
    return f"{value:g}"


def with_tables(name: str, tables: dict[str, Iterator[str]]) -> str:
    """Return a page with new tables at their marks."""
    page = (DOCS / name).read_text(encoding="utf-8")
    for table, lines in tables.items():
        before, found, rest = page.partition(f"<!-- {table} -->\n")
        _, also_found, after = rest.partition(f"<!-- end of {table} -->\n")
        if not (found and also_found):
            raise ValueError(f"docs/{name} has no marks of the table {table}")
        page = before + found + "\n".join(lines) + "\n" + f"<!-- end of {table} -->\n" + after
    return page


PAGES = {
    "settings.md": settings,
    "models.md": models,
    "evaluation.md": evaluation,
    "recipes.md": recipes,
    "performance.md": performance,
}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (DOCS / page).write_text(make(), encoding="utf-8")
        print(DOCS / page)
