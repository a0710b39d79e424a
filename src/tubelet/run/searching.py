"""The videos of a file of features that are most like another one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.checkpoints.load import load_model
from tubelet.clips import AnyClip, Views
from tubelet.errors import UserError, did_you_mean, excerpt
from tubelet.results.blocks import row_blocks
from tubelet.results.features import Features, label_lists
from tubelet.results.stored import weights_digest
from tubelet.run.clip_features import FeatureConfig
from tubelet.run.embedding import embed_views
from tubelet.run.inference import on_device
from tubelet.settings import parse
from tubelet.video.remote import remote_url

_MAX_COMPARED = 5000  # names; comparing takes about a second
_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Neighbor:
    """A row of a file of features.

    Attributes:
        name: of the video, with the times of a window.
        similarity: the cosine of its features and those of the query, in [-1, 1].
        classes: the names of its classes; empty without labels.
    """

    name: str
    similarity: float
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """How the features of a file were computed."""

    features: FeatureConfig
    clip: AnyClip
    views: Views


def search(features: Features, query: np.ndarray, *, top: int, skip: int | None = None) -> list[Neighbor]:
    """Return the rows with the largest cosine similarity to a vector, best first.

    Args:
        features: the rows; of (N, R, D) the mean over R counts.
        query: (D,) or (R, D).
        top: how many rows.
        skip: a row to leave out, such as the query itself.
    """
    wanted = _direction(query.reshape(1, -1, query.shape[-1]).mean(1))[0]
    blocks = (np.asarray(features.vectors[rows]) for rows in row_blocks(features.vectors))
    similarity = np.concatenate(
        [_direction(block if block.ndim == 2 else block.mean(1)) @ wanted for block in blocks]
    )
    if skip is not None:
        similarity[skip] = -np.inf
    best = np.argsort(-similarity, kind="stable")[: min(top, len(features) - (skip is not None))]
    classes = label_lists(features.labels[best])
    return [
        Neighbor(features.names[row], float(similarity[row]), tuple(features.classes[k] for k in own))
        for row, own in zip(best.tolist(), classes, strict=True)
    ]


def _direction(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def query_row(features: Features, query: str, source: str) -> int | None:
    """Return the row whose name is the query; None if the query is a video file instead.

    Raises:
        UserError: it is neither.
    """
    if query in features.names:
        return features.names.index(query)
    if not Path(query).exists() and not remote_url(query):
        raise UserError(
            f"{query} is neither a video file nor the name of a row of {source}, such as "
            f"{excerpt(features.names[0])}{did_you_mean(query, features.names[:_MAX_COMPARED])}"
        )
    return None


def embed_query(
    features: Features, video: str, source: str, *, model: str | None = None, device: str | None = None
) -> np.ndarray:
    """Return the features of a video, float32 (D,) or (R, D), as those of a file were computed.

    Args:
        features: of the file.
        video: a file or a URL.
        source: what the user calls the file of features, for messages.
        model: where the model is now; None is where it was.
        device: as in `predict`.

    Raises:
        UserError: the model is not found, or has other weights than the one that made the file.
        VideoError: the video cannot be read.
    """
    header = features.header
    name = model or str(header.get("model") or "")
    try:
        loaded = load_model(name)
    except UserError as error:
        raise UserError(f"{source} was made by {name}: {error}. Say where it is now with --model") from None
    if weights_digest(loaded) != header.get("weights"):
        raise UserError(
            f"{source} was made by other weights than {name} has now: give the same model with --model, or "
            "embed the videos again"
        )
    rule = _rule(header, source)
    loaded, runtime = on_device(loaded, device or "auto", _PRECISIONS.get(str(header.get("precision"))))
    return embed_views(loaded, runtime, video, rule.features, rule.clip, rule.views).numpy()


def _rule(header: Any, source: str) -> _Rule:
    names = ("per", "layer", "pool", "norm")
    settings = {
        "features": {name: header.get(name) for name in names},
        "clip": header.get("clip"),
        "views": header.get("views"),
    }
    rule: _Rule = parse(_Rule, settings, f"the header of {source}")
    return rule
