"""Conventions of group-relative advantages and of the GRPO loss."""

from typing import Any

import numpy as np

from conformance.conventions.aggregation import AGGREGATION, NOTHING_ACTIVE, how_aggregated, of_nothing
from conformance.conventions.family import Convention, Family, Observation, values
from conformance.conventions.gae import divisor
from conformance.conventions.inputs import (
    EMPTY_ROW,
    NOTHING,
    PADDED,
    beside,
    dense,
    far,
    logprobs,
    rows_apart,
    rows_far,
)
from conformance.conventions.policy_loss import RATIO_CLIP
from reference import group, kl, numbers, policy_loss

IDS = np.array([4, 7, 4, 7, 7, 4, 7])
SINGLE_IDS = np.array([4, 7, 4, 4, 9, 4, 4])


def _group_advantages(
    scores: Any,
    group_ids: Any,
    *,
    scale: str = "std",
    ddof: int = 1,
    eps: Any = 1e-6,
    place: str = "outside",
    others: bool = False,
    single: str = "zero",
) -> Any:
    """Group-relative advantages with ε at another place, another baseline, another answer to one response."""
    if (place, others, single) == ("outside", False, "zero") and scale != "batch":
        return group.group_advantages(scores, group_ids, scale=scale, ddof=ddof, eps=eps)
    advantages = numbers.zeros(scores.shape, like=scores)
    for k, own in enumerate(scores):
        members = scores[group_ids == group_ids[k]]
        if len(members) == 1:
            advantages[k] = _of_one(own, eps, single, scale)
            continue
        rest = np.delete(scores, k)[np.delete(group_ids, k) == group_ids[k]]
        compared = rest if others else members
        distance = own - numbers.total(compared) / len(compared)
        spread = scores if scale == "batch" else compared
        advantages[k] = (
            distance if scale == "none" else distance / divisor(_variance(spread, ddof), eps, place)
        )
    return advantages


def _of_one(reward: Any, eps: Any, single: str, scale: str) -> Any:
    match single:
        case "reward":
            return reward
        case "scaled reward":
            return reward if scale == "none" else reward / (1 + eps)
        case "nan":
            return reward * np.nan
    return reward * 0


def _variance(x: Any, ddof: int) -> Any:
    return numbers.total(numbers.square(x - numbers.total(x) / len(x))) / (len(x) - ddof)


def _rloo(scores: Any, group_ids: Any, *, others: bool = True, single: str = "zero") -> Any:
    """Distances from the mean of the others, or of the whole group."""
    if others and single == "zero":
        return group.rloo_advantages(scores, group_ids)
    return _group_advantages(scores, group_ids, scale="none", others=others, single=single)


def _grpo(
    logprobs: Any,
    old_logprobs: Any,
    ref_logprobs: Any,
    advantages: Any,
    mask: Any,
    *,
    kl_coef: Any,
    estimate: str = "k3",
    nothing: str = "zero",
    **options: Any,
) -> Any:
    """The GRPO loss with another estimate of the divergence."""
    if nothing == "nan" and not mask.any():
        return of_nothing(logprobs)
    arrays = (logprobs, old_logprobs, ref_logprobs, advantages, mask)
    if estimate == "k3":
        return group.grpo_loss(*arrays, kl_coef=kl_coef, **options)
    clipped = group.grpo_loss(*arrays, kl_coef=kl_coef * 0, **options)
    new, ref = (numbers.where(mask, x, numbers.zeros(x.shape, like=x)) for x in (logprobs, ref_logprobs))
    sign, first, second, how = _divergence(estimate, new, ref)
    estimates = sign * kl.kl_estimate(first, second, **how)
    return clipped + kl_coef * policy_loss.aggregate(estimates, mask, **how_aggregated(options))


def _divergence(estimate: str, new: Any, ref: Any) -> tuple[int, Any, Any, dict[str, Any]]:
    """The sign, the two policies and the options of an estimate."""
    match estimate:
        case "reversed":
            return 1, ref, new, {"estimator": "k3"}
        case "clamped":
            return 1, new, ref, {"estimator": "k3", "log_ratio_clip": 20.0, "value_clip": 10.0}
        case "subtracted":
            return -1, new, ref, {"estimator": "k3"}
    return 1, new, ref, {"estimator": estimate}


def _responses(mask: Any, *log_ratios: float) -> dict[str, Any]:
    new = logprobs(0, 3, 5)
    ref = far(new, *log_ratios) if log_ratios else beside(new, 2)
    return {
        "logprobs": new,
        "old_logprobs": rows_apart(new, 1),
        "ref_logprobs": ref,
        "advantages": dense(3, 3),
        "mask": mask,
    }


