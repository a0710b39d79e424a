"""Foreign checkpoints as reversible tables: one entry for each tensor of the file, used exactly once."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tubelet.errors import UserError, first_few
from tubelet.patches import Size3

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Rename:
    """The same tensor under another name."""

    ours: str
    theirs: str


@dataclass(frozen=True)
class Kernel:
    """The patch embedding: their convolution (D, C, t, h, w) is our matrix (D, t * h * w * C)."""

    ours: str
    theirs: str
    tubelet: Size3


@dataclass(frozen=True)
class Stack:
    """Our tensor is their tensors concatenated: queries, keys and values."""

    ours: str
    theirs: tuple[str, ...]


@dataclass(frozen=True)
class ConcatenatedEntry:
    """Their position table is ours with the class token's position as its first row."""

    ours: tuple[str, str]
    theirs: str


@dataclass(frozen=True)
class Constant:
    """A tensor that their file stores and we compute. `check` refuses a file with other values."""

    theirs: str
    value: Tensor
    check: bool = True


Entry = Rename | Kernel | Stack | ConcatenatedEntry | Constant


def affine(ours: str, theirs: str) -> Iterator[Rename]:
    """Yield the entries of a weight and a bias."""
    yield Rename(f"{ours}.weight", f"{theirs}.weight")
    yield Rename(f"{ours}.bias", f"{theirs}.bias")


def patch_embedding(theirs: str, tubelet: Size3) -> Iterator[Entry]:
    """Yield the entries of the encoder's patch embedding."""
    yield Kernel("encoder.embed.project.weight", f"{theirs}.weight", tubelet)
    yield Rename("encoder.embed.project.bias", f"{theirs}.bias")


@dataclass(frozen=True, kw_only=True)
class BlockNames:
    """The names that a code base gives to the parts of a transformer block.

    Attributes:
        norm1: the first LayerNorm.
        norm2: the second LayerNorm.
        qkv: the one layer of queries, keys and values, or the three layers.
        bias: the biases of queries and values if keys have no bias; None if the layers of `qkv` have biases.
        project: attention's output layer.
        up: the MLP's first layer.
        down: the MLP's second layer.
    """

    norm1: str = "norm1"
    norm2: str = "norm2"
    qkv: tuple[str, ...] = ("attn.qkv",)
    bias: tuple[str, str] | None = ("attn.q_bias", "attn.v_bias")
    project: str = "attn.proj"
    up: str = "mlp.fc1"
    down: str = "mlp.fc2"


def blocks(
    ours: str, theirs: str, depth: int, names: BlockNames, *, layer_scale: bool = False
) -> Iterator[Entry]:
    """Yield the entries of a transformer's blocks, `ours.N` and `theirs.N`."""
    for i in range(depth):
        our, their = f"{ours}.{i}", f"{theirs}.{i}"
        yield from affine(f"{our}.norm1", f"{their}.{names.norm1}")
        yield Stack(f"{our}.attention.qkv.weight", tuple(f"{their}.{part}.weight" for part in names.qkv))
        if names.bias:
            yield Rename(f"{our}.attention.query_bias", f"{their}.{names.bias[0]}")
            yield Rename(f"{our}.attention.value_bias", f"{their}.{names.bias[1]}")
        else:
            yield Stack(f"{our}.attention.qkv.bias", tuple(f"{their}.{part}.bias" for part in names.qkv))
        yield from affine(f"{our}.attention.project", f"{their}.{names.project}")
        yield from affine(f"{our}.norm2", f"{their}.{names.norm2}")
        yield from affine(f"{our}.mlp.0", f"{their}.{names.up}")
        yield from affine(f"{our}.mlp.2", f"{their}.{names.down}")
        if layer_scale:
            yield Rename(f"{our}.scale1", f"{their}.gamma_1")
            yield Rename(f"{our}.scale2", f"{their}.gamma_2")


def read_table(
    table: Iterable[Entry], theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str
) -> Weights:
    """Translate the tensors of a file, after the one strict check of a checkpoint's weights.

    Args:
        table: an entry for each tensor of the file.
        theirs: the tensors of the file.
        expected: tensors with our names and shapes: the state of the model to fill.
        source: the file, for messages.

    Raises:
        UserError: tensors are missing, left over or of another shape, the first listed by their names in the
            file; or a constant has other values.
    """
    table = list(table)
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in expected.items()}
    needed = {name: tuple(tensor.shape) for name, tensor in write_table(table, shapes, source).items()}
    found = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    wrong = [
        f"{name}: expected {needed.get(name, 'nothing')}, found {found.get(name, 'nothing')}"
        for name in sorted(needed.keys() | found.keys())
        if needed.get(name) != found.get(name)
    ]
    if wrong:
        listed = first_few(wrong, separator="\n  ")
        raise UserError(f"{source} does not fit its architecture, these tensors differ:\n  {listed}")
    ours: Weights = {}
    for entry in table:
        ours |= _read_entry(entry, theirs, source)
    return ours


def _read_entry(entry: Entry, theirs: Mapping[str, Tensor], source: str) -> Weights:
    match entry:
        case Rename():
            return {entry.ours: theirs[entry.theirs]}
        case Kernel():
            return {entry.ours: theirs[entry.theirs].permute(0, 2, 3, 4, 1).flatten(1).contiguous()}
        case Stack():
            return {entry.ours: torch.cat([theirs[name] for name in entry.theirs])}
        case ConcatenatedEntry():
            table = theirs[entry.theirs]
            parts = table[:, :1].contiguous(), table[:, 1:].contiguous()
            return dict(zip(entry.ours, parts, strict=True))
        case Constant(check=True):
            if not torch.allclose(theirs[entry.theirs], entry.value, rtol=0, atol=1e-4):
                raise UserError(
                    f"{source}: expected {entry.theirs} to be the fixed table that its code computes"
                )
    return {}


def write_table(table: Iterable[Entry], ours: Mapping[str, Tensor], layout: str) -> Weights:
    """Translate our tensors to theirs.

    Raises:
        UserError: the layout cannot store one of our tensors, or needs one that the model does not have; the
            first are listed.
    """
    table = list(table)
    taken = [name for entry in table for name in _our_names(entry)]
    homeless, missing = sorted(set(ours) - set(taken)), [name for name in taken if name not in ours]
    problems = [f"it cannot store {first_few(homeless)}"] if homeless else []
    problems += [f"it also needs {first_few(missing)}"] if missing else []
    if problems:
        raise UserError(f"the layout {layout} cannot hold this model: " + "; ".join(problems))
    theirs: Weights = {}
    for entry in table:
        theirs |= _write_entry(entry, ours)
    return theirs


def _write_entry(entry: Entry, ours: Mapping[str, Tensor]) -> Weights:
    match entry:
        case Rename():
            return {entry.theirs: ours[entry.ours].clone()}
        case Kernel():
            kernel = ours[entry.ours].unflatten(1, (*entry.tubelet, -1)).permute(0, 4, 1, 2, 3)
            return {entry.theirs: kernel.contiguous()}
        case Stack():
            parts = ours[entry.ours].chunk(len(entry.theirs))
            return {name: part.clone() for name, part in zip(entry.theirs, parts, strict=True)}
        case ConcatenatedEntry():
            return {entry.theirs: torch.cat([ours[name] for name in entry.ours], dim=1)}
        case Constant():
            return {entry.theirs: entry.value.clone()}


def _our_names(entry: Entry) -> tuple[str, ...]:
    match entry:
        case Constant():
            return ()
        case ConcatenatedEntry():
            return entry.ours
    return (entry.ours,)
