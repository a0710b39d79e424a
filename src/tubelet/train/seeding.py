"""Randomness that a resumed run repeats without having stored it."""

import hashlib
import struct

import torch


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed from whole numbers: equal for equal numbers, unrelated for any others.

    Neighbouring seeds must not give related streams, hence a hash (BLAKE2b) and not a sum.
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(numbers)}q", *numbers), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_step(seed: int, step: int, micro_batch: int, rank: int) -> None:
    """Seed the global generators of all devices for one forward pass.

    Drop path and dropout then depend on these four numbers alone: not on what was drawn before, so neither on
    validation nor on interruptions. Masks and mixes follow from the clips' own seeds.
    """
    torch.manual_seed(mixed_seed(seed, step, micro_batch, rank))
