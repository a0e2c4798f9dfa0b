"""The clauses of the chapter `kl`: estimators, clamps, gradients, the full divergence, coefficients."""

import numpy as np

from conformance.cases import VALUE_REGIONS, Case
from conformance.marks import clauses, operations
from conformance.oracle import permitted
from conformance.run import Run

RATIO_REGIONS = (*VALUE_REGIONS, "extremes")


@clauses("kl.estimators")
@operations("kl_estimate")
def test_estimates(run: Run) -> None:
    """k1 = ℓ, k2 = ℓ²/2, k3 = e^{-ℓ} - 1 + ℓ, abs = |ℓ|."""
    run.over(VALUE_REGIONS, run.conforms)


@clauses("kl.estimator-gradients")
@operations("kl_estimate")
def test_gradients_of_estimates(run: Run) -> None:
    """1, ℓ, 1 - e^{-ℓ} and the sign of ℓ."""
    run.over(VALUE_REGIONS, run.differentiates)


@clauses("kl.clamps")
@operations("kl_estimate")
def test_clamps(run: Run) -> None:
    """The log-ratio is clamped first, the value last; where a clamp acts, no gradient flows."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)

    for bound in (20.0, 0.5, None):
        run.over(RATIO_REGIONS, check, log_ratio_clip=bound, value_clip=10.0)


@clauses("kl.full")
@operations("kl_divergence")
def test_full_divergence(run: Run) -> None:
    """Σ π (log π - log π_ref) over the vocabulary."""
    run.over(VALUE_REGIONS, run.conforms)


@clauses("kl.full-gradient")
@operations("kl_divergence")
def test_gradient_of_full_divergence(run: Run) -> None:
    """π(a) (ℓ(a) - KL)."""
    run.over(VALUE_REGIONS, run.differentiates)


@clauses("kl.impossible-tokens")
@operations("kl_divergence")
def test_impossible_tokens(run: Run) -> None:
    """A logit of -∞ counts 0, not NaN, in value and gradient."""

    def check(case: Case) -> None:
        filtered = case.with_arguments(logits=_without_last(case.arguments["logits"]))
        run.conforms(filtered)
        run.differentiates(filtered)
        by_both = filtered.with_arguments(ref_logits=_without_last(case.arguments["ref_logits"]))
        run.conforms(by_both)
        run.differentiates(by_both)

    run.over(("generic", "adversarial"), check)


@clauses("kl.impossible-tokens")
@operations("kl_divergence")
def test_tokens_that_the_reference_rules_out(run: Run) -> None:
    """A token that the policy can produce and the reference cannot: the divergence is +∞."""

    def check(case: Case) -> None:
        run.conforms(case.with_arguments(ref_logits=_without_last(case.arguments["ref_logits"])))

    run.over(("generic", "adversarial"), check)


@clauses("kl.shift")
@operations("kl_divergence")
def test_shift(run: Run) -> None:
    """A constant added to a position's logits changes nothing."""

    def check(case: Case) -> None:
        moved = case.with_arguments(logits=case.arguments["logits"] + 4.0)
        run.judge(moved, run.call(moved), permitted(case))

    run.over(("exact",), check)


@clauses("kl.adaptive-coefficient")
@operations("adaptive_kl_coef")
def test_adaptive_coefficient(run: Run) -> None:
    """Halved below the target's band, doubled above it, kept inside and on its bounds."""
    run.over(("exact", "generic"), run.conforms)


@clauses("kl.proportional-coefficient")
@operations("proportional_kl_coef")
def test_proportional_coefficient(run: Run) -> None:
    """The relative error is clipped to ±0.2."""
    run.over(("exact", "generic"), run.conforms)


def _without_last(logits: np.ndarray) -> np.ndarray:
    """Filter the last token of every position out, if it is not the only one."""
    if logits.shape[-1] == 1:
        return logits
    filtered = logits.copy()
    filtered[..., -1] = -np.inf
    return filtered
