"""The chapter `kl` a second time: loops over single numbers, from the words of the clauses alone."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from tests.formulas.scalars import Number, exp, larger, log, nearest, total


def estimate(log_ratio: Any, estimator: str) -> Any:
    """A token's estimate by name."""
    match estimator:
        case "k1":
            return log_ratio
        case "k2":
            return log_ratio * log_ratio / 2
        case "k3":
            return exp(-log_ratio) - 1 + log_ratio
        case _:
            return larger(-log_ratio, log_ratio)


def kl_estimate(
    logprobs: Any, ref_logprobs: Any, *, estimator: str, log_ratio_clip: Any, value_clip: Any
) -> list[list[Any]]:
    """The log-ratio clamped, estimated, and the estimate clamped."""

    def of_token(logprob: Any, ref_logprob: Any) -> Any:
        log_ratio = logprob - ref_logprob
        if log_ratio_clip is not None:
            log_ratio = nearest(log_ratio, -log_ratio_clip, log_ratio_clip)
        found = estimate(log_ratio, estimator)
        return found if value_clip is None else nearest(found, -value_clip, value_clip)

    return [
        [of_token(x, y) for x, y in zip(*rows, strict=True)]
        for rows in zip(logprobs, ref_logprobs, strict=True)
    ]


def softmax(logits: Any) -> list[Number]:
    """Probabilities of the vocabulary."""
    weights = [exp(z) for z in logits]
    whole = total(weights)
    return [weight / whole for weight in weights]


def divergence(logits: Any, ref_logits: Any) -> Any:
    """Σ π (log π - log π_ref); a token that cannot come counts as 0."""
    terms = []
    for p, q in zip(softmax(logits), softmax(ref_logits), strict=True):
        if p > 0 and q == 0:
            return math.inf
        if p > 0:
            terms.append(p * log(p / q))
    return total(terms)


def kl_divergence(logits: Any, ref_logits: Any) -> list[list[Any]]:
    """The divergence at every position."""
    return [
        [divergence(x, y) for x, y in zip(*rows, strict=True)]
        for rows in zip(logits, ref_logits, strict=True)
    ]


def adaptive_kl_coef(*, coef: Fraction, kl: Fraction, target: Fraction) -> Fraction:
    """Half below target / 1.5, twice above 1.5 target."""
    if kl < target / Fraction(3, 2):
        return coef / 2
    return 2 * coef if kl > Fraction(3, 2) * target else coef


def proportional_kl_coef(
    *, coef: Fraction, kl: Fraction, target: Fraction, horizon: Fraction, n_steps: Fraction
) -> Fraction:
    """coef (1 + e n_steps / horizon)."""
    error = nearest(kl / target - 1, Fraction(-1, 5), Fraction(1, 5))
    return Fraction(coef * (1 + error * n_steps / horizon))


DEFINITIONS: dict[str, Callable[..., Any]] = {
    "kl_estimate": kl_estimate,
    "kl_divergence": kl_divergence,
    "adaptive_kl_coef": adaptive_kl_coef,
    "proportional_kl_coef": proportional_kl_coef,
}
"""The operations of the protocol on nested lists."""
