"""Whether H.264 can be written: FFmpeg has no encoder of its own, and not every build of it has x264."""

import av

from tubelet.errors import UserError


def require_x264() -> None:
    """Raise a UserError where PyAV cannot encode H.264."""
    if "libx264" not in av.codec.codecs_available:
        raise UserError("this build of PyAV has no libx264 encoder; `pip install av` brings a wheel that has")
