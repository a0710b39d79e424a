"""The checkpoints that others have published: what each holds, where it is and what it reaches.

A name says `method_size_data`, then what sets the file apart: the epochs of a shorter schedule (`800e`),
what was done after pre-training (`finetuned`, `distilled`), and the host where it is not the authors' own
(`hf`, `mmaction2`, `pyslowfast`, `demo`). Nothing here was loaded or measured by this project: accuracies are
those of the publishers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tubelet.errors import UserError, did_you_mean

Family = Literal["videomae", "videomaev2", "mae_st", "mmaction2", "huggingface"]
Size = Literal["small", "base", "large", "huge", "giant"]
Contents = Literal["autoencoder", "encoder", "classifier"]
NOT_STATED = "not stated"


@dataclass(frozen=True, kw_only=True)
class Web:
    """A file at a public address.

    Attributes:
        url: the address.
        mirror: where the same file is too.
    """

    url: str
    mirror: str | None = None

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A model repository on the Hugging Face hub.

    Attributes:
        repo: its id, `owner/name`.
        file: one file inside it; None is a whole model with its `config.json`.
    """

    repo: str
    file: str | None = None

    def __str__(self) -> str:
        return self.repo if self.file is None else f"{self.repo}/{self.file}"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A checkpoint that others have published.

    Attributes:
        name: how it is called here, lower case with underscores.
        family: who published the file, and so how it is laid out.
        size: the encoder's.
        contains: an autoencoder is an encoder with its decoder, a classifier one with its head.
        data: the data set it was trained on, its classes' where it has some.
        source: where it can be downloaded; None where that takes a human.
        md5_prefix: the first digits of the file's MD5, where they are known.
        sha256: the file's SHA-256, where it is known.
        given: what the file does not tell, or tells wrongly, as keywords of `load_model`.
        license: of the weights.
        top1: top-1 accuracy in percent, as published for this file.
        top5: top-5 accuracy in percent, likewise.
        protocol: what that was measured with.
        obtainable: how to get the file where `source` is None.
        note: what else one should know.
    """

    name: str
    family: Family
    size: Size
    contains: Contents
    data: str
    source: Web | Hub | None = None
    md5_prefix: str | None = None
    sha256: str | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    license: str
    top1: float | None = None
    top5: float | None = None
    protocol: str | None = None
    obtainable: str | None = None
    note: str = ""

    def describe(self) -> str:
        """All that is known of it, one line each."""
        accuracy = " / ".join(f"{value} %" for value in (self.top1, self.top5) if value is not None)
        given = ", ".join(f"{name}={value}" for name, value in self.given.items())
        rows = {
            "name": self.name,
            "holds": f"{self.contains}, ViT-{self.size}, {self.family}",
            "trained on": self.data,
            "from": str(self.source or self.obtainable),
            "checksum": f"MD5 {self.md5_prefix}..." if self.md5_prefix else self.sha256 or "",
            "loaded with": given,
            "top-1/top-5": f"{accuracy} ({self.protocol})" if accuracy else "",
            "license": self.license,
            "note": self.note,
        }
        return "\n".join(f"{name:12} {value}" for name, value in rows.items() if value)


_CC_BY_NC = "CC-BY-NC-4.0"
_DENSE = "16 frames, stride 4, 5 x 3 views"
_UNIFORM = "16 frames, spread over the video, 2 x 3 views"
_SHORT: dict[Size, str] = {"small": "ViT-S", "base": "ViT-B", "large": "ViT-L", "huge": "ViT-H"}


def _videomae(
    size: Size, data: str, epochs: int, top1: float, top5: float, *, usual: bool = True, note: str = ""
) -> tuple[Published, Published]:
    """A row of VideoMAE's model zoo: the pre-trained and the fine-tuned model.

    Args:
        usual: its schedule is the one that goes without saying in a name.
        note: on the fine-tuned model.
    """
    name = f"videomae_{size}_{data.lower()}" + ("" if usual else f"_{epochs}e")

    def by_hand(column: str, name: str) -> str:
        copied = f"; or give {name}_hf, its copy on the hub" if name in _ON_HUB else ""
        return (
            "It is on Google Drive: open https://github.com/MCG-NJU/VideoMAE/blob/main/MODEL_ZOO.md, follow "
            f"the link 'checkpoint' under {column} in the row {_SHORT[size]}, {epochs} epochs, of {data}, "
            f"download the file by hand and give its path{copied}"
        )

    def row(name: str, contains: Contents, column: str, **more: Any) -> Published:
        return Published(
            name=name,
            family="videomae",
            size=size,
            contains=contains,
            data=data,
            license=_CC_BY_NC,
            obtainable=by_hand(column, name),
            **more,
        )

    return (
        row(name, "autoencoder", "Pre-train", note=f"pre-trained for {epochs} epochs"),
        row(
            f"{name}_finetuned",
            "classifier",
            "Fine-tune",
            top1=top1,
            top5=top5,
            protocol=_UNIFORM if data == "SSv2" else _DENSE,
            note="; ".join(filter(None, [f"pre-trained for {epochs} epochs on the same data", note])),
        ),
    )


# Names of `_videomae`, and which repository of MCG-NJU on the hub holds a copy.
_ON_HUB = {
    "videomae_base_k400": "videomae-base",
    "videomae_base_k400_800e": "videomae-base-short",
    "videomae_base_k400_finetuned": "videomae-base-finetuned-kinetics",
    "videomae_base_k400_800e_finetuned": "videomae-base-short-finetuned-kinetics",
    "videomae_base_ssv2": "videomae-base-ssv2",
    "videomae_base_ssv2_800e": "videomae-base-short-ssv2",
    "videomae_base_ssv2_finetuned": "videomae-base-finetuned-ssv2",
    "videomae_base_ssv2_800e_finetuned": "videomae-base-short-finetuned-ssv2",
    "videomae_large_k400": "videomae-large",
    "videomae_large_k400_finetuned": "videomae-large-finetuned-kinetics",
    "videomae_huge_k400_finetuned": "videomae-huge-finetuned-kinetics",
    "videomae_small_k400_finetuned": "videomae-small-finetuned-kinetics",
    "videomae_small_ssv2_finetuned": "videomae-small-finetuned-ssv2",
}
_ONE_COPY = "fine-tuned without repeated augmentation"
_VIDEOMAE = (
    *_videomae("small", "K400", 1600, 79.0, 93.8),
    *_videomae("base", "K400", 800, 80.0, 94.4, usual=False, note=_ONE_COPY),
    *_videomae("base", "K400", 1600, 81.5, 95.1),
    *_videomae("large", "K400", 1600, 85.2, 96.8),
    *_videomae("huge", "K400", 1600, 86.6, 97.1),
    *_videomae("small", "SSv2", 2400, 66.8, 90.3),
    *_videomae("base", "SSv2", 800, 69.6, 92.0, usual=False, note=_ONE_COPY),
    *_videomae("base", "SSv2", 2400, 70.8, 92.4),
    *_videomae("base", "UCF101", 3200, 91.3, 98.5),
)


def _on_hub(original: Published, repo: str) -> Published:
    """The hub's copy of a model of VideoMAE's zoo."""
    notes = [original.note]
    given: dict[str, Any] = {}
    if original.size == "small":
        given = {"heads": 6}
        notes.append(
            "the hub's config is believed to say 16 heads where the model has 6 (unverified)"
            + (
                "; 42 % top-1 was reported of it as it is, for no certain reason"
                if original.data == "K400"
                else ""
            )
        )
    if original.top1 is not None:
        notes.append("accuracies are the original's")
    if repo == "videomae-base-finetuned-kinetics":
        notes.append("older cards on the hub say 80.9 / 94.7")
    if original.contains == "autoencoder":
        notes.append(
            "the hub's config switches mean pooling off, and its card speaks of a class token: there is none"
        )
    return Published(
        name=f"{original.name}_hf",
        family="huggingface",
        size=original.size,
        contains=original.contains,
        data=original.data,
        source=Hub(repo=f"MCG-NJU/{repo}"),
        given=given,
        license=original.license,
        top1=original.top1,
        top5=original.top5,
        protocol=original.protocol,
        note="; ".join(notes),
    )


_HUGGINGFACE = tuple(_on_hub(row, _ON_HUB[row.name]) for row in _VIDEOMAE if row.name in _ON_HUB)


def _distilled(size: Size, letter: str, top1: float, elsewhere: str) -> Published:
    return Published(
        name=f"videomaev2_{size}_k710_distilled",
        family="videomaev2",
        size=size,
        contains="classifier",
        data="K710",
        source=Hub(repo="OpenGVLab/VideoMAE2", file=f"distill/vit_{letter}_k710_dl_from_giant.pth"),
        license=_CC_BY_NC,
        top1=top1,
        protocol=_DENSE,
        note=f"distilled from the giant model; {elsewhere} by the classes they share; 710 classes in an "
        "order of their own; the license is the hub card's, the code's is MIT",
    )


def _giant(data: str, file: str, **more: Any) -> Published:
    contains: Contents = more.pop("contains", "classifier")
    tuned = "_finetuned" if contains == "classifier" else ""
    return Published(
        name=f"videomaev2_giant_{'hybrid' if data == 'UnlabeledHybrid' else data.lower()}{tuned}",
        family="videomaev2",
        size="giant",
        contains=contains,
        data=data,
        license=_CC_BY_NC,
        obtainable="Its authors ask for a form: fill in the one on "
        "https://github.com/OpenGVLab/VideoMAEv2/blob/master/docs/MODEL_ZOO.md, download "
        f"{file} by hand and give its path",
        note="may be in the folder mae-g/ of the hub's OpenGVLab/VideoMAE2 or "
        "OpenGVLab/InternVideoMAE_models too (unverified); the license is the hub cards', the code's is MIT",
        **more,
    )


def _encoder(size: Size, repo: str) -> Published:
    return Published(
        name=f"videomaev2_{size}_hybrid_hf",
        family="videomaev2",
        size=size,
        contains="encoder",
        data="UnlabeledHybrid",
        source=Hub(repo=f"OpenGVLab/{repo}"),
        license=_CC_BY_NC,
        note="the data set and the names of the weights are unverified; the license is the hub card's, the "
        "code's is MIT",
    )


_VIDEOMAEV2 = (
    _distilled("small", "s", 77.6, "83.7 on K400 and 83.1 on K600"),
    _distilled("base", "b", 81.5, "86.6 on K400 and 85.9 on K600"),
    _giant("UnlabeledHybrid", "vit_g_hybrid_pt_1200e.pth", contains="autoencoder"),
    _giant("K710", "vit_g_hybrid_pt_1200e_k710_ft.pth", top1=83.8, top5=96.4, protocol=_DENSE),
    _giant("SSv2", "vit_g_hybrid_pt_1200e_ssv2_ft.pth", top1=77.0, top5=95.9, protocol=_UNIFORM),
    _encoder("base", "VideoMAEv2-Base"),
    _encoder("large", "VideoMAEv2-Large"),
    _encoder("huge", "VideoMAEv2-Huge"),
    _encoder("giant", "VideoMAEv2-giant"),
)
_FBAI = "https://dl.fbaipublicfiles.com"


def _mae_st(size: Size, data: str, md5_prefix: str) -> Published:
    place = f"vit_{size[0]}/{data.lower()}_400ep_rep4_mr9_16x4.pyth"
    seen = size == "large" and data == "K400"
    return Published(
        name=f"mae_st_{size}_{data.lower()}",
        family="mae_st",
        size=size,
        contains="autoencoder",
        data=data,
        source=Web(
            url=f"{_FBAI}/video-mae/pretrain/mae_pretrain_vit_{size}_{data.lower()}.pth",
            mirror=f"{_FBAI}/mae_st/pretrain/{place}",
        ),
        md5_prefix=md5_prefix,
        given={"decoder_heads": 8},
        license=_CC_BY_NC,
        note="pre-trained for 1600 epochs; predicts normalised pixels; the decoder's 8 heads are unverified"
        + ("" if seen else ", and so is the layout"),
    )


def _pyslowfast(size: Size, file: str, top1: float) -> Published:
    return Published(
        name=f"mae_st_{size}_k400_pyslowfast",
        family="mae_st",
        size=size,
        contains="autoencoder",
        data="K400",
        source=Web(url=f"{_FBAI}/pyslowfast/masked_models/{file}"),
        given={"decoder_heads": 8},
        license=NOT_STATED,
        note=f"fine-tuned on K400 by its authors: {top1} % top-1; the layout of the attention is unverified",
    )


def _demo(which: str, file: str, note: str) -> Published:
    return Published(
        name=f"mae_st_large_{which}_demo",
        family="mae_st",
        size="large",
        contains="autoencoder",
        data=NOT_STATED,
        source=Web(url=f"{_FBAI}/{file}"),
        given={"decoder_heads": 16},
        license=NOT_STATED,
        note=f"made for pictures: predicts pixels that are not normalised by patch; {note}",
    )


_MAE_ST = (
    _mae_st("large", "K400", "edf3a5"),
    _mae_st("huge", "K400", "3d7f64"),
    _mae_st("large", "K600", "9a9645"),
    _mae_st("huge", "K600", "27495e"),
    _mae_st("large", "K700", "cdbada"),
    _mae_st("huge", "K700", "4c4e3c"),
    _pyslowfast("base", "VIT_B_16x4_MAE_PT.pyth", 81.3),
    _pyslowfast("large", "VIT_L_16x4_MAE_PT.pyth", 84.8),
    _pyslowfast("huge", "VIT_H_16x4_MAE_PT_400e_85.1.pyth", 85.1),
    _demo("100x4", "video-mae-100x4-joint.pth", "3.8 GB, for the optimiser's state is in it"),
    _demo("200x4", "video-mae-200x4-nonorm.pth", "its layout is unverified"),
)
_OPENMMLAB = "https://download.openmmlab.com/mmaction/v1.0/recognition"


def _mmaction2(method: str, size: Size, path: str, top1: float, top5: float, note: str) -> Published:
    return Published(
        name=f"{method}_mmaction2",
        family="mmaction2",
        size=size,
        contains="classifier",
        data="K400",
        source=Web(url=f"{_OPENMMLAB}/{path}"),
        license=_CC_BY_NC,
        top1=top1,
        top5=top5,
        protocol=_DENSE,
        note=f"{note}; the license is the original weights', MMAction2's code is Apache-2.0",
    )


_V2_S = "vit-small-p16_videomaev2-vit-g-dist-k710-pre_16x4x1_kinetics-400"
_V2_B = "vit-base-p16_videomaev2-vit-g-dist-k710-pre_16x4x1_kinetics-400"
_MMACTION2 = (
    _mmaction2(
        "videomae_base_k400_finetuned",
        "base",
        "videomae/vit-base-p16_videomae-k400-pre_16x4x1_kinetics-400_20221013-860a3cd3.pth",
        81.3,
        95.0,
        "converted from VideoMAE's",
    ),
    _mmaction2(
        "videomae_large_k400_finetuned",
        "large",
        "videomae/vit-large-p16_videomae-k400-pre_16x4x1_kinetics-400_20221013-229dbb03.pth",
        85.3,
        96.7,
        "converted from VideoMAE's",
    ),
    _mmaction2(
        "videomaev2_small_k400_distilled",
        "small",
        f"videomaev2/{_V2_S}/{_V2_S}_20230510-25c748fd.pth",
        83.6,
        96.3,
        "converted from VideoMAE V2's; MMAction2's metafile names ViT-B's file here, which is wrong: this is "
        "its README's",
    ),
    _mmaction2(
        "videomaev2_base_k400_distilled",
        "base",
        f"videomaev2/{_V2_B}/{_V2_B}_20230510-3e7f93b2.pth",
        86.6,
        97.3,
        "converted from VideoMAE V2's",
    ),
)
PUBLISHED: tuple[Published, ...] = (*_VIDEOMAE, *_HUGGINGFACE, *_VIDEOMAEV2, *_MAE_ST, *_MMACTION2)


def find(name: str) -> Published:
    """The published checkpoint of this name.

    Args:
        name: such as `mae_st_large_k400`.

    Returns:
        What is known of it.

    Raises:
        UserError: there is none.
    """
    names = {row.name: row for row in PUBLISHED}
    if name not in names:
        hint = did_you_mean(name, names) or "; `tubelet zoo` lists those there are"
        raise UserError(f"no published checkpoint is called '{name}'{hint}")
    return names[name]