def _stepped_away() -> dict[str, Any]:
    new = logprobs(0, 3, 5)
    return {
        **_responses(PADDED),
        "old_logprobs": rows_far(new),
        "advantages": -np.abs(dense(3, 3)),
    }


SINGLE = {
    "0 for a group of one": "zero",
    "its reward for a group of one": "reward",
    "NaN for a group of one": "nan",
}


def _scores(scale: float, ids: Any = IDS) -> dict[str, Any]:
    return {"scores": dense(5, 7, scale=scale), "group_ids": ids}


RLOO_SCORES = (
    Observation("two groups", _scores(1.0), main=True),
    Observation("groups of one", {**_scores(1.0, SINGLE_IDS)}),
)

BY_NUMBERS = ("scale", "ddof", "eps", "place", "others")

NO_SCALE: dict[str, tuple[Any, ...]] = {"scale": ("none",)}

FAMILIES = (
    Family(
        "group_advantages",
        (
            Convention(
                "scale",
                {"std": "std", "none": "none", "the deviation of the batch": "batch"},
                "grpo.advantage",
            ),
            Convention("ddof", values(1, 0), "grpo.advantage", unless=NO_SCALE),
            Convention("eps", values(1e-4, 1e-5, 1e-6, 1e-8, 1e-9, 0.0), "grpo.advantage", unless=NO_SCALE),
            Convention(
                "place",
                {
                    "ε added to the deviation, outside the root": "outside",
                    "ε added to the variance, inside the root": "inside",
                    "the deviation at least ε": "floor of the deviation",
                },
                "grpo.advantage",
                unless={**NO_SCALE, "eps": (0.0,)},
            ),
            Convention(
                "others",
                {
                    "mean and deviation of the whole group": False,
                    "mean and deviation of the other responses": True,
                },
                "grpo.leave-one-out-std",
            ),
            Convention(
                "single",
                {**SINGLE, "its reward over 1 + ε for a group of one": "scaled reward"},
                "grpo.single",
            ),
        ),
        _group_advantages,
        (
            Observation("rewards around 1", _scores(1.0), vary=("scale", "ddof"), main=True, sees=BY_NUMBERS),
            Observation("rewards around 1e-3", _scores(1e-3), vary=("eps",), main=True),
            Observation("rewards around 1e-5", _scores(1e-5), main=True),
            Observation("rewards around 1e-7", _scores(1e-7), vary=("eps",), main=True),
            Observation("rewards around 1e-11", _scores(1e-11), main=True),
            Observation("groups of one", _scores(1.0, SINGLE_IDS)),
            Observation("groups of one, small rewards", _scores(1e-5, SINGLE_IDS)),
        ),
    ),
    Family(
        "rloo_advantages",
        (
            Convention(
                "others",
                {"the mean of the others": True, "the mean of the whole group": False},
                "grpo.leave-one-out",
            ),
            Convention("single", SINGLE, "grpo.single"),
        ),
        _rloo,
        RLOO_SCORES,
    ),
    Family(
        "grpo_loss",
        (
            *AGGREGATION,
            # With one advantage a row, the two ratios of a sequence have the same gradient.
            Convention("ratio_level", values("token", "sequence"), "grpo.sequence-ratio"),
            RATIO_CLIP,
            Convention(
                "estimate",
                {
                    "k3 added": "k3",
                    "k1 added": "k1",
                    "k2 added": "k2",
                    "k3 of the reversed log-ratio added": "reversed",
                    "k3 added, log-ratio within ±20 and value within ±10": "clamped",
                    "k3 subtracted": "subtracted",
                },
                "grpo.loss",
            ),
            NOTHING_ACTIVE,
        ),
        _grpo,
        (
            Observation(
                "padded rows",
                _responses(PADDED),
                vary=None,
                main=True,
                sees=("aggregation", "ratio_level", "estimate"),
            ),
            Observation("a row without tokens", _responses(EMPTY_ROW), vary=("aggregation",)),
            Observation(
                "a row without tokens, means of means",
                _responses(EMPTY_ROW),
                {"aggregation": "seq-mean-token-mean"},
                vary=("empty_rows",),
            ),
            Observation(
                "a horizon", _responses(PADDED), {"aggregation": "seq-mean-token-sum-norm"}, vary=("horizon",)
            ),
            Observation("far from the reference", _responses(PADDED, -3.0, -4.0, 2.0)),
            Observation("far from the old policy", _stepped_away(), vary=("log_ratio_clip",)),
            Observation("no tokens", _responses(NOTHING)),
        ),
    ),
)
