"""Hostile lists and settings: fuzzed CSV, JSON, YAML and text, given to the commands that read them."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fault_kinds.mutations import DAMAGES
from fault_kinds.trial import Case, Finished, LimitedProcesses, pick, require, tubelet_here
from tubelet.data.manifest import SPLITS, read_manifest
from tubelet.demo.motion_videos import SyntheticConfig, write_synthetic
from tubelet.errors import UserError
from tubelet.recipe.loading import load_recipe

LIMIT_S = 30.0
_VIDEOS = [f"{number:05d}.mp4" for number in range(6)]
_CLASSES = ["running", "jumping", "playing the violin"]
_ODD_CELLS = (
    "", " ", "\t", "\0", "\n", "\r", "\r\n", '"', "'", ",", ";", "-1", "99999999999999999999", "1e400",
    "nan", "inf", "0x10", "1_000", "٣", "½", "1.0", "null", "None", "true", "[]", "{}",
    "../../../etc/passwd", "/dev/zero", "~", "http://", "https://[::1", "s3://", "file:///etc/passwd", "é",
    "\u202eb", "\ufeff", "\ufffe", "a\u0000b", "%s%n", "{0}", "${HOME}", "=1+1", "x" * 5000, "9" * 5000,
    " 1" * 30_000, ",1" * 30_000, "\ud800", "😀" * 100,
)  # fmt: skip
_ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "shift_jis")
_DEEP = 100_000
_YAML_VALUES = (
    "[" * 3000, "{a: " * 3000, "- " * 3000, "!!python/object/apply:os.mkdir [code-was-run]", "!!float x",
    "!!int x", "!!timestamp x", "!!binary x", "2020-13-45", "9" * 5000, "0b2", "0o9", "1_", ".inf", ".nan",
    "~", "*a", "&a [*a]", "<<", "? a", "|", ">", "%", "@", "`", '"', "'", "{", "]", "\t", "\u0085", "\x07",
    "yes", "1:30:00", "0x1g", "- - a", "{a: 1, a: 2}", "!x y", "!!set {a}", "!!omap [a: 1]",
    "[1, [2, [3]]]", "1e400", "-1", "x" * 100_000, "😀",
)  # fmt: skip
_KEYS = (
    "data.root", "init", "optim.epochs", "optim.betas", "data.clip", "data.clip.kind", "", ".", "a.b.c",
    "data..root", "views", "task", "encoder.dim", "data.augment", "published", "data.root.x",
)  # fmt: skip
_TEXTS = (
    "/data/my #1 set", "2024", "0123", "2020-13-45", "2024-01-02", "1e3", "yes", "no", "on", "12:30:45",
    "a b", "a, b", "/x/{y}", "/x/[y]", "a: b", "-x", "1_000", ".5", "é", "x=y", "/a/&b", "/a/*b", "/a/!b",
    "/a|b", "/a'b", '/a"b',
)  # fmt: skip


def cases(folder: Path, processes: LimitedProcesses) -> list[Case]:
    """Return a case for each kind of file."""
    write_synthetic(folder / "data", SyntheticConfig(size=32, train=6, val=1, test=1), workers=0)
    videos = folder / "data" / "videos" / "train"
    lists = partial(_prepare, processes, videos)
    fuzzed: dict[str, Callable[[np.random.Generator, Path], None]] = {
        "lists of `prepare list`": partial(lists, _list_words),
        "JSON lists of `prepare list`": partial(lists, _json_words),
        "annotations of published data sets": partial(lists, _annotation_words),
        "class names": partial(lists, _class_words),
        "manifests": partial(_manifest, processes),
        "recipes": partial(_recipe, processes),
        "KEY=VALUE": partial(_overrides, processes),
        "text settings": partial(_text_setting, processes),
    }
    return [Case(name, run) for name, run in fuzzed.items()]


# Lists

Words = Callable[[np.random.Generator, Path, Path], list[str]]


def _prepare(
    processes: LimitedProcesses, videos: Path, words: Words, rng: np.random.Generator, folder: Path
) -> None:
    """Prepare a data set from a fuzzed list: it ends with one message, or with lists that can be read."""
    arguments = ["prepare", *words(rng, folder, videos), "--out", str(folder / "out"), "--workers", "0"]
    terminal = pick(rng, ("utf-8", "cp1252", "ascii"))
    finished = processes.call(tubelet_here, arguments, terminal, limit_s=LIMIT_S)
    if finished.code == 0:
        processes.call(require_readable, folder / "out", limit_s=LIMIT_S)
    else:
        finished.require_one_message()


def require_readable(out: Path) -> None:
    """Raise a Failure unless the lists of a data set can be read, and the labels are those of the source."""
    for split in SPLITS:
        if (out / f"{split}.csv").is_file():
            try:
                manifest = read_manifest(out, split)
            except UserError as error:
                require(False, f"wrote a list that cannot be read: {error}")
            else:
                wrong = [name for name in manifest.classes if name != name.strip() or not name]
                require(not wrong, f"wrote the class name {wrong[:1]}")


def _list_words(rng: np.random.Generator, folder: Path, videos: Path) -> list[str]:
    labeled = [(video, number % 3) for number, video in enumerate(_VIDEOS)]
    header = [["video_path,label,split"], ["path,class_name"], ["path", "label"], []][int(rng.integers(4))]
    separator = pick(rng, (" ", ",", ";", "\t"))
    lines = [separator.join((video, str(label))) for video, label in labeled]
    if header:
        lines = [*header[:1], *(f"{video},{_CLASSES[label]},train" for video, label in labeled)]
    path = folder / f"train{pick(rng, ('.txt', '.csv', '.tsv'))}"
    path.write_bytes(_fuzzed("\n".join(lines) + "\n", rng))
    return ["list", str(path), "--root", str(videos)]


def _json_words(rng: np.random.Generator, folder: Path, videos: Path) -> list[str]:
    rows: list[Any] = [{"id": video, "label_idx": k % 3, "split": "train"} for k, video in enumerate(_VIDEOS)]
    content: Any = pick(rng, (rows, {row["id"]: row for row in rows}))
    by_line = rng.random() < 0.3
    text = "\n".join(map(json.dumps, rows)) if by_line else json.dumps(content, indent=1)
    if rng.random() < 0.5:
        old = pick(rng, ("0", "1", '"train"', '"00001.mp4"', '"id"'))
        text = text.replace(old, _odd_json(rng), 1)
    path = folder / ("train.jsonl" if by_line else "train.json")
    path.write_bytes(_fuzzed(text, rng) if rng.random() < 0.5 else _encoded(text, "utf-8"))
    return ["list", str(path), "--root", str(videos)]


def _odd_json(rng: np.random.Generator) -> str:
    odd = json.dumps(pick(rng, _ODD_CELLS))
    nested = (
        "[" * _DEEP + "]" * _DEEP,
        '{"a":' * _DEEP + "1" + "}" * _DEEP,
        "NaN",
        "1e400",
        "-0",
        "9" * 5000,
        "null",
    )
    return odd if rng.random() < 0.5 else pick(rng, nested)


def _annotation_words(rng: np.random.Generator, folder: Path, videos: Path) -> list[str]:
    source = folder / "source"
    source.mkdir()
    numbered = list(enumerate(_VIDEOS))
    stems = [Path(video).stem for video in _VIDEOS]
    rows = "\n".join(f"{_CLASSES[k % 3]},{stem},0,10,train" for k, stem in enumerate(stems))
    templates = json.dumps({name: str(k) for k, name in enumerate(_CLASSES)})
    listed = json.dumps([{"id": stem, "template": _CLASSES[k % 3]} for k, stem in enumerate(stems)])
    files: dict[str, dict[str, str]] = {
        "kinetics400": {"train.csv": f"label,youtube_id,time_start,time_end,split\n{rows}\n"},
        "ssv2": {"train.json": listed, "labels.json": templates},
        "ucf101": {
            "classInd.txt": "".join(f"{k} {name.replace(' ', '')}\n" for k, name in enumerate(_CLASSES, 1)),
            "trainlist01.txt": "".join(f"running/{video} 1\n" for _, video in numbered),
            "testlist01.txt": f"running/{_VIDEOS[0]}\n",
        },
        "hmdb51": {f"{name}_test_split1.txt": f"{_VIDEOS[k]} 1\n" for k, name in enumerate(("run", "walk"))},
    }
    kind = pick(rng, list(files))
    odd = pick(rng, list(files[kind]))
    for name, text in files[kind].items():
        (source / name).write_bytes(_fuzzed(text, rng) if name == odd else text.encode())
    return [kind, str(source), "--root", str(videos)]


def _class_words(rng: np.random.Generator, folder: Path, videos: Path) -> list[str]:
    names = {
        "classes.txt": "\n".join(_CLASSES),
        "numbered.txt": "\n".join(f"{k} {name}" for k, name in enumerate(_CLASSES)),
        "numbered.csv": "id,name\n" + "\n".join(f"{k},{name}" for k, name in enumerate(_CLASSES)),
        "numbered.json": json.dumps({name: k for k, name in enumerate(_CLASSES)}),
    }
    name = pick(rng, list(names))
    text = names[name]
    if name.endswith(".json") and rng.random() < 0.5:
        text = text.replace(pick(rng, ("0", "1", '"running"')), _odd_json(rng), 1)
    (folder / name).write_bytes(_fuzzed(text, rng))
    (folder / "train.txt").write_text("".join(f"{video} {k % 3}\n" for k, video in enumerate(_VIDEOS)))
    return ["list", str(folder / "train.txt"), "--root", str(videos), "--classes", str(folder / name)]


def _manifest(processes: LimitedProcesses, rng: np.random.Generator, folder: Path) -> None:
    """Read a fuzzed data set."""
    lines = ["path,label,frames,fps", *(f"videos/{video},{k % 3},30,25.0" for k, video in enumerate(_VIDEOS))]
    texts = {"train.csv": "\n".join(lines) + "\n", "classes.txt": "\n".join(_CLASSES) + "\n"}
    odd = pick(rng, list(texts))
    for name, text in texts.items():
        (folder / name).write_bytes(_fuzzed(text, rng) if name == odd else text.encode())
    processes.call(read_or_refuse, folder, limit_s=LIMIT_S)


def read_or_refuse(folder: Path) -> None:
    """Raise an error unless a data set is read, or refused with a short message that names its file."""
    try:
        read_manifest(folder, "train")
    except UserError as error:
        message = str(error)
        require(str(folder) in message, f"the message does not name the file: {message[:200]}")
        require(len(message) < 10_000, f"a message of {len(message):,} characters")


# Settings

_RECIPE = """task: finetune
data:
  root: data
  clip: {kind: segment, frames: 4}
  augment: {crop: {kind: resized, scale: [0.6, 1.0]}}
