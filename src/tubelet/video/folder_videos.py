"""The videos of a folder."""

from pathlib import Path

from tubelet.errors import UserError
from tubelet.video.image_folder import is_image
from tubelet.video.sources import VIDEO_SUFFIXES


def videos_in(folder: Path) -> list[Path]:
    """Return the video files below a folder, by their suffixes, in the order of their paths.

    A folder with images but without videos is itself a video, the images its frames.

    Raises:
        UserError: the folder has neither.
    """
    if found := sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES):
        return found
    if any(map(is_image, folder.iterdir())):
        return [folder]
    raise UserError(f"{folder}: no videos in this folder")
