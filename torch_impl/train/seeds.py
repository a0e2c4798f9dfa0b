"""Seeds made from a run's seed and from what they are for."""

import hashlib

import torch


def derived(*parts: object) -> int:
    """A seed of 63 bits: another one for other parts, the same one in every process."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def permutation(count: int, *parts: object) -> torch.Tensor:
    """The numbers 0 ... count - 1 in an order that depends on the parts alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derived(*parts)))


def epoch_rows(count: int, rows: int, step: int, *parts: object) -> list[int]:
    """Which rows step number `step` takes of data that is gone through in an order anew for each epoch."""
    found: list[int] = []
    order: list[int] = []
    for place in range(step * rows, (step + 1) * rows):
        epoch, within = divmod(place, count)
        if not found or within == 0:
            order = list(permutation(count, epoch, *parts).tolist())
        found.append(order[within])
    return found