encoder: {frames: 4, image_size: 32, patch_size: 8, dim: 32, depth: 2, heads: 2, mlp_dim: 64}
optim: {base_lr: 1.0e-2, batch_size: 8, epochs: 2, betas: [0.9, 0.999]}
views: {clips: 2, crops: 1}
"""
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


def _recipe(processes: LimitedProcesses, rng: np.random.Generator, folder: Path) -> None:
    """Show a fuzzed recipe: it ends with one message, or with settings that read back the same."""
    path, text = folder / "odd.yaml", _RECIPE
    match int(rng.integers(4)):
        case 0:
            old = pick(
                rng,
                ("finetune", "data", "4", "32", "1.0e-2", "[0.6, 1.0]", "segment", "{clips: 2, crops: 1}"),
            )
            text = text.replace(old, pick(rng, _YAML_VALUES), 1)
        case 1:
            lines = text.splitlines(keepends=True)
            text = "".join([*lines, pick(rng, lines)]) if rng.random() < 0.5 else _BOMB + text
    path.write_bytes(_fuzzed(text, rng) if rng.random() < 0.5 else _encoded(text, "utf-8"))
    processes.call(show_or_refuse, [str(path)], folder, limit_s=LIMIT_S)
    require(not (folder / "code-was-run").exists() and not Path("code-was-run").exists(), "code was run")


def show_or_refuse(words: list[str], folder: Path) -> Finished:
    """Print a recipe's settings; raise a Failure unless they read back the same or there is one message."""
    finished = tubelet_here(["recipe", "show", *words])
    if finished.code == 0:
        path = folder / "shown.yaml"
        path.write_text(finished.out, encoding="utf-8", errors="surrogatepass")
        require(load_recipe(str(path)) == load_recipe(*words), "its settings read back otherwise")
    else:
        finished.require_one_message()
    return finished


