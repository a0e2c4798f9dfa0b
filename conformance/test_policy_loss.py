"""The clauses of the chapter `policy_loss`: log-probabilities, entropy, clips, aggregation, metrics."""

import numpy as np

from conformance.cases import MASK_REGIONS, VALUE_REGIONS, Case
from conformance.marks import clauses, operations
from conformance.run import Run
from conformance.values import MODES


@clauses("ppo.token-logprobs")
@operations("token_logprobs")
def test_token_logprobs(run: Run) -> None:
    """log softmax(logits / temperature) at the token, and its gradient."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)

    run.over(VALUE_REGIONS, check)


@clauses("ppo.entropy")
@operations("token_entropy")
def test_token_entropy(run: Run) -> None:
    """-Σ p log p, and its gradient; a logit of -∞ contributes 0."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)
        filtered = np.array(case.arguments["logits"])
        filtered[..., 1:2] = -np.inf
        run.conforms(case.with_arguments(logits=filtered))
        run.differentiates(case.with_arguments(logits=filtered))

    run.over(VALUE_REGIONS, check)


@clauses("ppo.aggregation")
@operations("aggregate")
def test_aggregate(run: Run) -> None:
    """Each mode, in value and gradient."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)

    for mode in MODES:
        run.over((*VALUE_REGIONS, *MASK_REGIONS), check, mode=mode)


@clauses("ppo.clip")
@operations("policy_loss")
def test_clip(run: Run) -> None:
    """max(-ρA, -clip(ρ)A), aggregated."""
    run.over(VALUE_REGIONS, run.conforms, dual_clip=None)


@clauses("ppo.clip-cases")
@operations("policy_loss")
def test_gradient_of_clip(run: Run) -> None:
    """0 where the clip binds, -ρA elsewhere; on a boundary anything between."""
    run.over((*VALUE_REGIONS, "extremes"), run.differentiates)


@clauses("ppo.dual-clip")
@operations("policy_loss")
def test_dual_clip(run: Run) -> None:
    """A < 0 and ρ > c: -cA with the gradient 0."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)

    for bound in (3.0, 1.5):
        run.over(VALUE_REGIONS, check, dual_clip=bound, ratio_level="token")


@clauses("ppo.kl-penalty")
@operations("kl_penalty_loss")
def test_kl_penalty(run: Run) -> None:
    """The aggregate of β kl - ρA, and its gradients."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)

    run.over(VALUE_REGIONS, check)


@clauses("ppo.metrics")
@operations("policy_metrics")
def test_metrics(run: Run) -> None:
    """The approximate KL and the fractions of tokens that a clip bounds."""
    run.over((*VALUE_REGIONS, *MASK_REGIONS), run.conforms)
