"""Conventions of importance ratios and weights."""

from typing import Any

import numpy as np

from conformance.conventions.family import Convention, Family, Observation, values
from conformance.conventions.inputs import FULL, PADDED, beside, dense, far, logprobs
from reference import importance_sampling, numbers

OVERFLOWING = 709.0
"""A log-ratio whose exponential is just finite in float64: beyond it every dtype overflows."""


def _ratio(
    logprobs: Any, old_logprobs: Any, *, reversed_: bool = False, sides: str = "both", **options: Any
) -> Any:
    """The ratio or its reciprocal, the log-ratio clamped on both sides or from above alone."""
    first, second = (old_logprobs, logprobs) if reversed_ else (logprobs, old_logprobs)
    bound = options.get("log_ratio_clip")
    if sides == "above" and bound is not None:
        return numbers.exp(numbers.minimum(first - second, bound))
    return importance_sampling.importance_ratio(first, second, **options)


def _sequence_ratio(
    logprobs: Any,
    old_logprobs: Any,
    mask: Any,
    *,
    statistic: str = "geometric mean",
    highest: float | None = None,
) -> Any:
    """One ratio a row: a mean of some kind or the product, with the exponent bounded from above or not."""
    if statistic == "arithmetic mean":
        ratios = numbers.exp(_selected(logprobs, mask) - _selected(old_logprobs, mask))
        counts = np.maximum(mask.sum(axis=1), 1)
        return numbers.total(_selected(ratios, mask), axis=1) / counts
    if highest is None and statistic == "geometric mean":
        return importance_sampling.sequence_importance_ratio(logprobs, old_logprobs, mask)
    if highest is None:
        return importance_sampling.trajectory_importance_ratio(logprobs, old_logprobs, mask)
    counts = np.maximum(mask.sum(axis=1), 1) if statistic == "geometric mean" else 1
    sums = numbers.total(_selected(logprobs, mask) - _selected(old_logprobs, mask), axis=1)
    return numbers.exp(numbers.minimum(sums / counts, highest))


def _selected(x: Any, mask: Any) -> Any:
    return numbers.where(mask, x, numbers.zeros(x.shape, like=x))


def _weights(
    old_logprobs: Any,
    rollout_logprobs: Any,
    *,
    cap: Any,
    mode: str = "truncate",
    overflow: str = "cap",
    clamp: float | None = None,
) -> Any:
    """Truncated weights with another end of the scale."""
    log_ratio = old_logprobs - rollout_logprobs
    nothing = numbers.zeros(log_ratio.shape, like=log_ratio)
    if clamp is not None:
        old_logprobs, rollout_logprobs = numbers.clip(log_ratio, -clamp, clamp), nothing
    weights = importance_sampling.truncated_importance_weights(
        old_logprobs, rollout_logprobs, cap=cap, mode=mode
    )
    if overflow == "zero":
        return numbers.where(numbers.less(OVERFLOWING, log_ratio), nothing, weights)
    return weights


def _mean(f_values: Any, log_weights: Any, **options: Any) -> Any:
    return importance_sampling.importance_sampling_mean(f_values, log_weights, **options)


def _sample_size(log_weights: Any, *, as_: str = "count", cap: float | None = None) -> Any:
    """The effective sample size, as a count or a share of N, of weights as they are or cut down."""
    if cap is not None:
        log_weights = numbers.minimum(
            log_weights, numbers.log(numbers.full((), 1, like=log_weights)[()] * cap)
        )
    size = importance_sampling.effective_sample_size(log_weights)
    return size / len(log_weights) if as_ == "share" else size


def _tokens(*log_ratios: float) -> dict[str, Any]:
    new = logprobs(0, 3, 5)
    return {"logprobs": new, "old_logprobs": far(new, *log_ratios) if log_ratios else beside(new, 1)}


def _rollout(*log_ratios: float) -> dict[str, Any]:
    new = logprobs(0, 3, 5)
    rollout = far(new, *log_ratios) if log_ratios else beside(new, 1, scale=1.0)
    return {"old_logprobs": new, "rollout_logprobs": rollout}


SAMPLES = {"f_values": dense(0, 6), "log_weights": dense(1, 6)}
FEW = {"old_logprobs": logprobs(0, 1, 3), "rollout_logprobs": far(logprobs(0, 1, 3), 800.0, 0.5, -0.5)}

FAMILIES = (
    Family(
        "importance_ratio",
        (
            Convention("reversed_", {"new over old": False, "old over new": True}, "is.ratio"),
            Convention("log_ratio_clip", {"20": 20.0, "10": 10.0, "none": None}, "is.log-ratio-clamp"),
            Convention(
                "sides",
                {"clamped on both sides": "both", "clamped from above alone": "above"},
                "is.log-ratio-clamp",
                unless={"log_ratio_clip": (None,)},
            ),
        ),
        _ratio,
        (
            Observation("near the old policy", _tokens(), main=True),
            Observation("far from it", _tokens(5.0, -5.0, 12.0, 25.0, -12.0, -25.0), vary=None, main=True),
        ),
    ),
    Family(
        "sequence_importance_ratio",
        (
            Convention(
                "statistic",
                {
                    "the geometric mean of a row's ratios": "geometric mean",
                    "their product": "product",
                    "their arithmetic mean": "arithmetic mean",
                },
                "is.sequence-ratio",
            ),
            Convention(
                "highest",
                {"no clamp": None, "the exponent at most 10": 10.0, "the exponent at most 20": 20.0},
                "is.sequence-ratio",
                unless={"statistic": ("arithmetic mean",)},
            ),
        ),
        _sequence_ratio,
        (
            Observation("padded rows", {**_tokens(), "mask": PADDED}, main=True),
            Observation("far from the old policy", {**_tokens(15.0), "mask": FULL}),
            Observation("very far from it", {**_tokens(25.0), "mask": FULL}),
        ),
    ),
    Family(
        "truncated_importance_weights",
        (
            Convention("cap", values(2.0), "is.truncated"),
            Convention("mode", values("truncate", "mask"), "is.truncated"),
            Convention(
                "overflow",
                {"an overflow counts as the cap": "cap", "an overflow counts as 0": "zero"},
                "is.truncated-overflow",
                unless={"mode": ("mask",)},
            ),
            Convention(
                "clamp", {"no clamp of the log-ratio": None, "the log-ratio within ±20": 20.0}, "is.truncated"
            ),
        ),
        _weights,
        (
            Observation("near the rollout", _rollout(), vary=None, main=True),
            Observation("far from it", _rollout(-25.0, 0.5, 25.0, -15.0)),
            Observation("beyond an overflow", FEW),
        ),
    ),
    Family(
        "importance_sampling_mean",
        (Convention("self_normalized", values(False, True), "is.self-normalised"),),
        _mean,
        (Observation("plain samples", SAMPLES, vary=None, main=True),),
    ),
    Family(
        "effective_sample_size",
        (
            Convention(
                "as_",
                {"a number of samples": "count", "a share of the samples": "share"},
                "is.effective-sample-size",
            ),
            Convention(
                "cap", {"all weights": None, "weights cut down to 2": 2.0}, "is.effective-sample-size"
            ),
        ),
        _sample_size,
        (Observation("plain samples", {"log_weights": dense(1, 6, scale=1.5)}, main=True),),
    ),
)
