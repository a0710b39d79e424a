"""Prepare a data set: check every video of a plan, encode it if requested, write the manifest and a report.

Each video has one record, which passes through the steps: stamped, checked, measured (segments), split,
encoded, listed.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tubelet.data.manifest import SPLITS, read_manifest, write_manifest
from tubelet.errors import UserError
from tubelet.files import discard_partials
from tubelet.machine import available_cores
from tubelet.prepare.check import CheckResult, check_file
from tubelet.prepare.duplicates import draw_splits
from tubelet.prepare.encode import EncodeJob, EncodeResult, encode_file, targets_of
from tubelet.prepare.journal import Journal, open_journal
from tubelet.prepare.plan import ListedVideo, PreparePlan
from tubelet.prepare.pool import JobFailed, run_jobs
from tubelet.prepare.preview import save_preview
from tubelet.prepare.record import REASONS, Outcome, VideoRecord
from tubelet.prepare.report import PrepareReport
from tubelet.prepare.segments import Segments, SegmentsJob, end_note, is_cut, measure_segments
from tubelet.prepare.stamps import Stamp, stamps_of
from tubelet.progress import Bar
from tubelet.video.remote import RemoteError, remote_url

T = TypeVar("T")
R = TypeVar("R")

PREVIEW = "preview.png"  # in the data set's folder
_LISTS = (*(f"{split}.csv" for split in SPLITS), "classes.txt")
_CHECK_LIMIT_S = 300.0  # for one file
_ENCODE_LIMIT_S = 300.0  # for one video, plus
_ENCODE_LIMIT_S_PER_FRAME = 1.0  # slow machines encode a few 4K frames a second


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How a data set is prepared.

    Attributes:
        encode: encode every video to OUT/videos in the form that trains fastest.
        short_side: of encoded videos, in pixels; smaller videos keep their size.
        preview: draw OUT/preview.png.
        workers: number of processes; None for one for each core, 0 for this process.

    Raises:
        UserError: the short side is below 16 pixels.
    """

    encode: bool = False
    short_side: int = 256
    preview: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.short_side < 16:
            raise UserError(f"--short-side must be at least 16 pixels, found {self.short_side}")

    @property
    def num_workers(self) -> int:
        """The number of processes."""
        return available_cores() if self.workers is None else self.workers


def prepare(plan: PreparePlan, out: Path, config: PrepareConfig) -> PrepareReport:
    """Write the manifest of all videos of a plan that can be used; run again, it resumes.

    Args:
        plan: the videos.
        out: the folder for train.csv and so on, report.txt and, if requested, videos and preview.png.
        config: how.

    Raises:
        UserError: no video can be used, or the folder contains another data set or is in use.
    """
    if url := remote_url(out):
        raise UserError(f"{url} is remote; choose a folder on this machine with --out")
    out = Path(os.path.abspath(out))  # noqa: PTH100
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    videos = [VideoRecord(listed, listed.split) for listed in plan.videos]
    with open_journal(out, (*_LISTS, "report.txt", PREVIEW), plan.origin) as journal:
        _mark_repeated(videos)
        _record_stamps(videos)
        _check(videos, journal, config)
        _measure(videos, journal, config)
        if plan.draw:
            draw_splits(_pending(videos), plan.draw)
        if config.encode:
            _encode(videos, journal, out, config)
        _mark_listed(videos, out)
        report = PrepareReport(plan, videos, journal.copies)
        _write_lists(report, out, keep_preview=not config.preview)
        if not report.listed:
            raise UserError(_nothing_usable(report, out))
        if config.preview:
            split = next(split for split in SPLITS if split in report.samples)
            save_preview(read_manifest(out, split), out / PREVIEW)
    return report


def _pending(videos: Iterable[VideoRecord]) -> list[VideoRecord]:
    return [video for video in videos if video.outcome is Outcome.PENDING]


def _by_path(videos: Iterable[VideoRecord]) -> dict[str, list[VideoRecord]]:
    """Group records by file: more than one line may mean the same file."""
    found: dict[str, list[VideoRecord]] = {}
    for video in videos:
        found.setdefault(video.listed.path, []).append(video)
    return found


def _stamps(groups: Mapping[T, list[VideoRecord]]) -> dict[T, Stamp]:
    return {key: stamp for key, group in groups.items() if (stamp := group[0].stamp)}


