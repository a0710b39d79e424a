"""The page of a training run, made by the command from the files of the run."""

import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from statistics import fmean

import pytest

from tests.report.test_page import Page
from tubelet.run.run_record import read_run

Command = Callable[..., tuple[int, str, str]]


def facts(page: str) -> dict[str, str]:
    """The names and values of all lists of facts."""
    pairs = re.findall(r"<div><dt>(.*?)</dt><dd>(.*?)</dd></div>", page)
    return {unescape(name): unescape(value) for name, value in pairs}


def headings(page: str, level: int) -> list[str]:
    Page(page)  # its tags nest
    return [unescape(text) for text in re.findall(rf"<h{level}>(.*?)</h{level}>", page)]


def log_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of MAR."""
    return shutil.copytree(trained / "mar", tmp_path / "my <run>")


def test_the_page_of_a_finished_run_has_its_numbers(tubelet: Command, run: Path, motion: Path) -> None:
    code, out, err = tubelet("report", run)
    assert (code, out, err) == (0, f"{run / 'report.html'}\n", "")
    text = (run / "report.html").read_text(encoding="utf-8")
    assert headings(text, 1) == ["my <run>"]
    assert headings(text, 2) == ["Curves", "Reconstructions", "Data", "Speed", "Settings", "About this run"]
    assert headings(text, 3) == [
        "Loss", "Accuracy", "Learning rate", "Gradient", "Throughput", "Waiting for data",
    ]  # fmt: skip
    assert not re.search(r'(src|href)="(?!data:|#)', text)  # nothing is fetched
    assert "http" not in re.sub(r"data:[^\"]*", "", text).replace("http://www.w3.org", "")
    assert text.count("data:image/webp") == 3
    log, known = log_of(run), facts(text)
    assert known["epochs"] == "1.00 of 1"
    assert known["steps"] == f"{log[-1]['step']} of 8 videos"
    assert known["clips trained on"] == "24"
    assert known["videos in it"] == "24"
    assert known["classes"] == "12"
    assert known["training list"] == str(motion / "train.csv")
    waits = [line["data_wait"] for line in log if "data_wait" in line]
    assert known["time waiting for data"] == f"{100 * fmean(waits):.1f} %"
    best = max(line["val/top1"] for line in log if "val/top1" in line)
    assert f"{100 * best:.1f}<span>%</span>" in text
    assert "running_cell" in text
    assert "not finished" not in text


def test_a_run_that_is_not_finished_has_a_page(
    tubelet: Command, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("model.safetensors", "config.json", "last.pt"):
        (run / name).unlink()
    shutil.rmtree(run / "best")
    recipe = (run / "recipe.yaml").read_text()
    assert "epochs: 1\n" in recipe
    recipe = recipe.replace("epochs: 1\n", "epochs: 8\n")
    (run / "recipe.yaml").write_text(re.sub(r"root: .*", "root: /moved/away", recipe))
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "epoch": 1.25, "loss": NaN, "lr": 0.1}\n{"step": 9, "epo')
    failures = {f"{k}.mp4": f"{k}.mp4: <no moov>" for k in range(120)}
    (run / "failures.json").write_text(json.dumps(failures))
    code, out, _ = tubelet("report", run, "-o", run / "pages/x.html")
    assert code == 0
    assert out == f"{run / 'pages/x.html'}\n"
    assert "/moved/away" in caplog.text
    text = (run / "pages/x.html").read_text(encoding="utf-8")
    assert "not finished" in text
    assert facts(text)["epochs"] == "1.25 of 8"
    assert facts(text)["videos that could not be read"] == "120"
    assert text.count("&lt;no moov&gt;") == 100
    assert "120 videos could not be read" in text
    (run / "log.jsonl").unlink()
    (run / "failures.json").unlink()
    assert tubelet("report", run)[0] == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "not logged anything" in text
    assert headings(text, 2) == ["Data", "Settings", "About this run"]


def test_a_pretraining_shows_reconstructions_and_no_accuracy(
    tubelet: Command, trained: Path, tmp_path: Path
) -> None:
    assert tubelet("report", trained / "pretrain", "-o", tmp_path / "x.html")[0] == 0
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "Accuracy" not in headings(text, 3)
    assert "90% masked" in text or "88% masked" in text
    record = read_run(trained / "pretrain")
    assert record.is_finished
    epochs = [epoch for epoch, _ in record.values("loss")]
    assert epochs == sorted(epochs)


def test_what_is_not_a_run_is_one_message(tubelet: Command, motion: Path, tmp_path: Path, run: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/recipe.yaml").write_text("task: pretrain\nnothing: 3\n")
    (run / "failures.json").write_text("{")
    for folder, named in (
        (motion, "recipe.yaml"), (tmp_path / "my run", "my <run>"), (tmp_path / "damaged", "nothing"),
        (run, "failures.json"),
    ):  # fmt: skip
        code, out, err = tubelet("report", folder)
        assert (code, out) == (2, ""), folder
        assert err.count("tubelet: ") == 1
        assert named in err
