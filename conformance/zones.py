"""Batches in which every zone of a clip occurs, on both sides of it and on its bounds: none is left to luck.

A row stands in one zone, for one sign of what is clipped. Both of its active tokens have the same numbers,
so that it is in that zone whether a ratio is a token's or a sequence's; behind them is a masked one.
"""

import itertools
from typing import Any

import numpy as np

from conformance.cases import Case
from reference.numbers.formats import FORMATS

SIGNS = (1.0, -1.0, 0.0)
"""Signs of the advantage; zones of a ratio are named by `ratio_zones`."""

CLIPS = ((0.2, 0.28, None), (0.0, 0.0, None), (1.5, 0.28, None), (0.2, 0.28, 1.5), (0.2, 1.0, 1.5))
"""Low, high and dual clip: with ties at 1, without a lower bound, with c on either side of 1 + ε_high."""

MASK = np.array([True, True, False])

WAYS = (1.0, -1.0)
"""Whether a value has moved up or down."""


def ratio_zones(options: dict[str, Any]) -> dict[str, float]:
    """A log-ratio in each zone that a clip has, on each of its bounds, and at 1."""
    low, high, dual = options["clip_low"], options["clip_high"], options.get("dual_clip")
    top = np.log1p(high)
    zones = {"at 1": 0.0, "inside, above 1": top / 2, "at the upper bound": top, "above": top + 0.1}
    if low < 1:
        bottom = np.log1p(-low)
        zones |= {"inside, below 1": bottom / 2, "at the lower bound": bottom, "below": bottom - 0.5}
    else:
        zones["far below, inside"] = -3.0
    if dual is not None:
        c = np.log(dual)
        zones |= {"between both bounds": (top + c) / 2, "at c": c, "beyond both bounds": max(top, c) + 0.5}
    return {name: float(log_ratio) for name, log_ratio in zones.items()}


def with_every_ratio(case: Case) -> Case:
    """The call with a row for each sign of the advantage and each zone of the ratio."""
    form = FORMATS[case.dtype]
    rows = list(itertools.product(SIGNS, ratio_zones(case.options).values()))
    log_ratios = form.round(np.array([log_ratio for _, log_ratio in rows]))
    signs = np.array([sign for sign, _ in rows])
    new, old = (_columns(np.minimum(x, 0.0)) for x in (log_ratios, -log_ratios))
    mask = np.tile(MASK, (len(rows), 1))
    per_row = case.operation == "grpo_loss"
    found = {"logprobs": new, "old_logprobs": old, "advantages": signs if per_row else _columns(signs)}
    if "ref_logprobs" in case.arguments:
        found["ref_logprobs"] = form.round(new - _columns(np.resize([0.5, 0.0, -0.5], len(rows))))
    if case.arguments.get("rollout_weights") is not None:
        found["rollout_weights"] = _columns(np.resize([2.0, 0.5], len(rows)))
    return case.with_arguments(**found, mask=mask)


def value_zones(clip: float) -> dict[str, tuple[float, float]]:
    """How far a value has moved, and how far the return lies from the old one, in the same direction."""
    far = clip + 1.0
    return {
        "not moved, return elsewhere": (0.0, 1.5),
        "not moved, return there": (0.0, 0.0),
        "inside, return ahead": (clip / 2, 2.0),
        "inside, return behind": (clip / 2, -1.0),
        "on the edge, return ahead": (clip, far),
        "on the edge, return behind": (clip, -far),
        "outside, return far ahead": (far, far + 2.0),
        "outside, return at the value": (far, far),
        "outside, passed it by less than half": (far, clip + 0.75),
        "outside, errors equal": (far, clip + 0.5),
        "outside, passed it by more than half": (far, clip + 0.25),
        "outside, return at the edge": (far, clip),
        "outside, return at the old value": (far, 0.0),
        "outside, return the other way": (far, -1.0),
    }


def with_every_value(case: Case) -> Case:
    """The call with a row for each direction and each zone of a value and its return; old values are ±1."""
    round_to = FORMATS[case.dtype].round
    rows = list(itertools.product(WAYS, value_zones(case.options["clip"]).values()))
    old = np.resize([1.0, -1.0, 0.0], len(rows))
    values, returns = (round_to(old + np.array([way * zone[k] for way, zone in rows])) for k in (0, 1))
    mask = np.tile(MASK, (len(rows), 1))
    found = {"values": _columns(values), "old_values": _columns(old), "returns": _columns(returns)}
    return case.with_arguments(**found, mask=mask)


def with_every_group(case: Case) -> Case:
    """The call with a group of every kind, none of whose rows lie together."""
    roundoff = FORMATS[case.dtype].unit_roundoff
    groups = {
        "some of each": (2.0, -1.0, 0.5),
        "one success among failures": (0.0, 1.0, 0.0, 0.0),
        "alone": (3.0,),
        "all equal": (float(FORMATS[case.dtype].round(0.1)),) * 3,
        "equal up to a rounding": (1.0, 1.0 + 2 * roundoff, 1.0),
        "a pair": (-3.0, 5.0),
    }
    rows = [(place, group, x) for group, xs in enumerate(groups.values()) for place, x in enumerate(xs)]
    _, ids, scores = zip(*sorted(rows), strict=True)
    return case.with_arguments(scores=np.array(scores), group_ids=np.array(ids))


def _columns(x: np.ndarray) -> np.ndarray:
    """The same number at every position of a row."""
    return np.repeat(x[:, None], len(MASK), axis=1)