def _overrides(processes: LimitedProcesses, rng: np.random.Generator, folder: Path) -> None:
    """Show a recipe with odd overrides."""
    values = [*_YAML_VALUES, *(cell for cell in _ODD_CELLS if not {"\0", "\ud800"} & {*cell})]
    words = [f"{pick(rng, _KEYS)}={pick(rng, values)}" for _ in range(rng.integers(1, 4))]
    processes.call(show_or_refuse, ["demo/finetune_full", *words], folder, limit_s=LIMIT_S)
    require(not Path("code-was-run").exists(), "code was run")


def _text_setting(processes: LimitedProcesses, rng: np.random.Generator, folder: Path) -> None:
    """Give a path on the command line: it is taken literally, or there is one message."""
    key = pick(rng, ("data.root", "init"))
    processes.call(literal_or_refused, key, pick(rng, _TEXTS), limit_s=LIMIT_S)


def literal_or_refused(key: str, text: str) -> None:
    """Raise a Failure unless a setting that is a text is the given one."""
    try:
        recipe = load_recipe("demo/finetune_full", f"{key}={text}")
    except UserError as error:
        require(key in str(error), f"the message does not name {key}: {error}")
        return
    found: Any = recipe
    for part in key.split("."):
        found = getattr(found, part)
    require(str(found) == text, f"{key}={text} is read as {found}")


