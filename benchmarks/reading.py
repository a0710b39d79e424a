"""Reading training clips with Tubelet and, in the same run, with the loaders of other projects.

    python benchmarks/reading.py [VIDEOS ...] [--files 8] [--rounds 5] [--cache runs/bench-videos]

VIDEOS are folders or files; without them, synthetic videos are made that resemble public data sets. Times are
CPU times of one process with one thread. All loaders read the same clips in turn; results are medians.
"""

import argparse
from pathlib import Path

import torch

from made_videos import SSV2, write_made_videos
from peer_loaders import peer_loaders
from tubelet.bench.measure import (
    SETTINGS,
    Loader,
    bench_data,
    clip_requests,
    cpu_ms_per_request,
    our_loader,
    readable_videos,
)
from tubelet.errors import UserError

OURS = "tubelet"


def loader_table(
    paths: list[str | Path], *, stride: int, rounds: int, frames: int = 16, size: int = 224
) -> list[str]:
    """Measure all loaders on the same clips; return the lines of a table, the fastest first."""
    loaders, missing = peer_loaders()
    requests = clip_requests(paths, frames=frames, stride=stride, size=size)
    ours: dict[str, Loader] = {OURS: our_loader()}
    ours |= {f"{OURS}, {setting}": our_loader(*views) for setting, views in SETTINGS.items()}
    for name, load in list(loaders.items()):
        try:
            for request in requests:
                load(request)
        except Exception as error:  # a peer that cannot read these files must not end the run
            missing[name] = str(error).strip().partition("\n")[0]
            del loaders[name]
    clips = {f"{OURS}, {setting}": repeats * copies for setting, (repeats, copies) in SETTINGS.items()}
    measured = cpu_ms_per_request(ours | loaders, requests, rounds)
    ms = {name: per_request / clips.get(name, 1) for name, per_request in measured.items()}
    width = max(map(len, ms))
    return [
        f"| {'loader':{width}} | CPU ms per clip | x tubelet's time |",
        f"| {'-' * width} | --------------: | ---------------: |",
        *(
            f"| {name:{width}} | {ms[name]:15.1f} | {ms[name] / ms[OURS]:16.2f} |"
            for name in sorted(ms, key=lambda name: ms[name])
        ),
        *(f"not measured: {name} ({reason})" for name, reason in missing.items()),
    ]


def main() -> None:
    """Print a table of loaders and Tubelet's stages for each set of videos."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="*", help="folders or files; by default synthetic videos")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="length of the synthetic videos")
    parser.add_argument("--cache", type=Path, default=Path("runs/bench-videos"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        if options.videos:
            sets = {", ".join(options.videos): options.videos}
        else:
            sets = write_made_videos(options.cache, options.files, seconds=options.seconds)
        for name, sources in sets.items():
            paths = list(readable_videos(sources, options.files)[0])
            stride = 2 if name == SSV2 else 4
            print(f"\n## {name}\n", flush=True)
            print("\n".join(loader_table(paths, stride=stride, rounds=options.rounds)), flush=True)
            report = bench_data(paths, files=options.files, rounds=options.rounds, stride=stride)
            print(f"\n{report.text()}", flush=True)
    except UserError as error:
        raise SystemExit(f"reading.py: {error}") from None


if __name__ == "__main__":
    main()
