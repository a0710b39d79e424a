"""Files that are whole or not there."""

import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tubelet.errors import UserError
from tubelet.files import (
    ChecksumWriter,
    checksum_matches,
    discard_partials,
    exclusive,
    held_open,
    parse_json,
    replacing,
    replacing_in,
    require_writable,
)


def test_replacing_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    with path.open() as reader:
        with replacing(path) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert reader.read() == "old"  # who reads meanwhile sees the whole old file
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_only_one_of_many_processes_uses_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    program = """
import sys, time
from pathlib import Path
from tubelet.errors import UserError
from tubelet.files import exclusive
try:
    with exclusive(Path(sys.argv[1])):
        print("in", flush=True)
        sys.stdin.read()
except UserError:
    print("out", flush=True)
"""
    others = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [other.stdout.readline().strip() for other in others if other.stdout]
    assert sorted(said) == ["in", "out", "out", "out"]
    with pytest.raises(UserError, match="is in use by another process"), exclusive(tmp_path):
        pass
    for other in others:
        other.communicate()
    with exclusive(tmp_path):
        """They are gone."""


def test_a_folder_that_is_held_open_is_known_by_itself(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    folder = tmp_path / "run"
    for change in (shutil.rmtree, lambda path: path.rename(tmp_path / "moved")):
        folder.mkdir()
        with held_open(folder) as is_in_place:
            (folder / "a.txt").touch()
            assert is_in_place()
            change(folder)
            assert not is_in_place()
            folder.mkdir()
            assert not is_in_place()
        folder.rmdir()


def test_a_checksum_is_of_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for content in (b"", b"a", b"\0" * 1000):
        with ChecksumWriter(path) as file:
            file.write(content[:3])
            file.write(content[3:])
            file.finish()
        assert checksum_matches(path)
        written = path.read_bytes()
        assert written == content + f"\ncrc32 {zlib.crc32(content):08x}\n".encode()
        for wrong in (written[:-1], written + b"\n", written[1:], content):
            path.write_bytes(wrong)
            assert not checksum_matches(path)


def test_what_cannot_be_written_is_reported_before(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "a.npz")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(UserError, match="new cannot be written: Is a directory"):
        require_writable(tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"a\.npz cannot be written: (Not a directory|File exists)"):
        require_writable(tmp_path / "file" / "a.npz")


def test_a_new_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "model"

    def write(*names: str, fails: bool = False) -> None:
        with replacing_in(folder) as temporary:
            for name in names:
                (temporary / name).write_text("new")
            if fails:
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write("weights", fails=True)
    assert list(folder.parent.iterdir()) == []
    (folder.parent / ".model.partial").mkdir()
    (folder.parent / ".model.partial" / "left by a killed process").touch()
    write("weights", "config")
    assert sorted(path.name for path in folder.iterdir()) == ["config", "weights"]
    assert list(folder.parent.iterdir()) == [folder]

    (folder / "notes").write_text("old")
    (folder / "weights").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write("weights", fails=True)
    assert (folder / "weights").read_text() == "old"
    write("weights")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "config": "new", "notes": "old", "weights": "new",
    }  # fmt: skip


def test_temporary_files_and_folders_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.partial").touch()
    (tmp_path / ".b.partial").mkdir()
    (tmp_path / ".b.partial" / "c").touch()
    (tmp_path / "d").touch()
    discard_partials(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "d"]


def test_a_key_that_json_gives_twice_is_named() -> None:
    for text in ('{"run": 0, "jump": 1, "run": 2}', '[{"a": {"run": [], "x": 1, "run": []}}]'):
        with pytest.raises(UserError, match=r"x\.json.*'run'.*twice"):
            parse_json("x.json", text)
    assert parse_json("x.json", '[{"a": 1}, {"a": {"a": 2}}]') == [{"a": 1}, {"a": {"a": 2}}]