# Fuzzing


def _fuzzed(text: str, rng: np.random.Generator) -> bytes:
    """Damage a text's cells, lines, encoding or bytes, usually once."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        lines = text.split("\n")
        number = int(rng.integers(len(lines)))
        match int(rng.integers(7)):
            case 0:
                words = lines[number].split(pick(rng, (",", " ", "\t", ":")))
                words[int(rng.integers(len(words)))] = pick(rng, _ODD_CELLS)
                lines[number] = ",".join(words)
            case 1:
                position = int(rng.integers(len(lines[number]) + 1))
                lines[number] = lines[number][:position] + pick(rng, _ODD_CELLS) + lines[number][position:]
            case 2:
                lines.insert(number, pick(rng, lines))
            case 3:
                del lines[number]
            case 4:
                lines[number] = pick(rng, _ODD_CELLS)
            case 5:
                random.Random(int(rng.integers(2**32))).shuffle(lines)
            case 6:
                lines = [line.replace(",", pick(rng, (";", "\t", " ", "|"))) for line in lines]
        text = pick(rng, ("\n", "\n", "\n", "\r\n", "\r")).join(lines)
    data = _encoded(text, "utf-8" if rng.random() < 0.8 else pick(rng, _ENCODINGS))
    return pick(rng, list(DAMAGES.values()))(data, rng) if data and rng.random() < 0.15 else data


def _encoded(text: str, encoding: str) -> bytes:
    return text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
