"""What the user may say about a checkpoint because its file may not record it."""

from typing import Annotated, Any, TypedDict, cast

from tubelet.errors import require_at_least


class ArchitectureHints(TypedDict, total=False):
    """Keyword arguments of `load_model`, each with the help of its option; None is as if not given."""

    heads: Annotated[int | None, "Attention heads of the encoder."]
    decoder_heads: Annotated[int | None, "Attention heads of the decoder."]
    bridge_heads: Annotated[int | None, "Attention heads of MAR's classifier."]
    image_size: Annotated[int | None, "Side of the frames in pixels; a model of another size is resized."]
    frames: Annotated[int | None, "Frames of a clip; a model of another number is resized."]
    norm_eps: Annotated[float | None, "Epsilon of the LayerNorms (default: 1e-6)."]


def given_hints(hints: ArchitectureHints) -> ArchitectureHints:
    """Return the hints that are not None.

    Raises:
        TypeError: there is no such hint.
        UserError: a hint is out of range.
    """
    given: dict[str, Any] = {name: value for name, value in hints.items() if value is not None}
    for name, value in given.items():
        if name not in ArchitectureHints.__annotations__:
            raise TypeError(f"load_model() got an unexpected keyword argument '{name}'")
        require_at_least(0 if name == "norm_eps" else 1, **{name: value})
    return cast(ArchitectureHints, given)
