"""The published test protocols by name: which frames and crops a test takes, and how it combines scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tubelet.clips import (
    AnyClip,
    FixedDurationClip,
    HuggingFaceClip,
    MARSegmentClip,
    MMAction2Clip,
    VideoMAEClip,
    VideoMAESegmentClip,
    Views,
)
from tubelet.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """A published way of testing a classifier.

    Attributes:
        clip: which frames make a clip; for a model of another number of frames, with that number.
        views: clips and crops, how frames are scaled and cut, and how the views' scores are combined.
        precision: what it computes in; `auto` is what the model was trained in.
        source: the code that it reproduces, and the paper with its results.
    """

    clip: AnyClip
    views: Views
    source: str
    precision: Literal["auto", "fp32"] = "auto"


PROTOCOLS: Mapping[str, EvaluationProtocol] = {
    "videomae_k400": EvaluationProtocol(
        clip=VideoMAEClip(),
        views=Views(clips=5, crops=3, geometry="videomae", scores="mean_probability"),
        source="MCG-NJU/VideoMAE, arXiv 2203.12602",
    ),
    "videomae_ssv2": EvaluationProtocol(
        clip=VideoMAESegmentClip(),
        views=Views(clips=2, crops=3, geometry="videomae", scores="mean_probability"),
        source="MCG-NJU/VideoMAE, arXiv 2203.12602",
    ),
    "videomaev2_k400": EvaluationProtocol(
        clip=VideoMAEClip(),
        views=Views(clips=5, crops=3, geometry="videomae", scores="mean_probability"),
        source="OpenGVLab/VideoMAEv2, arXiv 2303.16727",
    ),
    "videomaev2_ssv2": EvaluationProtocol(
        clip=VideoMAESegmentClip(pad="front"),
        views=Views(clips=2, crops=3, geometry="videomae", scores="mean_probability"),
        source="OpenGVLab/VideoMAEv2, arXiv 2303.16727",
    ),
    "mae_st_k400": EvaluationProtocol(
        clip=FixedDurationClip(middle="floor"),
        views=Views(clips=7, crops=3, geometry="mae_st", scores="mean_probability"),
        source="facebookresearch/mae_st, arXiv 2205.09113",
        precision="fp32",
    ),
    "mar_k400": EvaluationProtocol(
        clip=FixedDurationClip(),
        views=Views(clips=5, crops=3, geometry="mar", scores="mean_probability"),
        source="alibaba-mmai-research/Masked-Action-Recognition, arXiv 2207.11660",
        precision="fp32",
    ),
    "mar_ssv2": EvaluationProtocol(
        clip=MARSegmentClip(),
        views=Views(clips=2, crops=3, geometry="mar", scores="mean_probability"),
        source="alibaba-mmai-research/Masked-Action-Recognition, arXiv 2207.11660",
        precision="fp32",
    ),
    "mmaction2_k400": EvaluationProtocol(
        clip=MMAction2Clip(),
        views=Views(clips=5, crops=3, geometry="mmaction2", scores="mean_probability"),
        source="open-mmlab/mmaction2",
    ),
    "huggingface": EvaluationProtocol(
        clip=HuggingFaceClip(),
        views=Views(clips=1, crops=1, geometry="huggingface", scores="mean_probability"),
        source="huggingface/transformers, VideoMAEVideoProcessor",
    ),
}
"""What `protocol=` may be; docs/evaluation.md explains them."""


def named_protocol(name: str) -> EvaluationProtocol:
    """Return a protocol by its name; raise a UserError with the nearest name if there is no such protocol."""
    if name not in PROTOCOLS:
        raise UserError(
            f"protocol must be one of {', '.join(PROTOCOLS)}, found '{name}'{did_you_mean(name, PROTOCOLS)}"
        )
    return PROTOCOLS[name]
