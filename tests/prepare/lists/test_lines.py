"""Lines of any length are read in time that is linear in their length."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.prepare.lists.test_tables import rows_of

LENGTH = 60_000


def hostile() -> list[str]:
    units = [
        " 1",
        " -1",
        " 1.5",
        ",1",
        ";",
        "\t",
        " ",
        " \t",
        "1",
        '""',
        ".mp4?",
        ".mp4 ",
        "a ",
        "[",
        "{",
        "(",
        "1:",
        "_1",
    ]
    return [
        f"{begin}{unit * (LENGTH // len(unit))}{end}"
        for unit in units
        for begin, end in (("a", ""), ("a", "x"), ("a.mp4", "x"), ('"', "x"), ("", "\x0bx"))
    ]


@pytest.mark.slow
def test_no_line_takes_more_than_linear_time(tmp_path: Path):
    program = """
import sys
from pathlib import Path
from tubelet.errors import UserError
from tubelet.prepare.lists.annotations import read_hmdb51
from tubelet.prepare.lists.class_names import read_classes
from tubelet.prepare.lists.tables import read_list
for path in sorted(Path(sys.argv[1]).iterdir()):
    for read in (read_list, read_classes, lambda path: read_hmdb51([path])):
        try:
            read(path)
        except UserError as error:
            assert len(str(error)) < 2000, str(error)[:3000]
"""
    for k, line in enumerate(hostile()):
        (tmp_path / f"{k:03}_test_split1.txt").write_text(f"{line}\nb.mp4 1\n")
    # 90 files of 60 kB: a few seconds if linear, hours if quadratic; the limit only guards against hanging
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=600)


def test_numbers_behind_a_path_of_any_form(tmp_path: Path):
    for line, name, labels in [
        ("a.mp4?x=1 3", "a.mp4?x=1", (3,)),
        ("a.mp4\u00a03", "a.mp4", (3,)),
        ("my clip 2.5 3", "my clip 2.5", (3,)),
        ("klip,,3", "klip", (3,)),
        ("a.mp4 ,  run fast", "a.mp4", ("run fast",)),
    ]:
        (row,) = rows_of(tmp_path, line + "\n")
        assert (row.name, row.labels) == (name, labels), line


def test_times_of_lines(tmp_path: Path):
    for text, columns, expected in [
        ("a b.mp4 1.5 3 7\nc.mp4 2 4.25 0\n", (), [("a b.mp4", 1.5, 3, (7,)), ("c.mp4", 2, 4.25, (0,))]),
        ("a b 0:01.5,1:00:03,7\n", (), [("a b", 1.5, 3603, (7,))]),
        ("a.mp4 1 3 7\n", ("path", "start", "end", "label"), [("a.mp4", 1, 3, (7,))]),
        ("a 7 1.5\n", ("path", "label", "start"), [("a", 1.5, None, (7,))]),
    ]:
        rows = rows_of(tmp_path, text, columns=columns)
        assert [(row.name, row.start, row.end, row.labels) for row in rows] == expected, text
    with pytest.raises(ValueError, match=r"train.csv:1: expected a time in seconds, found 'x'"):
        rows_of(tmp_path, "a.mp4,x,3,1\n", columns=("path", "start", "end", "label"))
