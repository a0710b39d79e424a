"""Check every video of a plan, encode it where that is asked for, and write the manifest and a report."""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tubelet.data.manifest import SPLITS, Sample, read_manifest, write_manifest
from tubelet.errors import UserError
from tubelet.files import discard_partials
from tubelet.machine import available_cores
from tubelet.prepare.check import SIZE_CHANGES, Checked, check_file
from tubelet.prepare.copies import draw_again, in_several_classes, in_several_splits, same_content
from tubelet.prepare.encode import Encoded, EncodeJob, encode_file, part_of, targets_of
from tubelet.prepare.journal import Record
from tubelet.prepare.places import Stamp, stamps_of
from tubelet.prepare.plan import Facts, Item, Plan, named
from tubelet.prepare.pool import JobFailed, run_jobs
from tubelet.prepare.preview import save_preview
from tubelet.prepare.report import Report, write_report
from tubelet.video.remote import RemoteError, remote_url

PREVIEW = "preview.png"  # in the data set's folder


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How a data set is prepared.

    Attributes:
        encode: write every video anew in the form that trains fastest, to OUT/videos.
        short_side: of those, in pixels; smaller videos keep their size.
        preview: draw OUT/preview.png.
        workers: processes; None for as many as cores, 0 for this one.

    Raises:
        UserError: the short side is below 16 pixels.
    """

    encode: bool = False
    short_side: int = 256
    preview: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.short_side < 16:
            raise UserError(f"the short side must be at least 16 pixels, found {self.short_side}")


_SECONDS = 300.0  # to check a file, whatever it holds
_SECONDS_A_FRAME = 1.0  # to encode it: slow machines do a few frames of 4K a second
_NO_TEXT = "its name is no UTF-8 text; rename it"
_PART_OF_FOLDER = "a part of a folder of pictures; --encode makes a video of it"
_LISTS = (*(f"{split}.csv" for split in SPLITS), "classes.txt")
_WRITES = (*_LISTS, "report.txt", PREVIEW)


class ShowsProgress(Protocol):
    """What tells how far a job has come, such as `tubelet.progress.Bar`."""

    def show(self, done: int, total: int) -> None:
        """So many of so many are done."""


class MakesBar(Protocol):
    """Makes a bar for a job, given in a few words what it is."""

    def __call__(self, what: str) -> AbstractContextManager[ShowsProgress]:
        """The bar, to be entered."""


def prepare(plan: Plan, out: Path, config: PrepareConfig, bar: MakesBar) -> Report:
    """Write the manifest of all videos of a plan that can be read; run again, it goes on where it stopped.

    Args:
        plan: the videos.
        out: the folder for train.csv and so on, report.txt and, where asked for, videos and preview.png.
        config: how.
        bar: for the progress.

    Raises:
        UserError: no video can be used, or the folder holds another data set or is being written already.
    """
    if url := remote_url(out):
        raise UserError(f"{url} is elsewhere; choose a folder on this machine with --out")
    out = Path(os.path.abspath(out))  # noqa: PTH100
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder with --out")
    plan, twice = _without_repeated(plan)
    out.mkdir(parents=True, exist_ok=True)
    workers = available_cores() if config.workers is None else config.workers
    with Record(out) as record:
        record.claim(_WRITES, plan.origin)
        record.wrote(_WRITES)
        record.made_by(plan.origin)
        stamps = _stamps(plan.items, bar)
        checks = _check(stamps, record, workers, bar)
        plan, missing = _without_missing(plan, stamps)
        paths = dict.fromkeys(item.path for item in plan.items)
        usable = ("", SIZE_CHANGES) if config.encode else ("",)
        broken = {path for path in paths if checks[path].error not in usable}
        groups = same_content(checks[path] for path in paths if path not in broken)
        plan = draw_again(plan, groups, broken)
        results: dict[Item, Sample | str] = {
            item: _sample(item, checks[item.path], out, plan.multi_label) for item in plan.items
        }
        odd = {item: note for item in plan.items if (note := _note(item, checks[item.path]))}
        if config.encode:
            odd |= _encode(
                results, checks, stamps, record, out, config.short_side, workers, bar, plan.multi_label
            )
        report = _report(plan, results, missing, twice, groups, odd, record)
        _write(out, plan, report, keep_preview=not config.preview)
        if not any(report.samples.values()):
            raise UserError(_nothing(report, out))
        if config.preview:
            split = next(split for split in SPLITS if report.samples.get(split))
            save_preview(read_manifest(out, split), out / PREVIEW)
    return report


def _stamps(items: Sequence[Item], bar: MakesBar) -> dict[str, Stamp | OSError]:
    """What each file is now, or why that is not known."""
    known: dict[str, Stamp | OSError] = {item.path: item.stamp for item in items if item.stamp}
    rest = list(dict.fromkeys(item.path for item in items if item.path not in known))
    if not any(map(remote_url, rest)):
        return known | stamps_of(rest, lambda done, total: None)
    with bar("asking for files elsewhere") as progress:
        return known | stamps_of(rest, progress.show)


def _note(item: Item, check: Checked) -> str:
    """What is odd about a video, by itself or beside what its list says."""
    if check.error or check.fps or not item.frames or item.frames < 0:
        return check.note
    if item.frames > check.frames:
        return f"the list says more pictures than its {check.frames}"
    if item.offset is None and item.frames < check.frames:
        return f"the list says {item.frames} pictures of its {check.frames}; all are used"
    return check.note


def _without_repeated(plan: Plan) -> tuple[Plan, list[str]]:
    """The plan with each video of a split and of a class once, and the lines that say it again."""
    items = dict.fromkeys(plan.items)
    first = {id(item) for item in items}
    twice = [named(item) for item in plan.items if id(item) not in first]
    return replace(plan, items=tuple(items)), twice


def _without_missing(plan: Plan, stamps: dict[str, Stamp | OSError]) -> tuple[Plan, list[str]]:
    """The plan without what is listed and not there, and that."""
    gone = {
        item: named(item)
        for item in plan.items
        if item.where and isinstance(stamps[item.path], FileNotFoundError)
    }
    items = tuple(item for item in plan.items if item not in gone)
    return replace(plan, items=items), [*plan.missing, *gone.values()]


def _check(
    stamps: dict[str, Stamp | OSError], record: Record, workers: int, bar: MakesBar
) -> dict[str, Checked]:
    checks: dict[str, Checked] = {}
    waiting: dict[str, Stamp] = {}
    for path, stamp in stamps.items():
        if isinstance(stamp, OSError):
            fetched = isinstance(stamp, RemoteError)
            checks[path] = Checked(
                path, error=f"cannot be fetched ({stamp})" if fetched else str(stamp.strerror)
            )
        elif not _is_text(path):
            checks[path] = Checked(path, error=_NO_TEXT)
        elif known := record.checked(path, stamp):
            checks[path] = known
        else:
            waiting[path] = stamp
    with bar("checking videos") as progress:
        progress.show(len(checks), len(stamps))
        jobs = list(waiting)
        for path, result in run_jobs(
            check_file, jobs, workers=min(workers, len(jobs)), limit_s=lambda path: _SECONDS
        ):
            if isinstance(result, JobFailed):  # not written down: it may have been the machine's fault
                checks[path] = Checked(path, error=result.reason)
            else:
                checks[path] = result
                record.add_check(waiting[path], result)
            progress.show(len(checks), len(stamps))
    return checks


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)  # how Python keeps other bytes


def _sample(item: Item, check: Checked, out: Path, multi_label: bool) -> Sample | str:
    """The line for a video as it is, or why there is none."""
    if check.error:
        return check.error
    if item.offset is not None and item.frames is not None and item.frames < check.frames:
        return _PART_OF_FOLDER
    return _line(item, _listed_as(item.path, out), check, multi_label)


def _listed_as(path: str, out: Path) -> str:
    """A place as the manifest has it: below its folder or absolute, or a URL."""
    if remote_url(path):
        return path
    full = Path(path)
    return (full.relative_to(out) if full.is_relative_to(out) else full).as_posix()


def _line(item: Item, path: str, found: Facts, multi_label: bool) -> Sample:
    return Sample(
        path,
        label=item.labels[0] if item.labels and not multi_label else None,
        frames=found.frames,
        fps=found.fps or None,
        width=found.width,
        height=found.height,
        codec=found.codec,
        labels=item.labels if multi_label else (),
    )


def _encode(
    results: dict[Item, Sample | str],
    checks: dict[str, Checked],
    stamps: dict[str, Stamp | OSError],
    record: Record,
    out: Path,
    short_side: int,
    workers: int,
    bar: MakesBar,
    multi_label: bool,
) -> dict[Item, str]:
    """Encode what can be read, put the new files into the results, and tell what is lost."""
    usable = [
        item
        for item, result in results.items()
        if isinstance(result, Sample) or result in (_PART_OF_FOLDER, SIZE_CHANGES)
    ]
    targets = targets_of(usable, out / "videos")
    jobs: dict[EncodeJob, list[Item]] = {}  # lines that mean the same file share one
    for item in usable:
        stamp = stamps[item.path]
        assert isinstance(stamp, Stamp)  # otherwise it was not usable
        job = EncodeJob.of(item.path, stamp, targets[item], short_side, *part_of(item))
        jobs.setdefault(job, []).append(item)
    done = {job: known for job in jobs if (known := record.encoded(job))}
    rest = [job for job in jobs if job not in done]
    with bar("encoding videos") as progress:
        progress.show(len(done), len(jobs))
        for job, result in run_jobs(
            encode_file,
            rest,
            workers=min(workers, len(rest)),
            limit_s=lambda job: _SECONDS + _SECONDS_A_FRAME * checks[job.source].frames,
        ):
            if isinstance(result, JobFailed):
                done[job] = Encoded(error=f"cannot be encoded ({result.reason})")
            else:
                done[job] = result
                record.add_encoded(job, result)
            progress.show(len(done), len(jobs))
    for folder in {Path(job.target).parent for job in rest}:
        discard_partials(folder)
    odd = {}
    for job, items in jobs.items():
        for item in items:
            written = done[job]
            path = targets[item].relative_to(out).as_posix()
            results[item] = written.error or _line(item, path, written, multi_label)
            if written.note:
                odd[item] = written.note
    return odd


def _report(
    plan: Plan,
    results: dict[Item, Sample | str],
    missing: Sequence[str],
    twice: Sequence[str],
    groups: Sequence[Sequence[str]],
    odd: dict[Item, str],
    record: Record,
) -> Report:
    samples: dict[str, list[Sample]] = {}
    broken: list[tuple[str, str]] = []
    parts: list[str] = []
    names = _names(plan.items)
    for item, result in results.items():
        if result == _PART_OF_FOLDER:
            parts.append(names[item])
        elif isinstance(result, str):
            broken.append((names[item], result))
        else:
            samples.setdefault(item.split, []).append(result)
    files = {item.path: item.name for item in plan.items}
    usable = replace(plan, items=tuple(item for item in plan.items if not isinstance(results[item], str)))
    listed = {sample.path for part in samples.values() for sample in part}
    return Report(
        plan,
        dict(samples),
        missing,
        twice,
        broken,
        parts,
        odd={names[item]: odd[item] for item in usable.items if item in odd},
        duplicates=[[files[path] for path in paths] for paths in groups],
        across=in_several_splits(usable, groups),
        differently=in_several_classes(usable, groups),
        unlisted={path: size for path, size in record.copies.items() if path not in listed},
    )


def _names(items: Sequence[Item]) -> dict[Item, str]:
    """What each line is called: its video, with its pictures, and with its place where others are alike."""
    names = {item: item.name + _pictures(item) for item in items}
    often = Counter(names.values())
    return {
        item: named(item, _pictures(item)) if often[name] > 1 and item.where else name
        for item, name in names.items()
    }


def _pictures(item: Item) -> str:
    first, count = part_of(item)
    return "" if first is None or count is None else f", pictures {first} to {first + count - 1}"


def _write(out: Path, plan: Plan, report: Report, *, keep_preview: bool) -> None:
    """The lists that there are samples for; those of an earlier run that there are none for go.

    So does the preview of other lists.
    """
    before = _lists(out)
    for split in SPLITS:
        if report.samples.get(split):
            write_manifest(out, split, report.samples[split], plan.classes)
        else:
            (out / f"{split}.csv").unlink(missing_ok=True)
    if not plan.classes:
        (out / "classes.txt").unlink(missing_ok=True)
    if not keep_preview or _lists(out) != before:
        (out / PREVIEW).unlink(missing_ok=True)
    write_report(report, out / "report.txt")


def _lists(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in _LISTS if (out / name).is_file()}


def _nothing(report: Report, out: Path) -> str:
    left_out = [*report.broken, *((name, _PART_OF_FOLDER) for name in report.parts)]
    count = len(left_out) + len(report.missing)
    example = next((f"{name} for one: {why}" for name, why in left_out), "")
    example = example or f"{report.missing[0]} for one is not there; say with --root where they are"
    example = example.encode("utf-8", "replace").decode()
    return f"none of the {count} videos can be used, {example}; {out / 'report.txt'} lists them all"
