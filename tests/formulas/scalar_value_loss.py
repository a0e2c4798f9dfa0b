"""The chapter `vf` a second time: loops over single numbers, from the words of the clauses alone."""

from collections.abc import Callable
from typing import Any

from tests.formulas.scalar_policy_loss import active, aggregate
from tests.formulas.scalars import Number, larger, nearest


def value_loss(
    values: Any,
    old_values: Any,
    returns: Any,
    mask: Any,
    *,
    clip: Any,
    aggregation: str,
    horizon: Any,
    empty_rows: str,
) -> Number:
    """The aggregate of half the larger of two squared errors."""
    losses: list[list[Any]] = [[None] * len(row) for row in mask]
    for i, t in active(mask):
        v, old, target = values[i][t], old_values[i][t], returns[i][t]
        error = (v - target) * (v - target)
        if clip is not None:
            moved = nearest(v, old - clip, old + clip)
            error = larger((moved - target) * (moved - target), error)
        losses[i][t] = error / 2
    return aggregate(losses, mask, mode=aggregation, horizon=horizon, empty_rows=empty_rows)


DEFINITIONS: dict[str, Callable[..., Any]] = {"value_loss": value_loss}
"""The operation of the protocol on nested lists."""
