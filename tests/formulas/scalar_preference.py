"""The chapter `dpo` a second time: loops over single numbers, from the words of the clauses alone."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from tests.formulas.scalar_reward import pair_loss
from tests.formulas.scalars import Number, larger, total


def sequence_logprobs(token_logprobs: Any, mask: Any, *, average: bool) -> list[Number]:
    """The sum of each row's active tokens, or their mean."""
    results = []
    for row, active in zip(token_logprobs, mask, strict=True):
        kept = [x for x, takes_part in zip(row, active, strict=True) if takes_part]
        results.append(total(kept) / max(len(kept), 1) if average else total(kept))
    return results


def implicit_rewards(policy_logprobs: Any, ref_logprobs: Any, *, beta: Any) -> list[Any]:
    """β (log π - log π_ref) of every response."""
    return [beta * (policy - ref) for policy, ref in zip(policy_logprobs, ref_logprobs, strict=True)]


def margin_loss(h: Any, beta: Any, label_smoothing: Any, loss_type: str) -> Any:
    """The loss of a pair with the margin h."""
    match loss_type:
        case "hinge":
            return larger(Fraction(0), 1 - beta * h)
        case "ipo":
            distance = h - 1 / (2 * beta)
            return distance * distance
        case _:
            as_labelled, other_way_round = pair_loss(beta * h), pair_loss(-beta * h)
            return (1 - label_smoothing) * as_labelled + label_smoothing * other_way_round


def dpo_loss(
    policy_chosen: Any,
    policy_rejected: Any,
    ref_chosen: Any,
    ref_rejected: Any,
    *,
    beta: Any,
    label_smoothing: Any,
    loss_type: str,
) -> Number:
    """The mean over pairs, 0 of none."""
    pairs = zip(policy_chosen, policy_rejected, ref_chosen, ref_rejected, strict=True)
    losses = [
        margin_loss((chosen - before_chosen) - (rejected - before_rejected), beta, label_smoothing, loss_type)
        for chosen, rejected, before_chosen, before_rejected in pairs
    ]
    return total(losses) / max(len(losses), 1)


DEFINITIONS: dict[str, Callable[..., Any]] = {
    "sequence_logprobs": sequence_logprobs,
    "implicit_rewards": implicit_rewards,
    "dpo_loss": dpo_loss,
}
"""The operations of the protocol on nested lists."""
