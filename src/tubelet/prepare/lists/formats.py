"""The formats of lists that are detected, or named by --format."""

Columns = tuple[str, ...]
"""What the fields of a line are: names in COLUMN_NAMES; "label..." stands for any number of labels.

"first" is an offset that is not shifted by one, as VideoMAE V2 writes it.
"""

LINE_FORMATS: dict[str, Columns] = {
    "paths": ("path",),
    "videomae": ("path", "label"),
    "videomae_frames": ("path", "frames", "label"),
    "videomaev2_pretrain": ("path", "first", "frames"),
    "mae_st": ("path", "label"),
    "mar": ("path", "label"),
    "pyslowfast": ("path", "label"),
    "mmaction2": ("path", "label"),
    "mmaction2_multi_label": ("path", "label..."),
    "mmaction2_frames": ("path", "frames", "label"),
    "mmaction2_frames_multi_label": ("path", "frames", "label..."),
    "mmaction2_offset": ("path", "offset", "frames", "label"),
    "mmaction2_offset_multi_label": ("path", "offset", "frames", "label..."),
}
"""Formats of a path and fields behind it -> the fields."""

FORMATS = (*LINE_FORMATS, "ava", "csv", "json")
