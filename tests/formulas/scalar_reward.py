"""The chapter `rm` a second time: loops over single numbers, from the words of the clauses alone."""

from collections.abc import Callable
from typing import Any

from tests.formulas.scalar_kl import estimate
from tests.formulas.scalars import Number, exp, log1p, total


def pair_loss(ahead: Any) -> Number:
    """-log σ(Δ) = log(1 + exp(-Δ))."""
    return log1p(exp(-ahead))


def reward_model_loss(chosen: Any, rejected: Any, *, margin: Any) -> Number:
    """The mean over pairs, 0 of none."""
    losses = [pair_loss(c - r - margin) for c, r in zip(chosen, rejected, strict=True)]
    return total(losses) / max(len(losses), 1)


def shaped_rewards(
    scores: Any, logprobs: Any, ref_logprobs: Any, mask: Any, *, kl_coef: Any, estimator: str
) -> list[list[Any]]:
    """-β KL at every active token, and the score on the last."""
    rewards: list[list[Any]] = [[None] * len(row) for row in mask]
    for i, row in enumerate(mask):
        tokens = [t for t, takes_part in enumerate(row) if takes_part]
        for t in tokens:
            rewards[i][t] = -kl_coef * estimate(logprobs[i][t] - ref_logprobs[i][t], estimator)
        if tokens:
            rewards[i][tokens[-1]] += scores[i]
    return rewards


DEFINITIONS: dict[str, Callable[..., Any]] = {
    "reward_model_loss": reward_model_loss,
    "shaped_rewards": shaped_rewards,
}
"""The operations of the protocol on nested lists."""
