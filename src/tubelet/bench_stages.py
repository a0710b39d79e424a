"""Where the time goes from a file to a batch: each stage by itself."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tubelet.bench_peers import Job, ours
from tubelet.data.dataset import Batch, collate
from tubelet.data.erasing import RandomErasing
from tubelet.data.index import VideoIndex, header_index, scan_index, video_stream
from tubelet.data.packets import Decoding, WrongIndexError
from tubelet.data.randaugment import RandAugment
from tubelet.data.sources import Deadline, open_container, video_errors
from tubelet.data.transforms import Augment, ResizedCrop
from tubelet.data.video import read_frames


@dataclass(frozen=True)
class Read:
    """What was read, and the CPU time of opening, of reading packets and of decoding, in milliseconds.

    Attributes:
        ms: these three.
        decoded: frames that were decoded.
        spanned: frames from the key frame before the clip to its last.
        index: of the file.
    """

    ms: tuple[float, float, float]
    decoded: int
    spanned: int
    index: VideoIndex


def read_stages(job: Job) -> Read:
    """The first stages of a clip one after the other; its frames are decoded and thrown away."""
    deadline = Deadline(job.path, 60)
    began = time.process_time()
    with open_container(job.path, deadline) as container, video_errors(deadline):
        stream = video_stream(container, job.path)

        def decoding(index: VideoIndex, guessed: bool) -> Decoding:
            return Decoding(container, stream, index, set(job.frames(len(index))), deadline, guessed)

        guess = header_index(container, stream)
        index = guess or scan_index(container, stream, deadline)
        opened = time.process_time()
        try:
            list(decoding(index, guess is not None).packets())
        except WrongIndexError:
            container.seek(0)
            index = scan_index(container, stream, deadline)
            opened = time.process_time()
            list(decoding(index, False).packets())
        demuxed = time.process_time()
        container.seek(0)
        again = time.process_time()
        run = decoding(index, False)
        run.run(lambda number, frame: None)  # which reads the packets once more
        ended = time.process_time()
    opening, reading = opened - began, demuxed - opened
    spent = (opening, reading, max(ended - again - reading, 0.0))
    return Read((1e3 * spent[0], 1e3 * spent[1], 1e3 * spent[2]), run.decoded, run.spanned, index)


def later_stages(jobs: list[Job], rounds: int) -> dict[str, float]:
    """CPU time of what happens to a clip that has been read: by stage, the median over the rounds."""
    whole = [read_frames(job.path, job.frames) for job in jobs[:2]]
    crops = [clip for job in jobs[:2] for clip in ours()(job)]
    pretrain = Augment(flip=0.5)
    finetune = Augment(
        randaugment=RandAugment(), crop=ResizedCrop(scale=(0.08, 1)), flip=0.5, erasing=RandomErasing()
    )
    rng, size, batch = np.random.default_rng(0), jobs[0].size, 8
    items = [_item(crops[0]) for _ in range(batch)]

    def augment() -> None:
        for clip in crops:
            pretrain.place(clip.shape[-2], clip.shape[-1], size, rng)
            pretrain.finish(clip, rng)

    def augment_to_finetune() -> None:
        for clip in whole:
            finetune(clip, size, rng)

    def timed(step: Callable[[], object], clips: int) -> float:
        times = []
        for _ in range(rounds + 1):
            start = time.process_time()
            step()
            times.append((time.process_time() - start) * 1e3 / clips)
        return statistics.median(times[1:])

    return {
        "augment": timed(augment, len(crops)),
        "finetune": timed(augment_to_finetune, len(whole)),
        "collate": timed(lambda: collate(items), batch),
    }


def _item(clip: torch.Tensor) -> Batch:
    one = torch.zeros(1, dtype=torch.int64)
    return Batch(video=clip[None], label=one, seed=one, index=one, names=["a"], failures={})
