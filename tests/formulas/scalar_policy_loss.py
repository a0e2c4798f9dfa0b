"""The chapter `ppo` a second time: loops over single numbers, from the words of the clauses alone."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from tests.formulas.scalar_importance_sampling import mean_log_ratio, ratio
from tests.formulas.scalar_kl import softmax
from tests.formulas.scalars import Number, constant, exp, larger, log, nearest, smaller, total


def token_logprobs(logits: Any, tokens: Any, *, temperature: Fraction) -> list[list[Number]]:
    """log p of the token at every position."""
    return [
        [log(distribution(z, temperature)[token]) for z, token in zip(*rows, strict=True)]
        for rows in zip(logits, tokens, strict=True)
    ]


def token_entropy(logits: Any, *, temperature: Fraction) -> list[list[Number]]:
    """-Σ p log p at every position."""
    return [
        [-total(p * log(p) for p in distribution(z, temperature) if p > 0) for z in row] for row in logits
    ]


def distribution(logits: Any, temperature: Fraction) -> list[Number]:
    """The probabilities of a position: 0 where the logit is -∞."""
    return softmax([z / temperature for z in logits])


def divisors(mask: Any, mode: str, horizon: Any, empty_rows: str) -> list[Any]:
    """What each row's tokens are divided by."""
    lengths = [sum(row) for row in mask]
    rows = len(mask) if empty_rows == "count" else max(sum(1 for length in lengths if length), 1)
    return [
        {
            "token-mean": sum(lengths),
            "seq-mean-token-sum": rows,
            "seq-mean-token-mean": rows * length,
            "seq-mean-token-sum-norm": rows * (len(mask[0]) if horizon is None else horizon),
        }[mode]
        for length in lengths
    ]


def aggregate(x: Any, mask: Any, *, mode: str, horizon: Any, empty_rows: str) -> Number:
    """The sum of the active tokens' numbers, each over its divisor."""
    each = divisors(mask, mode, horizon, empty_rows)
    return total(x[i][t] / each[i] for i, t in active(mask))


def objective(rho: Number, advantage: Any, low: Any, high: Any, dual: Any) -> Any:
    """A token's min(ρA, clip(ρ) A), and at least cA where A < 0."""
    lower = smaller(rho * advantage, nearest(rho, 1 - low, 1 + high) * advantage)
    return lower if dual is None or advantage >= 0 else larger(dual * advantage, lower)


def ratios(logprobs: Any, old_logprobs: Any, mask: Any, level: str, clamp: Any) -> list[Any]:
    """The ratio of each active token of a row at a level."""
    mean = mean_log_ratio(logprobs, old_logprobs, mask)
    found: list[Any] = []
    for new, old, takes_part in zip(logprobs, old_logprobs, mask, strict=True):
        if not takes_part:
            found.append(None)
        elif level == "token":
            found.append(ratio(new - old, clamp))
        elif level == "sequence":
            found.append(ratio(mean, clamp))
        else:  # the sequence's value, with the token's own logarithm to differentiate
            found.append(ratio(constant(mean) + new - constant(new), clamp))
    return found


def policy_loss(
    logprobs: Any,
    old_logprobs: Any,
    advantages: Any,
    mask: Any,
    rollout_weights: Any,
    *,
    clip_low: Any,
    clip_high: Any,
    dual_clip: Any,
    ratio_level: str,
    aggregation: str,
    horizon: Any,
    empty_rows: str,
    log_ratio_clip: Any,
) -> Number:
    """The aggregate of minus the weighted objectives."""
    losses: list[list[Any]] = [[None] * len(row) for row in mask]
    rhos = [
        ratios(*rows, ratio_level, log_ratio_clip) for rows in zip(logprobs, old_logprobs, mask, strict=True)
    ]
    for i, t in active(mask):
        gain = objective(rhos[i][t], advantages[i][t], clip_low, clip_high, dual_clip)
        losses[i][t] = -gain * (1 if rollout_weights is None else rollout_weights[i][t])
    return aggregate(losses, mask, mode=aggregation, horizon=horizon, empty_rows=empty_rows)


def policy_metrics(
    logprobs: Any,
    old_logprobs: Any,
    advantages: Any,
    mask: Any,
    *,
    clip_low: Any,
    clip_high: Any,
    dual_clip: Any,
) -> list[Any]:
    """Means over active tokens: of log π_old - log π, of clips that act, of dual clips that act."""
    changes, clips, duals = [], 0, 0
    for i, t in active(mask):
        change, advantage = logprobs[i][t] - old_logprobs[i][t], advantages[i][t]
        rho = exp(change)
        changes.append(-change)
        clips += (advantage > 0 and rho > 1 + clip_high) or (advantage < 0 and rho < 1 - clip_low)
        duals += dual_clip is not None and advantage < 0 and rho > dual_clip
    count = max(len(changes), 1)
    return [total(changes) / count, Fraction(clips, count), Fraction(duals, count)]


def kl_penalty_loss(
    logprobs: Any, old_logprobs: Any, advantages: Any, kl: Any, mask: Any, *, kl_coef: Any, aggregation: str
) -> Number:
    """The aggregate of β KL - ρA."""
    losses: list[list[Any]] = [[None] * len(row) for row in mask]
    for i, t in active(mask):
        losses[i][t] = kl_coef * kl[i][t] - exp(logprobs[i][t] - old_logprobs[i][t]) * advantages[i][t]
    return aggregate(losses, mask, mode=aggregation, horizon=None, empty_rows="count")


def active(mask: Any) -> list[tuple[int, int]]:
    """Positions that take part."""
    return [(i, t) for i, row in enumerate(mask) for t, takes_part in enumerate(row) if takes_part]


DEFINITIONS: dict[str, Callable[..., Any]] = {
    "token_logprobs": token_logprobs,
    "token_entropy": token_entropy,
    "aggregate": aggregate,
    "policy_loss": policy_loss,
    "policy_metrics": policy_metrics,
    "kl_penalty_loss": kl_penalty_loss,
}
"""The operations of the protocol on nested lists."""
