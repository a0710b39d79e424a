"""Check every video of a plan, encode it where that is asked for, and write the manifest and a report."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

from tubelet.data.manifest import SPLITS, Sample, read_manifest, write_manifest
from tubelet.errors import UserError
from tubelet.machine import available_cores
from tubelet.prepare.check import Checked, Stamp, check_file, same_content, stamp_of
from tubelet.prepare.encode import Encoded, EncodeJob, encode_file
from tubelet.prepare.plan import Item, Plan
from tubelet.prepare.pool import Lost, work
from tubelet.prepare.preview import save_preview
from tubelet.prepare.record import Record
from tubelet.prepare.report import Report, write_report

_CHECK_SECONDS = 300.0
_NO_TEXT = "its name is no UTF-8 text; rename it"
_PART_OF_FOLDER = "a part of a folder of pictures; --encode makes a video of it"
_WRITES = (*(f"{split}.csv" for split in SPLITS), "classes.txt", "report.txt", "preview.png")


class ShowsProgress(Protocol):
    """What tells how far a job has come, such as `tubelet.progress.Bar`."""

    def show(self, done: int, total: int) -> None:
        """So many of so many are done."""


class MakesBar(Protocol):
    """Makes a bar for a job, given in a few words what it is."""

    def __call__(self, what: str) -> AbstractContextManager[ShowsProgress]:
        """The bar, to be entered."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How a data set is prepared.

    Attributes:
        encode: write every video anew in the form that trains fastest, to OUT/videos.
        short_side: of those, in pixels; smaller videos keep their size.
        preview: draw OUT/preview.png.
        workers: processes; None for as many as cores, 0 for this one.
        seed: of the preview.
    """

    encode: bool = False
    short_side: int = 256
    preview: bool = False
    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.short_side < 16:
            raise UserError(f"the short side must be at least 16 pixels, found {self.short_side}")


def prepare(plan: Plan, out: Path, config: PrepareConfig, bar: MakesBar) -> Report:
    """Write the manifest of all videos of a plan that can be read; run again, it goes on where it stopped.

    Args:
        plan: the videos.
        out: the folder for train.csv and so on, report.txt and, where asked for, videos and preview.png.
        config: how.
        bar: for the progress.

    Raises:
        UserError: no video can be used, or the folder holds another data set.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder with --out")
    plan = replace(plan, items=tuple(dict.fromkeys(_absolute(item) for item in plan.items)))
    out.mkdir(parents=True, exist_ok=True)
    record = Record(out)
    record.claim(out, _WRITES)
    workers = available_cores() if config.workers is None else config.workers
    with record:
        record.wrote(_WRITES)
        checks = _check(plan.items, record, workers, bar)
        results: dict[Item, Sample | str] = {
            item: _sample(item, checks[str(item.path)], out, plan.several) for item in plan.items
        }
        odd = {item.name: checks[str(item.path)].note for item in plan.items if checks[str(item.path)].note}
        if config.encode:
            odd |= _encode(results, checks, record, out, config.short_side, workers, bar, plan.several)
        report = _report(plan, results, checks, odd)
        _write(out, plan, report)
    if not any(report.samples.values()):
        raise UserError(_nothing(report, out))
    if config.preview:
        split = next(split for split in SPLITS if report.samples.get(split))
        save_preview(read_manifest(out, split), out / "preview.png", seed=config.seed)
    return report


def _absolute(item: Item) -> Item:
    return replace(item, path=Path(os.path.abspath(item.path)))  # noqa: PTH100


def _check(items: Sequence[Item], record: Record, workers: int, bar: MakesBar) -> dict[str, Checked]:
    paths = list(dict.fromkeys(str(item.path) for item in items))
    checks = {path: known for path in paths if (known := record.checked(path))}
    checks |= {path: Checked(path, Stamp(-1, -1), error=_NO_TEXT) for path in paths if not _is_text(path)}
    rest = [path for path in paths if path not in checks]
    with bar("checking videos") as progress:
        progress.show(len(checks), len(paths))
        for path, result in work(check_file, rest, workers=min(workers, len(rest)), seconds=_CHECK_SECONDS):
            if isinstance(result, Lost):  # not written down: it may have been the machine's fault
                checks[path] = Checked(path, stamp_of(path), error=result.reason)
            else:
                checks[path] = result
                record.add_check(result)
            progress.show(len(checks), len(paths))
    return checks


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)  # how Python keeps other bytes


def _sample(item: Item, check: Checked, out: Path, several: bool) -> Sample | str:
    """The line for a video as it is, or why there is none."""
    if check.error:
        return check.error
    if item.offset is not None and item.frames is not None and item.frames < check.frames:
        return _PART_OF_FOLDER
    path = (item.path.relative_to(out) if item.path.is_relative_to(out) else item.path).as_posix()
    return _line(item, path, check, several)


