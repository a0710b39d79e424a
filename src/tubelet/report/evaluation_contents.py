"""The contents of a test's page, from its result."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tubelet.clips import SegmentClip
from tubelet.data.dataset import read_clip
from tubelet.data.manifest import Manifest, Sample, read_manifest
from tubelet.errors import UserError, plural
from tubelet.report.contents import ClassRow, EvaluationPage, KeyFigure, LengthRow, PairRow, WorstClip
from tubelet.results.accuracy import Evaluation
from tubelet.results.blocks import row_blocks
from tubelet.results.metrics import Calibration
from tubelet.run.visualize import film_strip
from tubelet.video.reader import VideoError

_NUM_PAIRS = 12
_NUM_WORST = 12
_NUM_LENGTHS = 5
_STRIP_FRAMES = 6
_STRIP_HEIGHT = 96  # pixels
_STRIP_QUALITY = 60  # of WebP: about 8 KB


def evaluation_page(result: Evaluation, title: str) -> EvaluationPage:
    """Return the contents of the page of a test.

    The worst clips are read from the list that was tested, where it and the videos still exist.
    """
    confusion = None if result.multi_label else result.confusion()
    calibration = None if result.multi_label else result.calibration()
    names = [result.class_name(k) for k in range(result.probabilities.shape[1])]
    listed = f" of {result.list_file}" if result.list_file else ""
    return EvaluationPage(
        title=title,
        lead=f"{plural(len(result.names), 'video')}{listed}, {plural(len(names), 'class', 'classes')}.",
        figures=_figures(result, calibration),
        score="Average precision" if result.multi_label else "Right",
        rows=_class_rows(result, confusion),
        confusion=confusion,
        classes=names,
        pairs=[] if confusion is None else _pairs(result, confusion),
        lengths=_lengths(result),
        calibration=calibration,
        worst=worst_clips(result, _manifest(result.list_file), _NUM_WORST),
        broken=list(result.broken.values()),
        tested=len(result.names),
        facts=list(result.facts.items()),
    )


def _figures(result: Evaluation, calibration: Calibration | None) -> list[KeyFigure]:
    over = f"over {plural(result.num_present, 'class', 'classes')}"
    if calibration is None:
        return [KeyFigure("mAP", f"mean average precision, {over}", result.mean_average_precision())]
    metrics = result.metrics()
    right = f"{round(result.top1 * len(result.names)):,} of {plural(len(result.names), 'video')}"
    figures = [KeyFigure("Top-1", right, metrics["top1"])]
    if "top5" in metrics:
        figures.append(KeyFigure("Top-5", "among the five most probable", metrics["top5"]))
    return [
        *figures,
        KeyFigure("Class mean", f"mean class accuracy, {over}", result.mean_class_accuracy),
        KeyFigure("Calibration error", "ECE, 15 bins", calibration.error),
    ]


def _class_rows(result: Evaluation, confusion: np.ndarray | None) -> list[ClassRow]:
    """Return the classes, the lowest score first and those without videos last."""
    scores = result.per_class()
    taken_for = [""] * len(scores)
    if confusion is not None:
        wrong = confusion - np.diag(confusion.diagonal())
        for k, most in enumerate(wrong.argmax(1).tolist()):
            taken_for[k] = result.class_name(most) if wrong[k, most] else ""
    rows = [
        ClassRow(each.name, each.videos, each.score, other)
        for each, other in zip(scores, taken_for, strict=True)
    ]
    return sorted(rows, key=lambda row: 2.0 if row.score is None else row.score)


def _pairs(result: Evaluation, confusion: np.ndarray) -> list[PairRow]:
    return [
        PairRow(
            result.class_name(pair.truth),
            result.class_name(pair.predicted),
            pair.videos,
            pair.videos / int(confusion[pair.truth].sum()),
            int(confusion[pair.predicted, pair.truth]),
        )
        for pair in result.confused_pairs(_NUM_PAIRS)
    ]


def _lengths(result: Evaluation) -> list[LengthRow]:
    """Return about equally many videos in each row; nothing if their lengths are unknown or all the same.

    In a multi-label test a video is right if its most probable class is one of its classes.
    """
    if result.seconds is None:
        return []
    known = np.flatnonzero(np.isfinite(result.seconds))
    seconds = result.seconds[known]
    if not len(known) or seconds.min() == seconds.max():
        return []
    is_right = _own_predictions(result)[known]
    _, value_of, counts = np.unique(seconds, return_inverse=True, return_counts=True)
    middle = (counts.cumsum() - counts / 2) / len(known)  # equal lengths stay together
    groups = (_NUM_LENGTHS * middle).astype(int)[value_of]
    return [
        LengthRow(
            float(seconds[groups == k].min()),
            float(seconds[groups == k].max()),
            int((groups == k).sum()),
            float(is_right[groups == k].mean()),
        )
        for k in np.unique(groups)
    ]


def _own_predictions(result: Evaluation) -> np.ndarray:
    """Return whether the most probable class of each video is one of its classes, bool (N,)."""
    if not result.multi_label:
        return result.predicted == result.labels
    is_own = np.empty(len(result.names), dtype=bool)
    for rows in row_blocks(result.labels):
        labels = result.labels[rows]
        is_own[rows] = labels[np.arange(len(labels)), result.predicted[rows]]
    return is_own


def worst_clips(result: Evaluation, manifest: Manifest | None, count: int) -> list[WorstClip]:
    """Return the wrong answers with the highest probabilities.

    In a multi-label test these are the most probable classes that a video does not show.

    Args:
        result: of the test.
        manifest: its videos, from which pictures are made; without it, there are no pictures.
        count: how many at most.
    """
    predicted, probability = _wrong_predictions(result)
    order = np.argsort(-probability, kind="stable")[:count]
    worst = order[probability[order] > 0].tolist()
    wanted = {result.names[row] for row in worst}
    samples = {
        sample.name: sample for sample in (manifest.samples if manifest else ()) if sample.name in wanted
    }
    return [
        WorstClip(
            video=result.names[row],
            truth=", ".join(map(result.class_name, _classes(result, row))) or "no class",
            predicted=result.class_name(int(predicted[row])),
            probability=float(probability[row]),
            strip=_strip(manifest, samples.get(result.names[row])),
        )
        for row in worst
    ]


def _wrong_predictions(result: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Return a wrong class of each video and its probability, which is 0 where the model was right.

    That of a multi-label test is the most probable of the classes that a video does not show.
    """
    if not result.multi_label:
        return result.predicted, np.where(result.predicted == result.labels, 0, result.confidence)
    predicted = np.empty(len(result.names), dtype=np.int64)
    probability = np.empty(len(result.names), dtype=np.float32)
    for rows in row_blocks(result.probabilities):
        others = np.where(result.labels[rows], 0, result.probabilities[rows])
        predicted[rows], probability[rows] = others.argmax(1), others.max(1)
    return predicted, probability


def _classes(result: Evaluation, row: int) -> Sequence[int]:
    label = result.labels[row]
    return np.flatnonzero(label).tolist() if result.multi_label else [int(label)]


def _manifest(list_file: str) -> Manifest | None:
    path = Path(list_file)
    try:
        return read_manifest(path.parent, path.stem) if list_file else None
    except UserError:  # it was moved or changed: the page then has no pictures
        return None


def _strip(manifest: Manifest | None, sample: Sample | None) -> bytes | None:
    """Return frames spread over a video, side by side in a WebP file; None if it cannot be read."""
    if manifest is None or sample is None:
        return None
    clip, times = SegmentClip(frames=_STRIP_FRAMES), {"start": sample.start, "end": sample.end}
    try:
        frames = read_clip(manifest.locate(sample), clip, size=_STRIP_HEIGHT, **times)
    except VideoError:
        return None
    file = io.BytesIO()
    film_strip(frames, _STRIP_FRAMES, _STRIP_HEIGHT).save(file, "WEBP", quality=_STRIP_QUALITY)
    return file.getvalue()
