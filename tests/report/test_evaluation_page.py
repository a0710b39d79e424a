"""The page of a test: its sections follow from its contents, and its contents from the result."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.test_page import Page
from tests.videos import moving_frames, write_video
from tubelet.data.manifest import Sample, read_manifest, write_manifest
from tubelet.report.contents import ClassRow, LengthRow, PairRow
from tubelet.report.evaluation_contents import evaluation_page, worst_clips
from tubelet.report.evaluation_page import render_evaluation
from tubelet.results.accuracy import Evaluation

CLASSES = ("run <fast>", "walk", "sit", "fall")
TRUE = [0, 0, 0, 0, 1, 1, 2, 2]
PREDICTED = [0, 1, 1, 2, 1, 0, 2, 2]
CONFIDENCE = [0.9, 0.95, 0.5, 0.7, 0.6, 0.8, 0.99, 0.4]
SECONDS = [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.fixture
def result() -> Evaluation:
    probabilities = np.repeat((1 - np.array(CONFIDENCE, np.float32))[:, None] / 3, 4, axis=1)
    probabilities[np.arange(8), PREDICTED] = CONFIDENCE
    return Evaluation(
        [f"{k}.mp4" for k in range(8)], np.array(TRUE), probabilities, {"x.mp4": "x.mp4: cut <off>"},
        classes=CLASSES, seconds=np.array(SECONDS, np.float32), facts={"views": "clips 5, crops 3"},
    )  # fmt: skip


@pytest.fixture
def multi_label(result: Evaluation) -> Evaluation:
    labels = np.eye(4, dtype=bool)[TRUE]
    labels[1, 1] = True
    labels[6] = False
    return replace(result, labels=labels)


def test_the_page_has_all_sections_and_needs_nothing_else(result: Evaluation) -> None:
    html = render_evaluation(evaluation_page(result, "Test of <x>"))
    page = Page(html)
    sections = ["Confusion matrix", "Hardest pairs", "Worst clips", "Classes", "Length", "Calibration"]
    assert page.headings == [*sections, "About this test"]
    assert "http" not in html
    assert all(tag not in ("script", "link", "iframe", "img") for tag, _ in page.tags)
    for text in (
        "Test of <x>",
        "8 videos, 4 classes.",
        "4 of 8 videos",
        "1 of 9 videos",
        "cut <off>",
        "clips 5",
    ):
        assert text in page.text, text
    assert f"{100 * result.mean_class_accuracy:.1f}" in page.text
    assert f"{100 * result.calibration().error:.1f}" in page.text
    assert ["run <fast>", "1", "2", "1", ""] in page.rows  # of the confusion matrix
    assert ["run <fast>", "walk", "2", "50.0", "1"] in page.rows
    assert ["walk", "2", "50.0", "", "run <fast>"] in page.rows
    assert ["1.00 to 2.00", "2", "50.0", ""] in page.rows
    label = next(attributes["aria-label"] for tag, attributes in page.tags if tag == "svg")
    assert label
    assert "100.0 % at 40.0 % (1 videos)" in label


def test_a_multi_label_page_has_no_confusion_and_no_calibration(multi_label: Evaluation) -> None:
    page = Page(render_evaluation(evaluation_page(multi_label, "x")))
    assert page.headings == ["Worst clips", "Classes", "Length", "About this test"]
    assert f"{100 * multi_label.mean_average_precision():.1f}" in page.text
    assert "most probable class is one of its classes" in page.text


def test_the_rows_are_counted_by_hand(result: Evaluation) -> None:
    page = evaluation_page(result, "x")
    assert page.rows == [
        ClassRow("run <fast>", 4, 0.25, "walk"),
        ClassRow("walk", 2, 0.5, "run <fast>"),
        ClassRow("sit", 2, 1.0, ""),
        ClassRow("fall", 0, None, ""),
    ]
    assert page.pairs == [
        PairRow("run <fast>", "walk", 2, 0.5, 1),
        PairRow("run <fast>", "sit", 1, 0.25, 0),
        PairRow("walk", "run <fast>", 1, 0.5, 2),
    ]
    assert page.lengths == [
        LengthRow(1, 2, 2, 0.5), LengthRow(3, 3, 1, 0), LengthRow(4, 5, 2, 0.5), LengthRow(6, 6, 1, 0),
        LengthRow(7, 8, 2, 1),
    ]  # fmt: skip


def test_videos_without_lengths_or_of_one_length_have_no_groups(result: Evaluation) -> None:
    assert result.seconds is not None
    for seconds in (None, np.full(8, np.nan, np.float32), np.full(8, 2.5, np.float32)):
        assert evaluation_page(replace(result, seconds=seconds), "x").lengths == []
    for lengths, expected in (
        ([2, 2, 2, 2, 2, 2, 3, np.nan], [(2, 2, 6), (3, 3, 1)]),
        ([1, 2, 2, 2, 2, 2, 2, np.nan], [(1, 1, 1), (2, 2, 6)]),
    ):
        ties = replace(result, seconds=np.array(lengths, np.float32))
        rows = evaluation_page(ties, "x").lengths
        assert [(row.shortest, row.longest, row.videos) for row in rows] == expected


def test_the_worst_clips_are_the_most_confident_wrong_answers(
    result: Evaluation, multi_label: Evaluation
) -> None:
    worst = worst_clips(result, None, 3)
    assert [(clip.video, clip.truth, clip.predicted, clip.strip) for clip in worst] == [
        ("1.mp4", "run <fast>", "walk", None), ("5.mp4", "walk", "run <fast>", None),
        ("3.mp4", "run <fast>", "sit", None),
    ]  # fmt: skip
    assert [clip.probability for clip in worst] == pytest.approx([0.95, 0.8, 0.7])
    assert len(worst_clips(result, None, 100)) == 4
    worst = worst_clips(multi_label, None, 2)  # video 1 shows both classes now, and video 6 none
    assert [(clip.video, clip.truth, clip.predicted) for clip in worst] == [
        ("6.mp4", "no class", "sit"),
        ("5.mp4", "walk", "run <fast>"),
    ]


def test_the_worst_clips_have_pictures_where_the_videos_still_are(result: Evaluation, tmp_path: Path) -> None:
    samples = [Sample(f"{k}.mp4", label) for k, label in enumerate(TRUE)]
    samples[5] = replace(samples[5], start=0.2, end=0.6)
    write_manifest(tmp_path, "test", samples, CLASSES)
    for k in (1, 5):
        write_video(tmp_path / f"{k}.mp4", moving_frames(30, 48, 64, seed=k))
    (tmp_path / "3.mp4").write_text("not a video")
    names = [sample.name for sample in samples]
    result = replace(result, names=names, list_file=str(tmp_path / "test.csv"))
    worst = {clip.video: clip.strip for clip in evaluation_page(result, "x").worst}
    assert {name for name, strip in worst.items() if strip} == {"1.mp4", "5.mp4#t=0.2,0.6"}
    html = render_evaluation(evaluation_page(result, "x"))
    assert html.count('<img src="data:image/webp;base64,') == 2
    first = worst["1.mp4"]
    assert first
    (tmp_path / "strip.webp").write_bytes(first)
    with Image.open(tmp_path / "strip.webp") as strip:
        assert strip.size == (6 * 96 + 5 * 2, 96)
    assert len(first) < 20_000
    (tmp_path / "test.csv").unlink()
    assert not any(clip.strip for clip in evaluation_page(result, "x").worst)


Command = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_the_command_writes_the_page_of_a_test_and_of_its_dump(
    tubelet: Command, trained: Path, motion: Path, tmp_path: Path
) -> None:
    page, dump, again = tmp_path / "new/page.html", tmp_path / "a.npz", tmp_path / "again.html"
    words = ("evaluate", trained / "finetune", "data.workers=0", "--out", tmp_path / "kept")
    code, _, err = tubelet(*words, "--report", page, "--dump", dump)
    assert code == 0, err
    first = Page(page.read_text(encoding="utf-8"))
    assert f"Test of {trained / 'finetune'}" in first.text
    assert "clips 2, crops 1" in first.text
    assert sum(tag == "img" for tag, _ in first.tags) == 12 - round(Evaluation.load(dump).top1 * 12)
    code, _, err = tubelet("evaluate", "--from", dump, dump, "--report", again)
    assert code == 0, err
    second = Page(again.read_text(encoding="utf-8"))
    assert "a.npz + a.npz" in second.text
    assert first.rows == second.rows
    assert len(read_manifest(motion, "test")) == 12


def test_a_page_of_another_name_is_refused_before_the_test(tubelet: Command, trained: Path) -> None:
    code, out, err = tubelet("evaluate", trained / "finetune", "--report", "page.pdf")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "page.pdf" in err
