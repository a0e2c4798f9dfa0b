"""The chapter `is` a second time: loops over single numbers, from the words of the clauses alone."""

import math
from collections.abc import Callable
from typing import Any

from tests.formulas.scalars import Number, exp, nearest, number, total


def ratio(log_ratio: Any, bound: Any) -> Number:
    """exp(ℓ), and exp(c) or exp(-c) where ℓ lies beyond a bound c."""
    return exp(log_ratio if bound is None else nearest(log_ratio, -bound, bound))


def importance_ratio(logprobs: Any, old_logprobs: Any, *, log_ratio_clip: Any) -> list[list[Number]]:
    """The ratio at every position."""
    return [
        [ratio(new - old, log_ratio_clip) for new, old in zip(*rows, strict=True)]
        for rows in zip(logprobs, old_logprobs, strict=True)
    ]


def mean_log_ratio(logprobs: Any, old_logprobs: Any, mask: Any) -> Any:
    """The mean of ℓ over the active tokens of a row, 0 without any."""
    kept = [x - y for x, y, active in zip(logprobs, old_logprobs, mask, strict=True) if active]
    return total(kept) / max(len(kept), 1)


def sequence_importance_ratio(logprobs: Any, old_logprobs: Any, mask: Any) -> list[Number]:
    """The exponential of the mean of ℓ, a number a row."""
    return [exp(mean_log_ratio(*row)) for row in zip(logprobs, old_logprobs, mask, strict=True)]


def truncated_importance_weights(
    old_logprobs: Any, rollout_logprobs: Any, *, cap: Any, mode: str
) -> list[list[Number]]:
    """w, and above the cap the cap or 0."""

    def weight(old: Any, rollout: Any) -> Number:
        w = exp(old - rollout)
        if w <= cap:
            return w
        return number(cap) if mode == "truncate" else number(0)

    return [
        [weight(old, rollout) for old, rollout in zip(*rows, strict=True)]
        for rows in zip(old_logprobs, rollout_logprobs, strict=True)
    ]


def importance_sampling_mean(f_values: Any, log_weights: Any, *, self_normalized: bool) -> Number:
    """Σ w f over N, or over Σ w."""
    if not self_normalized:
        terms = [exp(log) * f for f, log in zip(f_values, log_weights, strict=True)]
        return total(terms) / len(f_values)
    weights = weights_over_the_largest(log_weights)
    return total(w * f for w, f in zip(weights, f_values, strict=True)) / total(weights)


def effective_sample_size(log_weights: Any) -> Number:
    """(Σ w)² / Σ w²."""
    weights = weights_over_the_largest(log_weights)
    return total(weights) * total(weights) / total(w * w for w in weights)


def weights_over_the_largest(log_weights: Any) -> list[Number]:
    """Weights that a factor is taken out of, which cancels: a lone one is exactly 1."""
    largest = max(log for log in log_weights if log != -math.inf)
    return [exp(log - largest) for log in log_weights]


DEFINITIONS: dict[str, Callable[..., Any]] = {
    "importance_ratio": importance_ratio,
    "sequence_importance_ratio": sequence_importance_ratio,
    "truncated_importance_weights": truncated_importance_weights,
    "importance_sampling_mean": importance_sampling_mean,
    "effective_sample_size": effective_sample_size,
}
"""The operations of the protocol on nested lists."""