def _line(item: Item, path: str, found: Checked | Encoded, several: bool) -> Sample:
    return Sample(
        path,
        label=item.labels[0] if item.labels and not several else None,
        frames=found.frames,
        fps=found.fps or None,
        width=found.width,
        height=found.height,
        codec=found.codec,
        labels=item.labels if several else (),
    )


# -------------------------------------------------------------------------------------------------- encoding


def _encode(
    results: dict[Item, Sample | str],
    checks: dict[str, Checked],
    record: Record,
    out: Path,
    short_side: int,
    workers: int,
    bar: MakesBar,
    several: bool,
) -> dict[str, str]:
    """Encode what can be read, put the new files into the results, and tell what is lost by name."""
    usable = [
        item for item, result in results.items() if result == _PART_OF_FOLDER or isinstance(result, Sample)
    ]
    targets = _targets(usable, out / "videos")
    jobs: dict[EncodeJob, list[Item]] = {}
    for item in usable:
        part = (item.offset, item.frames) if item.path.is_dir() else (None, None)
        stamp = checks[str(item.path)].stamp
        job = EncodeJob.of(str(item.path), stamp, targets[item], short_side, *part)
        jobs.setdefault(job, []).append(item)
    done = {job: known for job in jobs if (known := record.encoded(job))}
    rest = [job for job in jobs if job not in done]
    with bar("encoding videos") as progress:
        progress.show(len(done), len(jobs))
        for job, result in work(encode_file, rest, workers=min(workers, len(rest))):
            if isinstance(result, Lost):
                done[job] = Encoded(error=result.reason)
            else:
                done[job] = result
                record.add_encoded(job, result)
            progress.show(len(done), len(jobs))
    odd = {}
    for job, items in jobs.items():
        for item in items:
            written = done[job]
            path = targets[item].relative_to(out).as_posix()
            results[item] = written.error or _line(item, path, written, several)
            if written.note:
                odd[item.name] = written.note
    return odd


def _targets(items: Sequence[Item], videos: Path) -> dict[Item, Path]:
    """The file that each video is written to: its own relative path, ending in .mp4."""
    shortened: dict[str, set[Path]] = {}
    for item in items:
        shortened.setdefault(_mp4(item, short=True).casefold(), set()).add(item.path)
    targets = {}
    for item in items:
        short = _mp4(item, short=True)
        alone = len(shortened[short.casefold()]) == 1
        targets[item] = videos / (short if alone else _mp4(item, short=False))
        if item.path == targets[item] or item.path.is_relative_to(videos):
            raise UserError(
                f"{item.path} lies where --encode writes; choose another folder than the videos' with --out"
            )
    return targets


def _mp4(item: Item, *, short: bool) -> str:
    name = PurePosixPath(item.name)
    if item.offset is not None:
        name = name.with_name(f"{name.name}_{item.offset:06}")
    keep = not short or item.path.is_dir()
    return (name.with_name(f"{name.name}.mp4") if keep else name.with_suffix(".mp4")).as_posix()


# ---------------------------------------------------------------------------------------------- what came of


def _report(
    plan: Plan, results: dict[Item, Sample | str], checks: dict[str, Checked], odd: dict[str, str]
) -> Report:
    samples: dict[str, list[Sample]] = {}
    broken: dict[str, str] = {}
    for item, result in results.items():
        if isinstance(result, str):
            broken[item.name] = result
        else:
            samples.setdefault(item.split, []).append(result)
    names = {str(item.path): item.name for item in plan.items}
    groups = same_content([checks[path] for path in names if not checks[path].error])
    alike = {path: k for k, paths in enumerate(groups) for path in paths}
    splits: dict[object, dict[str, str]] = {}
    repeated = any("val.csv repeats test.csv" in note for note in plan.notes)
    for item in plan.items:
        split = "test" if repeated and item.split == "val" else item.split
        path = str(item.path)
        if not isinstance(results[item], str):
            splits.setdefault(alike.get(path, path), {}).setdefault(split, item.name)
    across = {
        " = ".join(dict.fromkeys(by_split.values())): " and ".join(s for s in SPLITS if s in by_split)
        for by_split in splits.values()
        if len(by_split) > 1
    }
    duplicates = [[names[path] for path in paths] for paths in groups]
    return Report(plan, dict(samples), broken, odd, duplicates, across)


def _write(out: Path, plan: Plan, report: Report) -> None:
    """The lists that there are samples for; those of an earlier run that there are none for go."""
    for split in SPLITS:
        if report.samples.get(split):
            write_manifest(out, split, report.samples[split], plan.classes)
        else:
            (out / f"{split}.csv").unlink(missing_ok=True)
    if not plan.classes:
        (out / "classes.txt").unlink(missing_ok=True)
    write_report(report, out / "report.txt")


def _nothing(report: Report, out: Path) -> str:
    name, why = next(iter(report.broken.items()))
    name = name.encode("utf-8", "replace").decode()
    return (
        f"none of the {len(report.broken)} videos can be used, {name} for one: {why}; "
        f"{out / 'report.txt'} lists them all"
    )