def _mark_repeated(videos: Sequence[VideoRecord]) -> None:
    seen = set()
    for video in videos:
        if video.listed in seen:
            video.outcome = Outcome.REPEATED
        seen.add(video.listed)


def _record_stamps(videos: Sequence[VideoRecord]) -> None:
    """Record the stamp of each file; a file without one is missing or broken."""
    groups = _by_path(_pending(videos))
    known = {path: group[0].listed.stamp for path, group in groups.items()}
    paths = [path for path, stamp in known.items() if stamp is None]
    with Bar("querying remote files") if any(map(remote_url, paths)) else nullcontext() as progress:
        found = stamps_of(paths, progress.show if progress else None)
    for path, group in groups.items():
        stamp = known[path] or found[path]
        for video in group:
            if not isinstance(stamp, OSError):
                video.stamp = stamp
            elif isinstance(stamp, FileNotFoundError) and video.listed.where:
                video.outcome = Outcome.MISSING
            elif isinstance(stamp, RemoteError):
                video.fail(f"cannot be fetched ({stamp})")
            else:
                video.fail(str(stamp.strerror))


def _check(videos: Sequence[VideoRecord], journal: Journal, config: PrepareConfig) -> None:
    """Check each file, and decide whether it can be used as it is or encoded."""
    for video in _pending(videos):
        if any("\ud800" <= letter <= "\udfff" for letter in video.listed.path):  # Python's for other bytes
            video.fail("its name is not UTF-8 text; rename it")
    groups = _by_path(_pending(videos))
    stamps = _stamps(groups)
    known = {path: check for path, stamp in stamps.items() if (check := journal.check_of(path, stamp))}
    for path, result in _results(
        "checking videos", check_file, groups, known, config, lambda _: _CHECK_LIMIT_S
    ):
        if isinstance(result, CheckResult) and path not in known:
            journal.add_check(result, stamps[path])
        for video in groups[path]:
            frames = video.listed.frames
            if isinstance(result, JobFailed):  # not in the journal: the machine or network may be the reason
                video.fail(result.reason)
                continue
            video.checked = result
            if result.error:
                video.fail(result.error)
                continue
            _settle_part(video, result)
            if config.encode or video.outcome is not Outcome.PENDING:
                continue
            if result.size_changes:
                video.outcome = Outcome.SIZE_CHANGES
            elif video.listed.offset is not None and frames is not None and frames < result.frames:
                video.outcome = Outcome.PART_OF_FOLDER


def _settle_part(video: VideoRecord, checked: CheckResult) -> None:
    """Keep what a line says of its kind of file: seconds of a video, numbers of images in a folder."""
    listed = video.listed
    if Path(listed.path).is_dir():
        if listed.is_segment and listed.offset is None:
            video.fail(f"a folder of images has no times; list its first image and their number{_at(listed)}")
        video.listed = replace(listed, start=None, end=None)
    elif listed.is_segment:
        video.listed = replace(listed, offset=None, frames=None)
    elif listed.offset is not None:
        last = checked.frames if listed.frames is None else listed.offset + listed.frames
        if listed.offset > 1 or last < checked.frames:
            video.fail(
                f"frames {listed.offset} to {last - 1} of a video file, which has {checked.frames}; "
                f"list the start and end of a segment in seconds{_at(listed)}"
            )
        video.listed = replace(listed, offset=None, frames=None)


def _at(listed: ListedVideo) -> str:
    return f" ({listed.where})" if listed.where else ""


def _measure(videos: Sequence[VideoRecord], journal: Journal, config: PrepareConfig) -> None:
    """Count the frames of each segment; one without frames cannot be used."""
    jobs: dict[SegmentsJob, list[VideoRecord]] = {}
    for path, group in _by_path(v for v in _pending(videos) if v.listed.is_segment).items():
        spans = tuple(dict.fromkeys((v.listed.start, v.listed.end) for v in group))
        checked = group[0].checked
        jobs[SegmentsJob(path, spans, checked.frames if checked else 0)] = group
    if not jobs:
        return
    stamps = _stamps(jobs)
    known = {job: found for job, stamp in stamps.items() if (found := journal.segments_of(job, stamp))}
    for job, segments in _results(
        "measuring segments", measure_segments, jobs, known, config, lambda _: _CHECK_LIMIT_S
    ):
        if isinstance(segments, Segments) and job not in known:
            journal.add_segments(job, stamps[job], segments)
        for video in jobs[job]:
            if isinstance(segments, JobFailed):
                video.fail(segments.reason)
            elif is_cut(video.listed, segments.duration_s):
                video.listed = replace(video.listed, start=None, end=None)
            else:
                number = job.spans.index((video.listed.start, video.listed.end))
                video.segment_frames = segments.frames[number]
                video.segment_note = end_note(video.listed, segments.duration_s)
                if error := segments.errors[number]:
                    video.fail(error)


