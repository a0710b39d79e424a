"""Draw an image of the first clips of a training on a manifest."""

from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from tubelet.clips import SegmentClip
from tubelet.data.augment import Augment
from tubelet.data.dataset import TrainDataset, collate
from tubelet.data.manifest import Manifest
from tubelet.errors import UserError
from tubelet.files import replacing

_NUM_CLIPS, _NUM_FRAMES = 8, 8
_SIDE_PX, _GAP_PX, _TITLE_PX = 112, 2, 20


def save_preview(manifest: Manifest, path: Path) -> None:
    """Draw a first training batch to a PNG file: a clip a row, eight frames each, below its classes and name.

    Raises:
        UserError: no clip can be read.
    """
    dataset = TrainDataset(manifest, SegmentClip(frames=_NUM_FRAMES), Augment(), size=_SIDE_PX)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:_NUM_CLIPS]
    batch = collate([dataset[0, int(index)] for index in chosen])
    if not len(batch):
        raise UserError(f"{manifest.root / manifest.split}.csv: no clip can be read: {batch.failures}")
    width = _NUM_FRAMES * (_SIDE_PX + _GAP_PX) - _GAP_PX
    sheet = Image.new("RGB", (width, len(batch) * (_TITLE_PX + _SIDE_PX + _GAP_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 13)
    for row, clip in enumerate(batch.video):
        top = row * (_TITLE_PX + _SIDE_PX + _GAP_PX)
        sample = manifest.samples[int(batch.index[row])]
        names = ", ".join(manifest.classes[label] for label in sample.classes)
        title = " - ".join(filter(None, (names, Path(sample.name).name)))
        draw.text((2, top + 2), title, fill="black", font=font)
        for k, frame in enumerate(clip.permute(0, 2, 3, 1).numpy()):
            sheet.paste(Image.fromarray(frame), (k * (_SIDE_PX + _GAP_PX), top + _TITLE_PX))
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG")
