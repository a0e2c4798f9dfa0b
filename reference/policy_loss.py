"""Policy losses: log-probabilities, entropy, clipped surrogates, aggregation, metrics."""

from typing import Any

import numpy as np

from reference import checks, numbers
from reference.numbers import Array, Mask, Scalar

MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")
EMPTY_ROWS = ("count", "drop")


def aggregate(
    x: Array,
    mask: Mask,
    *,
    mode: str = "token-mean",
    horizon: float | None = None,
    empty_rows: str = "count",
) -> Scalar:
    """Aggregate per-token numbers to one: the sum over active tokens, each divided by its divisor.

    Clause: `ppo.aggregation`.
    """
    x = checks.real_array("x", x, (None, None))
    mask = checks.mask_array("mask", mask, x.shape, like="x")
    divisors = aggregation_divisors(mask, mode=mode, horizon=horizon, empty_rows=empty_rows)
    return numbers.total(numbers.where(mask, x, numbers.zeros(x.shape, like=x)) / divisors)


def aggregate_gradient(
    upstream: Scalar,
    x: Array,
    mask: Mask,
    *,
    mode: str = "token-mean",
    horizon: float | None = None,
    empty_rows: str = "count",
) -> Array:
    """Gradient of :func:`aggregate` in x: upstream / divisor at active tokens, 0 elsewhere."""
    divisors = aggregation_divisors(mask, mode=mode, horizon=horizon, empty_rows=empty_rows)
    filled = numbers.full(mask.shape, 1.0, like=upstream) * upstream / divisors
    return numbers.where(mask, filled, numbers.zeros(mask.shape, like=upstream))


def aggregation_divisors(
    mask: Mask, *, mode: str, horizon: float | None = None, empty_rows: str = "count"
) -> Any:
    """What each token's number is divided by: an exact integer (or horizon multiple), at least 1. Shape (B, 1)."""
    checks.choice("mode", mode, MODES)
    checks.choice("empty_rows", empty_rows, EMPTY_ROWS)
    rows, width = mask.shape
    counts = mask.sum(axis=1, keepdims=True)
    counted = max(int(rows if empty_rows == "count" else (counts > 0).sum()), 1)
    if mode == "token-mean":
        return np.full((rows, 1), max(int(mask.sum()), 1))
    if mode == "seq-mean-token-sum":
        return np.full((rows, 1), counted)
    if mode == "seq-mean-token-mean":
        return counted * np.maximum(counts, 1)
    return np.full((rows, 1), counted) * (width if horizon is None else horizon)
