"""The published runs as their sources describe them: the truth that the shipped recipes are compared with.

Rates are computed here from each source's own formula. Numbers of GPUs that are not published, as in
PySlowFast's and MAR's configurations, are those of the recipes' comments.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tubelet.clips import (
    AnyClip,
    DenseClip,
    FixedDurationClip,
    MARSegmentClip,
    VideoMAEClip,
    VideoMAESegmentClip,
)
from tubelet.models.sizes import SizeName

Rule = Callable[[str, bool, float, int], tuple[float, float]]
"""(their name of a parameter, whether it is a vector, layer decay, depth): its factors of rate and decay."""

VIDEOS = {
    "k400": 240_436, "k600": 366_006, "k700": 536_000, "k710": 658_340, "ssv2": 168_913, "ucf101": 9_537,
    "hmdb51": 3_570, "hybrid": 1_348_000,
}  # fmt: skip
"""Videos to train on: V2's lists for Kinetics and Something-Something, split 1 of UCF101 and HMDB51."""

CLASSES = {"k400": 400, "k600": 600, "k700": 700, "k710": 710, "ssv2": 174, "ucf101": 101, "hmdb51": 51}

# Width, depth, hidden width, side of a patch.
ENCODERS: dict[SizeName, tuple[int, int, int, int]] = {
    "small": (384, 12, 1536, 16), "base": (768, 12, 3072, 16), "large": (1024, 24, 4096, 16),
    "huge": (1280, 32, 5120, 16), "giant": (1408, 40, 6144, 14),
}  # fmt: skip

