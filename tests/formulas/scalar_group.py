"""The chapter `grpo` a second time: loops over single numbers, from the words of the clauses alone."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from tests.formulas.scalar_kl import estimate
from tests.formulas.scalar_policy_loss import active, aggregate, policy_loss
from tests.formulas.scalars import Number, sqrt


def groups(ids: Any) -> list[list[int]]:
    """The rows of each row's group."""
    return [[k for k, other in enumerate(ids) if other == name] for name in ids]


def group_advantages(scores: Any, group_ids: Any, *, scale: str, ddof: int, eps: Any) -> list[Any]:
    """(r - m) / (s + ε) of every response, 0 where the rewards of its group are equal."""
    results: list[Any] = []
    for own, members in zip(scores, groups(group_ids), strict=True):
        rewards = [scores[k] for k in members]
        if len(set(rewards)) == 1:
            results.append(Fraction(0))
            continue
        mean = sum(rewards) / len(rewards)
        variance = sum((r - mean) ** 2 for r in rewards) / (len(rewards) - ddof)
        results.append((own - mean) / (sqrt(variance) + eps) if scale == "std" else own - mean)
    return results


def rloo_advantages(scores: Any, group_ids: Any) -> list[Any]:
    """A reward less the mean of the others of its group, 0 where there is none."""
    results = []
    for row, members in enumerate(groups(group_ids)):
        others = [scores[k] for k in members if k != row]
        results.append(scores[row] - sum(others) / len(others) if others else Fraction(0))
    return results


def grpo_loss(
    logprobs: Any,
    old_logprobs: Any,
    ref_logprobs: Any,
    advantages: Any,
    mask: Any,
    *,
    kl_coef: Any,
    aggregation: str,
    horizon: Any,
    empty_rows: str,
    **clips: Any,
) -> Number:
    """The clipped loss, a response's advantage at each of its tokens, and β times the aggregate of k3."""
    how: dict[str, Any] = {"horizon": horizon, "empty_rows": empty_rows}
    spread = [[advantage] * len(row) for advantage, row in zip(advantages, mask, strict=True)]
    clips |= {"dual_clip": None, "aggregation": aggregation}
    clipped = policy_loss(logprobs, old_logprobs, spread, mask, None, **clips, **how)
    distances: list[list[Any]] = [[None] * len(row) for row in mask]
    for i, t in active(mask):
        distances[i][t] = estimate(logprobs[i][t] - ref_logprobs[i][t], "k3")
    penalty: Number = kl_coef * aggregate(distances, mask, mode=aggregation, **how)
    return clipped + penalty


DEFINITIONS: dict[str, Callable[..., Any]] = {
    "group_advantages": group_advantages,
    "rloo_advantages": rloo_advantages,
    "grpo_loss": grpo_loss,
}
"""The operations of the protocol on nested lists."""
