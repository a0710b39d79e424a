"""Tables of plain text."""

from collections.abc import Sequence

from tubelet.errors import printable


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of equally many cells as lines with aligned columns."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