# Width, depth, hidden width of the decoders: VideoMAE's by size, and those of V2 and MAE-ST.
DECODERS: dict[str, tuple[int, int, int]] = {
    "small": (192, 4, 768), "base": (384, 4, 1536), "large": (512, 12, 2048), "huge": (640, 12, 2560),
    "narrow": (512, 4, 2048), "giant": (512, 4, 2234),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Run:
    """A published run.

    Attributes:
        family: whose code it is.
        size: of the encoder.
        data: the data set's folder; `hybrid` is V2's five.
        gpus, per_gpu: GPUs, and videos on each of them in a step.
        epochs, warmup: passes over the videos, and those of the warm-up.
        start, peak, end: learning rates at the first step, as configured and after the last step.
        layer_decay, weight_decay: as configured.
        rule: what each parameter makes of them.
        from_start: whether the cosine is over all epochs, not only those after the warm-up.
        clip: which frames make a clip.
        repeats, copies: clips of a video, each with other frames, and augmented copies of each.
        betas, clip_grad: of the optimizer.
        decoder: key of DECODERS; None without a decoder.
        init: the recipe that makes the model to start from, or one of the same architecture.
        views: clips and crops of the test.
        drop_path, dropout: as configured.
        ratio: fraction of the tokens that the encoder does not see.
        top1: published accuracy.
    """

    family: Literal["videomae", "videomaev2", "mae_st", "mar"]
    size: SizeName
    data: str
    gpus: int
    per_gpu: int
    epochs: int
    warmup: int
    start: float = 0.0
    peak: float
    end: float
    layer_decay: float = 1.0
    weight_decay: float = 0.05
    rule: Rule
    from_start: bool = False
    clip: AnyClip
    repeats: int = 1
    copies: int = 1
    betas: tuple[float, float] = (0.9, 0.999)
    clip_grad: float | None = None
    decoder: str | None = None
    init: str | None = None
    views: tuple[int, int] | None = None
    drop_path: float = 0.0
    dropout: float = 0.0
    ratio: float = 0.0
    top1: float | None = None

    @property
    def batch(self) -> int:
        """Videos of a step."""
        return self.gpus * self.per_gpu

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch: each source leaves the remainder of the videos out."""
        return VIDEOS[self.data] // self.batch

    def rate(self, epoch: float) -> float:
        """The learning rate of a parameter with the factor 1, at a fractional epoch."""
        first = 0 if self.from_start else self.warmup

        def cosine(at: float) -> float:
            angle = math.pi * (at - first) / (self.epochs - first)
            return self.end + (self.peak - self.end) * 0.5 * (1 + math.cos(angle))

        if epoch < self.warmup:
            return self.start + (cosine(self.warmup) - self.start) * epoch / self.warmup
        return cosine(epoch)


def pretraining_rule(name: str, vector: bool, decay: float, depth: int) -> tuple[float, float]:
    """VideoMAE's and V2's: no decay of vectors and the mask token."""
    return 1.0, 0.0 if vector or name == "mask_token" else 1.0


def mae_st_pretraining_rule(name: str, vector: bool, decay: float, depth: int) -> tuple[float, float]:
    """MAE-ST's: only vectors are not decayed, tokens and positions are."""
    return 1.0, 0.0 if vector else 1.0


def beit_rule(name: str, vector: bool, decay: float, depth: int) -> tuple[float, float]:
    """The fine-tuning of BEiT, VideoMAE, V2 and mae_st: the rate falls from layer to layer."""
    is_token = name.startswith(("cls_token", "pos_embed"))
    if is_token or name.startswith("patch_embed"):
        layer = 0
    elif name.startswith("blocks."):
        layer = int(name.split(".")[1]) + 1
    else:
        layer = depth + 1
    return decay ** (depth + 1 - layer), 0.0 if vector or is_token else 1.0


def pyslowfast_rule(name: str, vector: bool, decay: float, depth: int) -> tuple[float, float]:
    """PySlowFast's fine-tuning: as BEiT's, but tokens are decayed (ZERO_DECAY_POS_CLS: False)."""
    return beit_rule(name, vector, decay, depth)[0], 0.0 if vector else 1.0


def mar_rule(name: str, vector: bool, decay: float, depth: int) -> tuple[float, float]:
    """MAR's: the first of its conditions on a name decides."""
    is_bias = name.endswith("bias")
    if "norm" in name:
        return 1.0, 0.0
    if "head" in name:
        return 1.0, 0.0 if is_bias else 1.0
    if name.startswith("backbone.blocks.") and not is_bias:
        return decay ** (depth - int(name.split(".")[2])), 1.0
    if name in ("backbone.patch_embed.proj.weight", "mask_token"):
        return decay ** (depth + 1), 1.0
    return 1.0, 0.0 if is_bias else 1.0


# ------------------------------------------------------------------------------------- VideoMAE and V2


def _videomae_pretraining(
    size: SizeName, data: str, stride: int, gpus: int, per_gpu: int, epochs: int, top1: float,
    base: float = 1.5e-4, ratio: float = 0.9,
) -> Run:  # fmt: skip
    scale = gpus * per_gpu / 256
    return Run(
        family="videomae", size=size, data=data, gpus=gpus, per_gpu=per_gpu, epochs=epochs, warmup=40,
        peak=base * scale, end=1e-5 * scale, rule=pretraining_rule, betas=(0.9, 0.95), decoder=size,
        clip=DenseClip(stride=stride, pad="before_last"), ratio=ratio, top1=top1,
    )  # fmt: skip


def _videomae_finetuning(
    init: str, size: SizeName, data: str, gpus: int, per_gpu: int, epochs: int, base: float, clips: int,
    top1: float | None, *, copies: int = 2, decay: float = 0.75, drop_path: float = 0.1, dropout: float = 0.0,
    low: float = 1e-6, stride: int = 4, family: Literal["videomae", "videomaev2"] = "videomae",
    warmup: int = 5, weight_decay: float = 0.05, clip_grad: float | None = None,
) -> Run:  # fmt: skip
    scale = gpus * per_gpu / 256
    segments = VideoMAESegmentClip(pad="front" if family == "videomaev2" else "first_only")
    return Run(
        family=family, size=size, data=data, gpus=gpus, per_gpu=per_gpu, epochs=epochs, warmup=warmup,
        peak=base * scale, end=low * scale, rule=beit_rule, layer_decay=decay, weight_decay=weight_decay,
        clip_grad=clip_grad, clip=segments if data == "ssv2" else VideoMAEClip(stride=stride), copies=copies,
        init=init, views=(clips, 3), drop_path=drop_path, dropout=dropout, top1=top1,
    )  # fmt: skip


_SSV2_PROBE = Run(
    family="videomae", size="base", data="ssv2", gpus=64, per_gpu=16, epochs=100, warmup=10, peak=0.4,
    end=0.0, rule=beit_rule, weight_decay=0.0, clip=VideoMAESegmentClip(), views=(2, 3), top1=38.9,
    init="videomae/pretrain_ssv2_base_800",
)  # fmt: skip

VIDEOMAE = {
    "pretrain_k400_small": _videomae_pretraining("small", "k400", 4, 32, 32, 1600, 79.0),
    "pretrain_k400_base_800": _videomae_pretraining("base", "k400", 4, 64, 32, 800, 80.0),
    "pretrain_k400_base": _videomae_pretraining("base", "k400", 4, 64, 32, 1600, 81.5),
    "pretrain_k400_large": _videomae_pretraining("large", "k400", 4, 64, 8, 1600, 85.2),
    "pretrain_k400_huge": _videomae_pretraining("huge", "k400", 4, 64, 16, 1600, 86.6),
    "pretrain_ssv2_small": _videomae_pretraining("small", "ssv2", 2, 32, 32, 2400, 66.8),
    "pretrain_ssv2_base_800": _videomae_pretraining("base", "ssv2", 2, 64, 32, 800, 69.6),
    "pretrain_ssv2_base": _videomae_pretraining("base", "ssv2", 2, 64, 32, 2400, 70.8),
    "pretrain_ucf101_base": _videomae_pretraining("base", "ucf101", 4, 8, 24, 3200, 91.3, 3e-4, 0.75),
    "pretrain_hmdb51_base": _videomae_pretraining("base", "hmdb51", 2, 8, 24, 4800, 62.6, 3e-4, 0.75),
    "finetune_k400_small": _videomae_finetuning(
        "videomae/pretrain_k400_small", "small", "k400", 32, 12, 150, 5e-4, 5, 79.0
    ),
    "finetune_k400_base_800": _videomae_finetuning(
        "videomae/pretrain_k400_base_800", "base", "k400", 64, 8, 100, 1e-3, 5, 80.0, copies=1
    ),
    "finetune_k400_base": _videomae_finetuning(
        "videomae/pretrain_k400_base", "base", "k400", 64, 6, 75, 5e-4, 5, 81.5
    ),
    "finetune_k400_large": _videomae_finetuning(
        "videomae/pretrain_k400_large", "large", "k400", 64, 2, 35, 2e-3, 5, 85.2
    ),
    "finetune_k400_huge": _videomae_finetuning(
        "videomae/pretrain_k400_huge", "huge", "k400", 64, 8, 50, 1e-3, 5, 86.6,
        drop_path=0.2, dropout=0.5, low=1e-5,
    ),
    "finetune_ssv2_small": _videomae_finetuning(
        "videomae/pretrain_ssv2_small", "small", "ssv2", 32, 12, 40, 1e-3, 2, 66.8, decay=0.7
    ),
    "finetune_ssv2_base_800": _videomae_finetuning(
        "videomae/pretrain_ssv2_base_800", "base", "ssv2", 64, 8, 50, 5e-4, 2, 69.6, copies=1
    ),
    "finetune_ssv2_base": _videomae_finetuning(
        "videomae/pretrain_ssv2_base", "base", "ssv2", 64, 6, 30, 5e-4, 2, 70.8
    ),
    "finetune_ssv2_large": _videomae_finetuning(
        "videomae/pretrain_k400_large", "large", "ssv2", 64, 8, 30, 5e-4, 2, 74.3, drop_path=0.2, dropout=0.5
    ),
    "finetune_ssv2_base_linear": _SSV2_PROBE,
    "finetune_ucf101_base": _videomae_finetuning(
        "videomae/pretrain_ucf101_base", "base", "ucf101", 8, 16, 100, 5e-4, 5, 91.3,
        decay=0.7, drop_path=0.2, dropout=0.5, low=1e-5,
    ),
    "finetune_hmdb51_base": _videomae_finetuning(
        "videomae/pretrain_hmdb51_base", "base", "hmdb51", 8, 16, 50, 1e-3, 10, 62.6,
        decay=0.7, drop_path=0.2, dropout=0.5, low=1e-5, stride=2,
    ),
}  # fmt: skip


def _v2_pretraining(
    size: SizeName, decoder: str, gpus: int, epochs: int, base: float, warmup: int,
    clip_grad: float | None = None, top1: float | None = None,
) -> Run:  # fmt: skip
    scale = gpus * 32 / 256
    return Run(
        family="videomaev2", size=size, data="hybrid", gpus=gpus, per_gpu=32, epochs=epochs, warmup=warmup,
        peak=base * scale, end=1e-5 * scale, rule=pretraining_rule, betas=(0.9, 0.95), clip_grad=clip_grad,
        clip=DenseClip(stride=4, pad="before_last"), copies=4, decoder=decoder, ratio=0.9, top1=top1,
    )  # fmt: skip


def _v2_finetuning(
    size: SizeName, data: str, gpus: int, per_gpu: int, epochs: int, base: float, decay: float,
    drop_path: float, top1: float | None = None, *, dropout: float = 0.0, weight_decay: float = 0.05,
    clip_grad: float | None = None, warmup: int = 5, stride: int = 4, init: str = "",
) -> Run:  # fmt: skip
    return _videomae_finetuning(
        init or f"videomaev2/pretrain_hybrid_{size}", size, data, gpus, per_gpu, epochs, base,
        2 if data == "ssv2" else 5, top1, decay=decay, drop_path=drop_path, dropout=dropout, stride=stride,
        family="videomaev2", warmup=warmup, weight_decay=weight_decay, clip_grad=clip_grad,
    )  # fmt: skip


_K710 = "videomaev2/finetune_k710_giant"

VIDEOMAE_V2 = {
    "pretrain_hybrid_base": _v2_pretraining("base", "base", 32, 200, 1e-3, 20),
    "pretrain_hybrid_large": _v2_pretraining("large", "narrow", 48, 300, 1e-3, 30),
    "pretrain_hybrid_huge": _v2_pretraining("huge", "narrow", 64, 300, 1e-3, 30),
    "pretrain_hybrid_giant": _v2_pretraining("giant", "giant", 64, 300, 6e-4, 30, 0.02, 87.2),
    "finetune_k400_base": _v2_finetuning("base", "k400", 32, 16, 90, 7e-4, 0.75, 0.1),
    "finetune_k710_base": _v2_finetuning("base", "k710", 32, 16, 90, 7e-4, 0.75, 0.1),
    "finetune_ssv2_base": _v2_finetuning("base", "ssv2", 16, 16, 25, 2e-3, 0.65, 0.1),
    "finetune_k400_large": _v2_finetuning("large", "k400", 32, 6, 35, 2e-3, 0.75, 0.2),
    "finetune_ssv2_large": _v2_finetuning("large", "ssv2", 32, 6, 20, 5e-4, 0.75, 0.2),
    "finetune_k400_huge": _v2_finetuning("huge", "k400", 32, 4, 40, 1e-3, 0.8, 0.2, dropout=0.5),
    "finetune_k600_huge": _v2_finetuning("huge", "k600", 32, 4, 40, 1e-3, 0.8, 0.2, dropout=0.5),
    "finetune_k710_huge": _v2_finetuning("huge", "k710", 32, 4, 40, 1e-3, 0.8, 0.2, dropout=0.5),
    "finetune_ssv2_huge": _v2_finetuning("huge", "ssv2", 32, 4, 20, 5e-4, 0.8, 0.2, 76.8),
    "finetune_k400_giant": _v2_finetuning("giant", "k400", 64, 3, 30, 1e-3, 0.9, 0.2, 87.2, weight_decay=0.1),
    "finetune_k710_giant": _v2_finetuning(
        "giant", "k710", 32, 3, 35, 1e-3, 0.9, 0.3, 83.8, weight_decay=0.1, clip_grad=5.0
    ),
    "finetune_k400_giant_k710": _v2_finetuning(
        "giant", "k400", 32, 3, 3, 1e-5, 0.9, 0.25, 88.4, weight_decay=0.1, warmup=1, init=_K710
    ),
    "finetune_k600_giant_k710": _v2_finetuning(
        "giant", "k600", 32, 3, 3, 1e-5, 0.9, 0.25, 88.8, weight_decay=0.1, warmup=1, init=_K710
    ),
    "finetune_ssv2_giant": _v2_finetuning("giant", "ssv2", 32, 3, 20, 3e-4, 0.9, 0.25, 77.0),
    "finetune_ucf101_giant_k710": _v2_finetuning(
        "giant", "ucf101", 8, 3, 50, 1e-3, 0.9, 0.35, 99.6, dropout=0.5, init=_K710
    ),
    "finetune_hmdb51_giant_k710": _v2_finetuning(
        "giant", "hmdb51", 8, 3, 15, 5e-4, 0.9, 0.35, 88.1, dropout=0.5, stride=2, init=_K710
    ),
}


# --------------------------------------------------------------------------------------------- MAE-ST


def _mae_st_pretraining(
    size: SizeName, data: str, epochs: int, warmup: int, per_machine: int, top1: float | None
) -> Run:
    """PySlowFast's rates are for a machine, and there are sixteen."""
    return Run(
        family="mae_st", size=size, data=data, gpus=128, per_gpu=per_machine // 8, epochs=epochs,
        warmup=warmup, start=1e-6 * 16, peak=1e-4 * 16, end=1e-6 * 16, rule=mae_st_pretraining_rule,
        betas=(0.9, 0.95), clip_grad=0.02, clip=FixedDurationClip(middle="floor"), repeats=4,
        decoder="narrow", ratio=0.9, top1=top1,
    )  # fmt: skip


def _mae_st_finetuning(
    init: str, size: SizeName, data: str, top1: float | None, *, epochs: int = 0, peak: float = 3e-4 * 16,
    drop_path: float = 0.2, end: float = 0.0, start: float = 1e-8 * 16,
) -> Run:  # fmt: skip
    large = size == "large"
    return Run(
        family="mae_st", size=size, data=data, gpus=128, per_gpu=2, epochs=epochs or (50 if large else 75),
        warmup=5, start=start, peak=peak, end=end or (1e-5 if large else 1e-6) * 16, rule=pyslowfast_rule,
        layer_decay=0.75 if large else 0.8, clip_grad=5.0, clip=FixedDurationClip(middle="floor"),
        copies=2 if large else 1, init=init, views=(7, 3), drop_path=drop_path, dropout=0.3 if large else 0.5,
        top1=top1,
    )  # fmt: skip


_AFTER_K600 = 8e-4 / (3e-4 * 16)  # of the rates

MAE_ST = {
    "pretrain_k400_base": _mae_st_pretraining("base", "k400", 200, 60, 64, 81.3),
    "pretrain_k400_large": _mae_st_pretraining("large", "k400", 400, 30, 32, 84.8),
    "pretrain_k400_large_200": _mae_st_pretraining("large", "k400", 200, 30, 32, 84.4),
    "pretrain_k400_huge": _mae_st_pretraining("huge", "k400", 400, 60, 32, 85.1),
    "pretrain_k600_large": _mae_st_pretraining("large", "k600", 400, 30, 32, None),
    "pretrain_k600_huge": _mae_st_pretraining("huge", "k600", 400, 60, 32, None),
    "pretrain_k700_large": _mae_st_pretraining("large", "k700", 400, 30, 32, None),
    "pretrain_k700_huge": _mae_st_pretraining("huge", "k700", 400, 60, 32, None),
    "pretrain_k400_large_mae_st": Run(  # its rate: blr x videos of a step / 256
        family="mae_st", size="large", data="k400", gpus=128, per_gpu=2, epochs=100, warmup=5,
        peak=1.6e-3 * 128 * 2 / 256, end=0.0, rule=mae_st_pretraining_rule, betas=(0.9, 0.95), clip_grad=0.02,
        clip=FixedDurationClip(middle="floor"), repeats=4, decoder="narrow", ratio=0.9,
    ),
    "finetune_k400_base": Run(
        family="mae_st", size="base", data="k400", gpus=128, per_gpu=6, epochs=75, warmup=5,
        start=1.6e-2 * 1e-8 / 6e-4, peak=1.6e-2, end=1.6e-2 * 1e-5 / 6e-4, layer_decay=0.65,
        rule=pyslowfast_rule, clip_grad=5.0, clip=FixedDurationClip(middle="floor"), copies=2,
        init="mae_st/pretrain_k400_base", views=(7, 3), drop_path=0.1, dropout=0.3, top1=81.3,
    ),
    "finetune_k400_large": _mae_st_finetuning("mae_st/pretrain_k400_large", "large", "k400", 84.8),
    "finetune_k400_large_masked": _mae_st_finetuning("mae_st/pretrain_k400_large", "large", "k400", 84.1),
    "finetune_k400_large_mae_st": Run(  # its rate: blr x clips of a step / 256
        family="mae_st", size="large", data="k400", gpus=128, per_gpu=2, epochs=50, warmup=5,
        peak=2.4e-3 * 128 * 2 * 2 / 256, end=1e-6, layer_decay=0.75, rule=beit_rule, clip_grad=5.0,
        clip=FixedDurationClip(middle="floor"), copies=2, init="mae_st/pretrain_k400_large", views=(10, 3),
        drop_path=0.2, dropout=0.3, top1=84.35,
    ),
    "finetune_k400_huge": _mae_st_finetuning("mae_st/pretrain_k400_huge", "huge", "k400", 85.1),
    "finetune_k600_large": _mae_st_finetuning("mae_st/pretrain_k600_large", "large", "k600", None),
    "finetune_k600_huge": _mae_st_finetuning("mae_st/pretrain_k600_huge", "huge", "k600", None),
    "finetune_k700_large": _mae_st_finetuning("mae_st/pretrain_k700_large", "large", "k700", None),
    "finetune_k700_huge": _mae_st_finetuning("mae_st/pretrain_k700_huge", "huge", "k700", None),
    "finetune_k400_large_k600": _mae_st_finetuning(
        "mae_st/finetune_k600_large", "large", "k400", None, epochs=40, peak=8e-4, end=1.6e-4 * _AFTER_K600,
        start=1.6e-7 * _AFTER_K600,
    ),
    "finetune_k400_huge_k600": _mae_st_finetuning(
        "mae_st/finetune_k600_huge", "huge", "k400", 86.8, epochs=30, peak=8e-4, end=1.6e-5 * _AFTER_K600,
        start=1.6e-7 * _AFTER_K600, drop_path=0.3,
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ MAR


def _mar(
    init: str, size: SizeName, data: str, gpus: int, per_gpu: int, epochs: int, peak: float, decay: float,
    drop_path: float, dropout: float, repeats: int, ratio: float, clips: int, top1: float | None,
) -> Run:  # fmt: skip
    return Run(
        family="mar", size=size, data=data, gpus=gpus, per_gpu=per_gpu, epochs=epochs, warmup=5, start=1e-6,
        peak=peak, end=1e-6, from_start=True, rule=mar_rule, layer_decay=decay, repeats=repeats, decoder=size,
        clip=MARSegmentClip() if data == "ssv2" else FixedDurationClip(), init=init, views=(clips, 3),
        drop_path=drop_path, dropout=dropout, ratio=ratio, top1=top1,
    )  # fmt: skip


def _k400_base(ratio: float, top1: float | None, data: str = "k400", clips: int = 5, repeats: int = 2) -> Run:
    init = "videomae/pretrain_k400_base"
    return _mar(init, "base", data, 32, 8, 100, 1e-3, 0.65, 0.1, 0.0, repeats, ratio, clips, top1)


def _ssv2_base(ratio: float, top1: float) -> Run:
    init = "videomae/pretrain_ssv2_base"
    return _mar(init, "base", "ssv2", 32, 16, 40, 1e-3, 0.75, 0.1, 0.1, 1, ratio, 2, top1)


def _k400_large(ratio: float, top1: float) -> Run:
    init = "videomae/pretrain_k400_large"
    return _mar(init, "large", "k400", 32, 4, 60, 5e-4, 0.75, 0.2, 0.1, 2, ratio, 5, top1)


def _ssv2_large(ratio: float, top1: float) -> Run:
    init = "videomae/pretrain_k400_large"
    return _mar(init, "large", "ssv2", 64, 2, 40, 2.5e-4, 0.75, 0.2, 0.1, 1, ratio, 2, top1)


MAR = {
    "finetune_k400_base_25": _k400_base(0.25, None),
    "finetune_k400_base_50": _k400_base(0.5, 81.0),
    "finetune_k400_base_75": _k400_base(0.75, 79.4),
    "finetune_k400_large_50": _k400_large(0.5, 85.3),
    "finetune_k400_large_75": _k400_large(0.75, 83.9),
    "finetune_ssv2_base_25": _ssv2_base(0.25, 71.3),
    "finetune_ssv2_base_50": _ssv2_base(0.5, 71.0),
    "finetune_ssv2_base_75": _ssv2_base(0.75, 69.5),
    "finetune_ssv2_large_50": _ssv2_large(0.5, 74.7),
    "finetune_ssv2_large_75": _ssv2_large(0.75, 73.8),
    "finetune_ucf101_base_50": _k400_base(0.5, 95.9, "ucf101", 10),
    "finetune_hmdb51_base_50": _k400_base(0.5, 74.1, "hmdb51", 10, 1),
}

RUNS = {
    f"{family}/{name}": run
    for family, runs in (
        ("videomae", VIDEOMAE), ("videomaev2", VIDEOMAE_V2), ("mae_st", MAE_ST), ("mar", MAR)
    )
    for name, run in runs.items()
}  # fmt: skip
