"""The conventions that libraries follow, as formulas: what `rlspec identify` tries, by operation."""

from functools import cache

from conformance.conventions import (
    aggregation,
    gae,
    group,
    importance_sampling,
    kl,
    logprobs,
    policy_loss,
    preference,
    reward,
    training,
    trust_region,
    value_loss,
)
from conformance.conventions.family import Family, Hypothesis

FAMILIES: dict[str, Family] = {
    family.operation: family
    for chapter in (
        gae,
        importance_sampling,
        kl,
        logprobs,
        aggregation,
        policy_loss,
        value_loss,
        reward,
        preference,
        group,
        trust_region,
        training,
    )
    for family in chapter.FAMILIES
}
"""The readings of each operation, by its name."""


@cache
def hypotheses(operation: str) -> tuple[Hypothesis, ...]:
    """The known variants of an operation: the reference with one convention changed."""
    return tuple(FAMILIES[operation].edits())
