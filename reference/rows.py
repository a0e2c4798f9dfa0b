"""Rows of tokens under a mask: delete the positions that do not take part, and put results back."""

import numpy as np

from reference.numbers import Array, Mask, where, zeros


def lengths(mask: Mask) -> np.typing.NDArray[np.int64]:
    """Count the active positions of each row, shape (B,)."""
    counts: np.typing.NDArray[np.int64] = mask.sum(axis=1)
    return counts


def pack(x: Array, mask: Mask) -> Array:
    """Move each row's active entries to its front, in order; zeros lie behind them. Shape (B, T)."""
    order = np.argsort(~mask, axis=1, kind="stable")
    front = np.arange(mask.shape[1]) < lengths(mask)[:, None]
    return where(front, np.take_along_axis(x, order, axis=1), zeros(x.shape, like=x))


def unpack(packed: Array, mask: Mask) -> Array:
    """Put the packed entries back at the active positions; zeros lie at the others. Shape (B, T)."""
    rank = np.cumsum(mask, axis=1) - 1  # -1 before a row's first active position, which is not selected
    return where(mask, np.take_along_axis(packed, rank, axis=1), zeros(packed.shape, like=packed))


def through_last_active(mask: Mask) -> Mask:
    """Fill the holes: True from a row's first position to its last active one. Shape (B, T)."""
    return np.asarray(np.flip(np.cumsum(np.flip(mask, axis=1), axis=1), axis=1) > 0)
