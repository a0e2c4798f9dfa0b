"""Conventions of group-relative advantages and of the GRPO loss."""

from typing import Any

import numpy as np

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
from conformance.conventions.policy_loss import AGGREGATION, LEVEL, NOTHING_ACTIVE, RATIO_CLIP, of_nothing
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
    estimates = {
        "reversed": lambda: kl.kl_estimate(ref, new, estimator="k3"),
        "clamped": lambda: kl.kl_estimate(new, ref, estimator="k3", log_ratio_clip=20.0, value_clip=10.0),
        "subtracted": lambda: -kl.kl_estimate(new, ref, estimator="k3"),
    }.get(estimate, lambda: kl.kl_estimate(new, ref, estimator=estimate))()
    names = {"aggregation": "mode", "horizon": "horizon", "empty_rows": "empty_rows"}
    how = {names[name]: x for name, x in options.items() if name in names}
    return clipped + kl_coef * policy_loss.aggregate(estimates, mask, **how)


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
            Observation("rewards around 1", _scores(1.0), vary=("scale", "ddof"), main=True),
            Observation("rewards around 1e-3", _scores(1e-3), vary=("eps",), main=True),
            Observation("rewards around 1e-5", _scores(1e-5), main=True),
            Observation("rewards around 1e-7", _scores(1e-7), vary=("eps",), main=True),
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
            LEVEL,
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
            Observation("padded rows", _responses(PADDED), vary=None, main=True),
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