def _encode(videos: Sequence[VideoRecord], journal: Journal, out: Path, config: PrepareConfig) -> None:
    """Encode each video; lines that mean the same video share a file."""
    pending = _pending(videos)
    targets = targets_of([video.listed for video in pending], out / "videos")
    jobs: dict[EncodeJob, list[VideoRecord]] = {}
    for video in pending:
        target = str(targets[video.listed])
        listed = video.listed
        job = EncodeJob(
            listed.path, target, config.short_side, listed.part, start=listed.start, end=listed.end
        )
        jobs.setdefault(job, []).append(video)
    stamps = _stamps(jobs)
    known = {job: result for job, stamp in stamps.items() if (result := journal.encoding_of(job, stamp))}

    def limit_s(job: EncodeJob) -> float:
        checked = jobs[job][0].checked
        return _ENCODE_LIMIT_S + _ENCODE_LIMIT_S_PER_FRAME * (checked.frames if checked else 0)

    for job, encoded in _results("encoding videos", encode_file, jobs, known, config, limit_s):
        if isinstance(encoded, EncodeResult) and job not in known:
            journal.add_encoding(job, stamps[job], encoded)
        for video in jobs[job]:
            if isinstance(encoded, JobFailed):
                video.fail(f"cannot be encoded ({encoded.reason})")
            elif encoded.error:
                video.fail(encoded.error)
            else:
                video.encoded, video.path = encoded, Path(job.target).relative_to(out).as_posix()
    for folder in {Path(job.target).parent for job in jobs.keys() - known.keys()}:
        discard_partials(folder)


def _results(
    step: str,
    function: Callable[[T], R | JobFailed],
    jobs: Collection[T],
    known: Mapping[T, R],
    config: PrepareConfig,
    limit_s: Callable[[T], float],
) -> Iterator[tuple[T, R | JobFailed]]:
    """Yield the jobs with their results: the known ones, and those of the function, with a progress bar."""
    yield from known.items()
    rest = [job for job in jobs if job not in known]
    workers = min(config.num_workers, len(rest))
    with Bar(step) as progress:
        progress.show(len(known), len(jobs))
        results = run_jobs(function, rest, workers=workers, limit_s=limit_s)
        for done, result in enumerate(results, start=len(known) + 1):
            yield result
            progress.show(done, len(jobs))


def _mark_listed(videos: Sequence[VideoRecord], out: Path) -> None:
    """Put what is left into the manifest, with a path relative to its folder, an absolute path, or a URL."""
    for video in _pending(videos):
        video.outcome = Outcome.LISTED
        if not video.path:
            path = Path(video.listed.path)
            inside = path.relative_to(out) if path.is_relative_to(out) else path
            video.path = remote_url(video.listed.path) or inside.as_posix()


def _write_lists(report: PrepareReport, out: Path, *, keep_preview: bool) -> None:
    """Write lists and report; remove the lists that are empty now, and the preview of other lists."""
    before = _read_lists(out)
    for split in SPLITS:
        if samples := report.samples.get(split):
            write_manifest(out, split, samples, report.plan.classes)
        else:
            (out / f"{split}.csv").unlink(missing_ok=True)
    if not report.plan.classes:
        (out / "classes.txt").unlink(missing_ok=True)
    if not keep_preview or _read_lists(out) != before:
        (out / PREVIEW).unlink(missing_ok=True)
    report.write(out / "report.txt")


def _read_lists(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in _LISTS if (out / name).is_file()}


def _nothing_usable(report: PrepareReport, out: Path) -> str:
    parts = [(name, REASONS[Outcome.PART_OF_FOLDER]) for name in report.parts]
    left_out = [f"{name}: {reason}" for name, reason in (*report.broken, *parts)]
    missing = [f"{name} is not found; specify the folder with --root" for name in report.missing]
    example = [*left_out, *missing][0].encode("utf-8", "replace").decode()
    count = len(left_out) + len(missing)
    return f"none of the {count} videos can be used, such as {example}; {out / 'report.txt'} lists them all"
