"""Foreign checkpoints as reversible tables: one entry for each of their tensors, used exactly once."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tubelet.errors import UserError
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
    """Their tensors are ours, one below the other: queries, keys and values."""

    ours: str
    theirs: tuple[str, ...]


@dataclass(frozen=True)
class Concatenated:
    """Their position table is ours, with the class token's position as its first row."""

    ours: tuple[str, str]
    theirs: str


@dataclass(frozen=True)
class Constant:
    """What their file holds and we compute. `check` refuses a file that holds something else."""

    theirs: str
    value: Tensor
    check: bool = True


Entry = Rename | Kernel | Stack | Concatenated | Constant


def affine(ours: str, theirs: str) -> Iterator[Rename]:
    """A weight and a bias."""
    yield Rename(f"{ours}.weight", f"{theirs}.weight")
    yield Rename(f"{ours}.bias", f"{theirs}.bias")


def patch_embedding(theirs: str, tubelet: Size3) -> Iterator[Entry]:
    """The encoder's patch embedding."""
    yield Kernel("encoder.embed.project.weight", f"{theirs}.weight", tubelet)
    yield Rename("encoder.embed.project.bias", f"{theirs}.bias")


@dataclass(frozen=True, kw_only=True)
class BlockNames:
    """What a code base calls the parts of a transformer block.

    Attributes:
        norm1: the first LayerNorm.
        norm2: the second LayerNorm.
        qkv: the one matrix of queries, keys and values, or the three of them.
        bias: the biases of queries and values where keys have none; None where the layers above have biases.
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
    """The blocks of a transformer, `ours.N` and `theirs.N`."""
    for i in range(depth):
        here, there = f"{ours}.{i}", f"{theirs}.{i}"
        yield from affine(f"{here}.norm1", f"{there}.{names.norm1}")
        yield Stack(f"{here}.attention.qkv.weight", tuple(f"{there}.{part}.weight" for part in names.qkv))
        if names.bias:
            yield Rename(f"{here}.attention.query_bias", f"{there}.{names.bias[0]}")
            yield Rename(f"{here}.attention.value_bias", f"{there}.{names.bias[1]}")
        else:
            yield Stack(f"{here}.attention.qkv.bias", tuple(f"{there}.{part}.bias" for part in names.qkv))
        yield from affine(f"{here}.attention.project", f"{there}.{names.project}")
        yield from affine(f"{here}.norm2", f"{there}.{names.norm2}")
        yield from affine(f"{here}.mlp.0", f"{there}.{names.up}")
        yield from affine(f"{here}.mlp.2", f"{there}.{names.down}")
        if layer_scale:
            yield Rename(f"{here}.scale1", f"{there}.gamma_1")
            yield Rename(f"{here}.scale2", f"{there}.gamma_2")


def read_table(table: Iterable[Entry], theirs: Mapping[str, Tensor], source: str) -> Weights:
    """Their tensors as ours.

    Raises:
        UserError: a tensor of the table is missing or one of the file is left over; all are listed. Or one is
            of a shape that cannot be ours, or a constant differs.
    """
    table = list(table)
    used = [name for entry in table for name in _theirs(entry)]
    missing = [name for name in used if name not in theirs]
    unused = sorted(set(theirs) - set(used))
    if missing or unused:
        problems = _listed("it lacks", missing) + _listed("nothing takes", unused)
        raise UserError(f"{source} does not fit its own architecture: " + "; ".join(problems))
    ours: Weights = {}
    for entry in table:
        try:
            ours |= _read_entry(entry, theirs, source)
        except (RuntimeError, IndexError):
            found = ", ".join(f"{name} {tuple(theirs[name].shape)}" for name in _theirs(entry))
            raise UserError(f"{source} does not fit its own architecture: the shape of {found}") from None
    return ours


def _read_entry(entry: Entry, theirs: Mapping[str, Tensor], source: str) -> Weights:
    match entry:
        case Rename():
            return {entry.ours: theirs[entry.theirs]}
        case Kernel():
            return {entry.ours: theirs[entry.theirs].permute(0, 2, 3, 4, 1).flatten(1).contiguous()}
        case Stack():
            return {entry.ours: torch.cat([theirs[name] for name in entry.theirs])}
        case Concatenated():
            found = theirs[entry.theirs]
            parts = found[:, :1].contiguous(), found[:, 1:].contiguous()
            return dict(zip(entry.ours, parts, strict=True))
        case Constant(check=True):
            found, expected = theirs[entry.theirs], entry.value
            if found.shape != expected.shape or not torch.allclose(found, expected, rtol=0, atol=1e-4):
                raise UserError(
                    f"{source}: expected {entry.theirs} to be the fixed table {tuple(expected.shape)} that "
                    f"its code computes, found {tuple(found.shape)} with other values"
                )
    return {}


def write_table(table: Iterable[Entry], ours: Mapping[str, Tensor], layout: str) -> Weights:
    """Our tensors as theirs.

    Raises:
        UserError: the layout has no place for a tensor of ours; all are listed.
    """
    table = list(table)
    taken = [name for entry in table for name in _ours(entry)]
    problems = _listed("it has no place for", sorted(set(ours) - set(taken)))
    problems += _listed("it also needs", [name for name in taken if name not in ours])
    if problems:
        raise UserError(f"the layout {layout} cannot hold this model: " + "; ".join(problems))
    theirs: Weights = {}
    for entry in table:
        match entry:
            case Rename():
                theirs[entry.theirs] = ours[entry.ours].clone()
            case Kernel():
                matrix = ours[entry.ours]
                kernel = matrix.unflatten(1, (*entry.tubelet, -1)).permute(0, 4, 1, 2, 3)
                theirs[entry.theirs] = kernel.contiguous()
            case Stack():
                parts = ours[entry.ours].chunk(len(entry.theirs))
                theirs |= {name: part.clone() for name, part in zip(entry.theirs, parts, strict=True)}
            case Concatenated():
                theirs[entry.theirs] = torch.cat([ours[name] for name in entry.ours], dim=1)
            case Constant():
                theirs[entry.theirs] = entry.value.clone()
    return theirs


def their_names(table: Iterable[Entry]) -> dict[str, str]:
    """Our name of each tensor to what the file calls it."""
    return {name: ", ".join(_theirs(entry)) for entry in table for name in _ours(entry)}


def _ours(entry: Entry) -> tuple[str, ...]:
    match entry:
        case Constant():
            return ()
        case Concatenated():
            return entry.ours
    return (entry.ours,)


def _theirs(entry: Entry) -> tuple[str, ...]:
    return entry.theirs if isinstance(entry, Stack) else (entry.theirs,)


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"{what} {', '.join(names)}"]
