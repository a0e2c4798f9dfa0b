"""The clauses of the chapter `kl`: estimators, clamps, gradients, the full divergence, coefficients."""

import itertools

import numpy as np

from conformance.cases import VALUE_REGIONS, Case, ordinary
from conformance.extremes import filtered, with_slopes
from conformance.marks import clauses, operations
from conformance.oracle import permitted
from conformance.run import Run
from conformance.values import option_values
from reference.numbers.formats import FORMATS

RATIO_REGIONS = (*VALUE_REGIONS, "extremes")
ESTIMATORS = ("k1", "k2", "k3", "abs")
CLAMPS = ((20.0, None), (None, 10.0), (20.0, 10.0))
"""Of the log-ratio and of the value."""
FAR_COEFFICIENTS = (1e-4, 100.0)
"""No bound is set on a coefficient, neither from below nor from above."""
MANY = 300
"""More tokens of a vocabulary than a block of 256 threads has."""


@clauses("kl.estimators")
@operations("kl_estimate")
def test_estimates(run: Run) -> None:
    """k1 = ℓ, k2 = ℓ²/2, k3 = e^{-ℓ} - 1 + ℓ, abs = |ℓ|."""
    run.over(("exact",), run.conforms)
    for estimator in ESTIMATORS:
        run.over(("generic", "adversarial"), run.conforms, estimator=estimator)
    run.over(("generic",), lambda case: run.at_default(case, "estimator"), estimator="k1")


@clauses("kl.estimator-gradients")
@operations("kl_estimate")
def test_gradients_of_estimates(run: Run) -> None:
    """1, ℓ, 1 - e^{-ℓ} and the sign of ℓ."""
    run.over(("exact", "adversarial"), run.differentiates)
    for estimator in ESTIMATORS:
        run.over(("generic",), run.differentiates, estimator=estimator)


@clauses("kl.clamps")
@operations("kl_estimate")
def test_clamps(run: Run) -> None:
    """The log-ratio is clamped first, the value last; where a clamp acts, no gradient flows."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(with_slopes(case))

    for bound in (20.0, 0.5, None):
        run.over(RATIO_REGIONS, check, log_ratio_clip=bound, value_clip=10.0)
    run.over(("extremes",), check, estimator="k3", log_ratio_clip=None, value_clip=None)
    far = _far_apart(run)
    for estimator, (bound, value) in itertools.product(ESTIMATORS, CLAMPS):
        clamped = far.with_options(estimator=estimator, log_ratio_clip=bound, value_clip=value)
        run.at(check, clamped)
    unclamped = far.with_options(estimator="k1", log_ratio_clip=None, value_clip=None)
    run.at(lambda case: run.at_default(case, "log_ratio_clip"), unclamped)
    run.at(lambda case: run.at_default(case, "value_clip"), unclamped)


def _far_apart(run: Run) -> Case:
    """Log-ratios inside of every clamp and far outside."""
    log_ratios = np.array([[0.25, 30.0, 90.0, 800.0], [-0.25, -30.0, -90.0, -800.0]])
    logprobs, ref_logprobs = np.minimum(log_ratios, 0.0), np.minimum(-log_ratios, 0.0)
    return run.ordinary().with_arguments(logprobs=logprobs, ref_logprobs=ref_logprobs)


@clauses("kl.full")
@operations("kl_divergence")
def test_full_divergence(run: Run) -> None:
    """Σ π (log π - log π_ref) over the vocabulary, however large it is."""
    run.over(VALUE_REGIONS, run.conforms)
    limits = run.backend.limits(run.operation)
    run.tally.expected += 1
    run.count(run.conforms, ordinary(run.operation, run.dtype, limits, sizes={"B": 1, "T": 1, "V": MANY}))


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
        some = case.with_arguments(logits=filtered(case.arguments["logits"]))
        run.conforms(some)
        run.differentiates(some)
        by_both = some.with_arguments(ref_logits=filtered(case.arguments["ref_logits"]))
        run.conforms(by_both)
        run.differentiates(by_both)

    run.over(("generic", "adversarial"), check)


@clauses("kl.impossible-tokens")
@operations("kl_divergence")
def test_tokens_that_the_reference_rules_out(run: Run) -> None:
    """A token that the policy can produce and the reference cannot: the divergence is +∞."""

    def check(case: Case) -> None:
        run.conforms(case.with_arguments(ref_logits=filtered(case.arguments["ref_logits"])))

    run.over(("generic", "adversarial"), check)


@clauses("kl.shift")
@operations("kl_divergence")
def test_shift(run: Run) -> None:
    """A constant added to a position's logits changes nothing."""

    def check(case: Case) -> None:
        for name in ("logits", "ref_logits"):
            moved = case.with_arguments(**{name: case.arguments[name] + 4.0})
            run.judge(moved, run.call(moved), permitted(case))

    def check_far(case: Case) -> None:
        for down in (4096.0, 2.0**15 if case.dtype == "float16" else 2.0**17):
            far = {name: FORMATS[case.dtype].round(x - down) for name, x in case.arguments.items()}
            run.conforms(case.with_arguments(**far))

    run.over(("exact",), check)
    run.over(("generic",), check_far)


@clauses("kl.adaptive-coefficient")
@operations("adaptive_kl_coef")
def test_adaptive_coefficient(run: Run) -> None:
    """Halved below the target's band, doubled above it, kept inside and on its bounds."""
    _over_errors(run)


@clauses("kl.proportional-coefficient")
@operations("proportional_kl_coef")
def test_proportional_coefficient(run: Run) -> None:
    """The relative error is clipped to ±0.2; over many steps the coefficient changes its sign."""
    _over_errors(run)
    run.over(("generic",), run.conforms, coef=0.5, kl=0.0, horizon=64.0, n_steps=1000.0)


def _over_errors(run: Run) -> None:
    """Every divergence beside every target that the tables have."""
    for region in ("exact", "generic"):
        kls, targets = (option_values(run.operation, name, region == "exact") for name in ("kl", "target"))
        for kl, target in itertools.product(kls, targets):
            run.over((region,), run.conforms, kl=kl, target=target)
    for coef, kl in itertools.product(FAR_COEFFICIENTS, (0.0, 0.5, 2.0)):
        run.at(run.conforms, run.ordinary().with_options(coef=coef, kl=kl, target=0.5))
