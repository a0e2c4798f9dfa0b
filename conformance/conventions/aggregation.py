"""Conventions of the aggregate of per-token numbers, which every loss of tokens shares."""

from typing import Any

import numpy as np

from conformance.conventions.family import Convention, Family, Observation, values
from conformance.conventions.inputs import EMPTY_ROW, NOTHING, PADDED, dense
from reference import numbers, policy_loss

NOTHING_ACTIVE = Convention(
    "nothing", {"0 where nothing is active": "zero", "NaN where nothing is active": "nan"}, "ppo.aggregation"
)


def aggregation(name: str) -> tuple[Convention, ...]:
    """The conventions of an aggregate whose mode has this name."""
    modes = policy_loss.MODES
    return (
        Convention(name, values(*modes), "ppo.aggregation"),
        Convention("horizon", {"the width T": None}, "ppo.aggregation-horizon", {name: modes[:3]}),
        Convention("empty_rows", values("count", "drop"), "ppo.aggregation-empty-rows", {name: modes[:1]}),
    )


AGGREGATION = aggregation("aggregation")


def of_nothing(like: Any) -> Any:
    """NaN, in the number system of an array."""
    return numbers.full((), np.nan, like=like)[()]


def _aggregate(x: Any, mask: Any, *, nothing: str = "zero", added: Any = None, **options: Any) -> Any:
    """An aggregate; `added` comes to the count of a mean over tokens."""
    if nothing == "nan" and not mask.any():
        return of_nothing(x)
    result, count = policy_loss.aggregate(x, mask, **options), int(mask.sum())
    return result if added is None else result * (count / (count + added))


def how_aggregated(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a loss that its aggregate takes."""
    names = {"aggregation": "mode", "horizon": "horizon", "empty_rows": "empty_rows"}
    return {names[name]: x for name, x in options.items() if name in names}


FAMILIES = (
    Family(
        "aggregate",
        (
            *aggregation("mode"),
            NOTHING_ACTIVE,
            Convention(
                "added",
                {"nothing added to the count": None, "1e-8 added to the count": 1e-8},
                "ppo.aggregation",
                unless={"mode": policy_loss.MODES[1:]},
            ),
        ),
        _aggregate,
        (
            Observation("padded rows", {"x": dense(0, 3, 5), "mask": PADDED}, vary=("mode",), main=True),
            Observation("a row without tokens", {"x": dense(0, 3, 5), "mask": EMPTY_ROW}, vary=("mode",)),
            Observation(
                "a row without tokens, means of means",
                {"x": dense(0, 3, 5), "mask": EMPTY_ROW},
                {"mode": "seq-mean-token-mean"},
                vary=("empty_rows",),
            ),
            Observation(
                "a horizon",
                {"x": dense(0, 3, 5), "mask": PADDED},
                {"mode": "seq-mean-token-sum-norm"},
                vary=("horizon",),
            ),
            Observation("no tokens", {"x": dense(0, 3, 5), "mask": NOTHING}, vary=("mode",)),
        ),
    ),
)
