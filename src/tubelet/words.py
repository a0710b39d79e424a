"""Counting in words."""


def counted(count: int, one: str, many: str | None = None) -> str:
    """So many of something: `1 video`, `2,000 videos`; `counted(2, "class", "classes")` is `2 classes`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
