"""Make the files beside this one from a folder of golden numbers: `python tests/golden/make.py FOLDER`.

The folder holds, for each system, `NAME.pth`, a small checkpoint in that system's layout, and
`NAME.io.safetensors`, an input and what the system's own code answered; and `meta.json`, their sizes. Random
numbers hardly compress, so what several systems share is kept once, of predictions some tokens are, and no
file is over a megabyte.
"""

import argparse
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

HERE = Path(__file__).parent
PART = 1_000_000  # bytes of a file

# name: (layout, epsilon of the LayerNorms, every how manieth predicted token is kept). VideoMAE's models were
# built without their factory functions, and so with PyTorch's epsilon.
SYSTEMS = {
    "videomae_pretrain": ("videomae", 1e-5, 16),
    "videomae_finetune": ("videomae", 1e-5, 1),
    "videomaev2_pretrain": ("videomaev2", 1e-5, 16),
    "videomaev2_finetune": ("videomaev2", 1e-5, 1),
    "mae_st_pretrain": ("mae_st", 1e-6, 16),
    "mae_st_released_pretrain": ("mae_st", 1e-6, 16),
    "mae_st_finetune": ("mae_st", 1e-6, 1),
    "mmaction2_finetune": ("mmaction2", 1e-6, 1),
    "mar": ("mar", 1e-6, 64),
}
SAME_WEIGHTS = {"videomaev2_pretrain": "videomae_pretrain", "videomaev2_finetune": "videomae_finetune"}
WEIGHTS = "<weights>"


def main(source: Path) -> None:
    """Write all files."""
    meta = json.loads((source / "meta.json").read_text())
    kept: dict[str, Any] = {}
    for name, (layout, eps, stride) in SYSTEMS.items():
        sizes = meta[name]
        with torch.serialization.safe_globals([argparse.Namespace]):
            outer = torch.load(source / f"{name}.pth", weights_only=True)
        member = next(key for key, value in outer.items() if is_weights(value))
        answers = load_file(source / f"{name}.io.safetensors")
        video = f"video_{sizes['img']}"
        pack(video, {"video": answers.pop("video")}, video=True)
        weights = SAME_WEIGHTS.get(name, name)
        if weights == name:
            pack(f"{name}_weights", dict(outer[member]))
        pack(f"{name}_answers", thinned(answers, stride))
        kept[name] = {
            "layout": layout,
            "outer": outer | {member: WEIGHTS},
            "weights": f"{weights}_weights",
            "video": video,
            "norm_eps": eps,
            "stride": stride,
            "image_size": sizes["img"],
            "frames": sizes["frames"],
            "heads": sizes["heads"],
            "decoder_heads": sizes.get("dec_heads"),
            "bridge_heads": sizes.get("cls_heads"),
        }
    (HERE / "meta.json").write_text(json.dumps(kept, indent=1) + "\n")


def is_weights(value: object) -> bool:
    return isinstance(value, dict) and any(isinstance(item, Tensor) for item in value.values())


def thinned(answers: dict[str, Tensor], stride: int) -> dict[str, Tensor]:
    """Of predictions those for masked tokens, in raster order, and of these every `stride`-th."""
    if "recon_pred" in answers:
        answers["recon_pred"] = answers["recon_pred"][:, :: stride // 16].contiguous()  # it has every 16th
    if "pred" in answers:
        predicted, masked = answers["pred"], answers["mask"].bool()
        if predicted.shape[1] == masked.shape[1]:  # every token was predicted
            predicted = predicted[masked].unflatten(0, (len(predicted), -1))
        answers["pred"] = predicted[:, ::stride].contiguous()
    return answers


def pack(name: str, tensors: dict[str, Tensor], *, video: bool = False) -> None:
    """Write NAME.0.xz, NAME.1.xz, ... of safetensors."""
    literal = {"lc": 4, "pb": 0} if video else {"lc": 2, "lp": 2, "pb": 2}  # bytes, or groups of four
    before = [{"id": lzma.FILTER_DELTA, "dist": 1}] if video else []
    last = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, **literal}
    packed = lzma.compress(save(tensors), filters=[*before, last])
    for number, start in enumerate(range(0, len(packed), PART)):
        (HERE / f"{name}.{number}.xz").write_bytes(packed[start : start + PART])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
