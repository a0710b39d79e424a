"""How a data set is prepared."""

from dataclasses import dataclass

from tubelet.errors import UserError

PREVIEW = "preview.png"  # in the data set's folder


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How a data set is prepared.

    Attributes:
        encode: write every video anew in the form that trains fastest, to OUT/videos.
        short_side: of those, in pixels; smaller videos keep their size.
        preview: draw OUT/preview.png.
        workers: processes; None for as many as cores, 0 for this one.

    Raises:
        UserError: the short side is below 16 pixels.
    """

    encode: bool = False
    short_side: int = 256
    preview: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.short_side < 16:
            raise UserError(f"the short side must be at least 16 pixels, found {self.short_side}")
