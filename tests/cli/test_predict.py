"""`tubelet predict`: what may be named, how answers are printed, and how it ends."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tubelet as public
from tests.conftest import BROKEN
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.save import save_model
from tubelet.data.manifest import Sample, write_manifest
from tubelet.run.prediction_output import CsvRows, JsonLines, Table
from tubelet.run.predictor import Predictor

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def files(motion: Path) -> list[Path]:
    return sorted((motion / "videos/test").iterdir())


def named(out: str) -> list[str]:
    return [json.loads(line)["video"] for line in out.splitlines()]


def assert_top(found: list[dict[str, Any]], expected: public.Prediction) -> None:
    names, probabilities = zip(*expected.top(), strict=True)
    assert [each["class"] for each in found] == list(names)
    assert [each["probability"] for each in found] == pytest.approx(list(probabilities), abs=1e-6)


@pytest.mark.slow
def test_lists_of_every_kind_name_videos(
    tubelet: Run, trained: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in files[:3]:
        (tmp_path / "lists" / file.name).parent.mkdir(exist_ok=True)
        (tmp_path / "lists" / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    a, b, c = (file.name for file in files[:3])
    for name, text in (
        ("plain.txt", f"{a}\n{b}\n\n{c}\n"),
        ("labeled.txt", f"{a} 0\n{b} 1\n{c} 1\n"),
        ("table.csv", f"path,label,frames\n{a},0,16\n{b},1,16\n{c},1,16\n"),
        ("absolute.txt", "".join(f"{tmp_path / 'lists' / file}\n" for file in (a, b, c))),
        ("current.txt", "".join(f"lists/{file}\n" for file in (a, b, c))),
        ("records.json", json.dumps([{"path": file} for file in (a, b, c)])),
    ):
        (tmp_path / "lists" / name).write_text(text)
        code, out, err = tubelet("predict", trained / "finetune", f"lists/{name}", "--format", "jsonl")
        assert code == 0, (name, err)
        assert [Path(video).name for video in named(out)] == [a, b, c], name


def test_a_manifest_may_list_segments(tubelet: Run, trained: Path, files: list[Path], tmp_path: Path) -> None:
    samples = [Sample(str(files[0]), start=0.1, end=0.5), Sample(str(files[0]), start=0.5)]
    write_manifest(tmp_path, "test", samples)
    code, out, _ = tubelet("predict", trained / "finetune", tmp_path / "test.csv", "--format", "jsonl")
    first, second = map(json.loads, out.splitlines())
    assert code == 0
    assert (first["start"], first["end"], second["start"], second["end"]) == (0.1, 0.5, 0.5, None)
    expected = public.predict(load_model(trained / "finetune"), files[0], start=0.1, end=0.5)
    assert_top(first["top"], expected)
    code, out, _ = tubelet("predict", trained / "finetune", tmp_path / "test.csv")
    assert "0.10-0.50 s" in out


def test_a_list_with_a_missing_file_names_it_and_predicts_the_others(
    tubelet: Run, trained: Path, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text(f"{files[0]}\ngone.mp4\n{files[1]}\n")
    code, out, err = tubelet("predict", trained / "finetune", tmp_path / "list.txt", "--format", "jsonl")
    assert (code, named(out)) == (2, [str(files[0]), str(files[1])])
    assert err.count("gone.mp4") == 1
    assert "1 of 3 videos could not be read" in err


def test_nothing_to_predict_is_one_message(tubelet: Run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    for word in ("empty", "empty.txt", "*.mkv"):
        code, out, err = tubelet("predict", trained / "finetune", tmp_path / word)
        assert (code, out) == (2, "")
        assert str(tmp_path / word) in err
        assert len(err.splitlines()) == 1


def test_csv_has_a_row_for_each_class(tubelet: Run, trained: Path, files: list[Path]) -> None:
    words = ("predict", trained / "finetune", *files[:2], "--top", 3, "--format")
    rows = list(csv.DictReader(tubelet(*words, "csv")[1].splitlines()))
    objects = [json.loads(line) for line in tubelet(*words, "jsonl")[1].splitlines()]
    assert [row["video"] for row in rows] == [str(file) for file in files[:2] for _ in range(3)]
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 2
    tops = [each for line in objects for each in line["top"]]
    assert [row["class"] for row in rows] == [each["class"] for each in tops]
    assert [float(row["probability"]) for row in rows] == [
        pytest.approx(each["probability"], abs=1e-6) for each in tops
    ]


def test_a_table_is_aligned_and_broken_videos_are_apart(
    tubelet: Run, trained: Path, files: list[Path], videos: Path
) -> None:
    broken = [videos / name for name in BROKEN]
    code, out, err = tubelet("predict", trained / "finetune", files[0], *broken, files[1], "--top", 2)
    assert code == 2
    header, *rows = out.splitlines()
    assert header.split() == ["video", "score", "class"]
    names = [row for row in rows if not row.startswith(" ")]
    assert [row.split()[0] for row in names] == [str(files[0]), str(files[1])]
    assert len({row.index("%") for row in rows if "%" in row}) == 1
    assert [sum(name in line for line in err.splitlines()) for name in BROKEN] == [1, 1, 1]
    assert "3 of 5 videos" in err


ODD_NAMES = ("a\x85b\u2028c", "\x1b[31mred", "日本語", "tab\there", *(f"c{k}" for k in range(8)))


def test_names_do_not_change_the_terminal() -> None:
    found = public.Prediction(np.linspace(1, 0, 12), ODD_NAMES, "\udcff \x1b[2J.mp4")
    for output in (JsonLines(12), CsvRows(12), Table(12, [found.video])):
        lines = output.text(found).splitlines()
        assert len(lines) == (1 if isinstance(output, JsonLines) else 12)
        assert all(line.isprintable() for line in lines)
    top = json.loads(JsonLines(12).text(found))["top"]
    assert tuple(each["class"] for each in top) == ODD_NAMES


@pytest.mark.slow
def test_any_name_is_printed_on_a_terminal_of_ascii(trained: Path, files: list[Path], tmp_path: Path) -> None:
    model = load_model(trained / "finetune")
    model.card = replace(model.card, classes=ODD_NAMES)
    save_model(model, tmp_path / "model")
    odd = tmp_path / os.fsdecode(b"\xff \x1b[2J.mp4")
    odd.write_bytes(files[0].read_bytes())
    command = (sys.executable, "-m", "tubelet", "predict", tmp_path / "model", odd, "--top", "12")
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    run = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert run.stdout.decode("ascii").count("%  ") == 12
    assert b"\x1b" not in run.stdout


@pytest.mark.slow
def test_clip_settings_change_single_parts(tubelet: Run, trained: Path, files: list[Path]) -> None:
    def top(*settings: str) -> list[dict[str, Any]]:
        code, out, err = tubelet("predict", trained / "finetune", files[0], "--format", "jsonl", *settings)
        assert code == 0, err
        return json.loads(out)["top"]

    model = load_model(trained / "finetune")
    dense = public.predict(model, files[0], clip=public.DenseClip(frames=4, stride=1))
    found = top("clip.kind=dense", "clip.stride=1")
    assert_top(found, dense)
    assert top() == top("clip.kind=segment") != found
    for setting in ("clip.strid=2", "clip.kind=dens", "clip.frames=x", "clip.frames=8"):
        code, out, err = tubelet("predict", trained / "finetune", files[0], setting)
        assert (code, out) == (2, ""), setting
        assert setting.partition("=")[0] in err, setting


@pytest.fixture
def standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    path = tmp_path / "stdin"
    path.touch()
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)

        def give(content: bytes) -> None:
            path.write_bytes(content)
            file.seek(0)

        yield give


def test_paths_come_from_standard_input(
    tubelet: Run, trained: Path, files: list[Path], motion: Path, standard_input: Callable[[bytes], None]
) -> None:
    standard_input(f"{files[0]}\r\n\n/nowhere.mp4\n{motion / 'videos/val'}\n/tmp/*.x".encode())
    code, out, err = tubelet("predict", trained / "finetune", "-", "--format", "jsonl")
    assert (code, len(out.splitlines()), named(out)[0]) == (2, 13, str(files[0]))
    assert "2 of 15 videos could not be read" in err
    standard_input(b"\n")
    code, out, err = tubelet("predict", trained / "finetune", "-")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    code, out, err = tubelet("predict", trained / "finetune", "-", files[0])
    assert (code, out, "-:" in err) == (2, "", True)


@pytest.mark.slow
def test_an_answer_comes_before_the_next_path(trained: Path, files: list[Path]) -> None:
    command = (sys.executable, "-m", "tubelet", "predict", trained / "finetune", "-", "--format", "jsonl")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdin
        assert run.stdout
        for file in files[:3]:
            run.stdin.write(f"{file}\n")
            run.stdin.flush()
            assert named(run.stdout.readline()) == [str(file)]
        run.stdin.close()
        assert run.wait() == 0


@pytest.mark.slow
def test_a_closed_pipe_ends_it_with_one_message(trained: Path, motion: Path) -> None:
    folder = motion / "videos/test"
    command = f"{sys.executable} -m tubelet predict {trained / 'finetune'} {folder} --format jsonl"
    script = f"set -o pipefail; {command} | head -1"
    run = subprocess.run(("bash", "-c", script), capture_output=True, text=True)
    assert (run.returncode, len(run.stdout.splitlines())) == (141, 1)
    assert "of 12 videos" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_ctrl_c_keeps_what_is_printed(
    tubelet: Run, trained: Path, motion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Predictor.stream

    def interrupted(predictor: Predictor, samples: Sequence[Sample]) -> Iterator[object]:
        for number, found in enumerate(stream(predictor, samples)):
            if number == 3:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(Predictor, "stream", interrupted)
    code, out, err = tubelet("predict", trained / "finetune", motion / "videos/test", "--format", "jsonl")
    assert (code, len(out.splitlines())) == (128 + signal.SIGINT, 3)
    assert err == "tubelet: stopped after 3 of 12 videos\n"


@pytest.mark.slow
def test_windows_are_printed_with_their_times(
    tubelet: Run, trained: Path, videos: Path, files: list[Path]
) -> None:
    model, video = trained / "finetune", videos / "11.mp4"  # 41 frames, 1.64 s
    words = ("predict", model, video, "--window", "0.8s", "--hop", "0.4s", "--format")
    code, out, _ = tubelet(*words, "jsonl")
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, [each["start"] for each in found]) == (0, [0, 0.4, 0.8, 0.84])
    assert [each["end"] for each in found] == [0.8, 1.2, 1.6, 1.64]
    assert_top(found[1]["top"], public.predict(load_model(model), video, start=0.4, end=1.2))
    assert tubelet(*words, "jsonl", "--smooth", 3)[1] != out
    rows = list(csv.DictReader(tubelet(*words, "csv", "--top", 1)[1].splitlines()))
    assert [(row["start"], row["end"]) for row in rows][:2] == [("0", "0.8"), ("0.4", "1.2")]
    assert "0.40-1.20 s" in tubelet(*words, "table")[1]
    code, out, _ = tubelet(*words, "srt")
    assert (code, out.splitlines()[0]) == (0, "1")
    assert out.splitlines()[1].startswith("00:00:00,000 --> ")
    code, out, err = tubelet(
        "predict", model, videos / "gone.mp4", video, "--window", "16f", "--format", "jsonl"
    )
    assert (code, len(out.splitlines()), err.count("gone.mp4")) == (2, 5, 1)
    for wrong, name in (
        (("--window", "2m"), "window"),
        (("--window", "2s", "--hop", "4f"), "hop"),
        (("--hop", "1s"), "--window"),
        (("--smooth", "2"), "--window"),
        (("--format", "srt"), "--window"),
        (("--window", "2s", "--format", "srt", files[0]), "srt"),
    ):
        code, out, err = tubelet("predict", model, video, *wrong)
        assert (code, out, name in err) == (2, "", True), wrong
