"""The clauses of the chapter `importance_sampling`: ratios, truncated weights, weighted means."""

from collections.abc import Callable

import numpy as np

from conformance.cases import MASK_REGIONS, VALUE_REGIONS, Case, ordinary
from conformance.extremes import with_slopes
from conformance.marks import clauses, operations
from conformance.oracle import permitted
from conformance.run import Run

RATIO_REGIONS = (*VALUE_REGIONS, "extremes")
MANY = 300
"""More tokens than a block of 256 threads has."""


@clauses("is.ratio")
@operations("importance_ratio")
def test_ratio(run: Run) -> None:
    """ρ = exp(log π - log π_old)."""
    run.over(VALUE_REGIONS, run.conforms)


@clauses("is.gradient-of-ratio")
@operations("importance_ratio")
def test_gradient_of_ratio(run: Run) -> None:
    """The ratio itself."""
    run.over(VALUE_REGIONS, run.differentiates)


@clauses("is.log-ratio-clamp")
@operations("importance_ratio")
def test_log_ratio_clamp(run: Run) -> None:
    """exp(±c) beyond the clamp, with the gradient 0."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(with_slopes(case))

    for bound in (20.0, 0.5):
        run.over(RATIO_REGIONS, check, log_ratio_clip=bound)
    run.over(("extremes",), run.conforms, log_ratio_clip=None)
    for log_ratio, clip in ((800.0, None), (30.0, 40.0)):  # no other clamp than the one that was asked for
        beyond = {"logprobs": np.zeros((1, 2)), "old_logprobs": np.array([[-log_ratio, -1.0]])}
        run.at(run.conforms, run.ordinary().with_arguments(**beyond).with_options(log_ratio_clip=clip))
    never_seen = {"logprobs": np.full((1, 2), -0.5), "old_logprobs": np.array([[-np.inf, -1.0]])}
    infinite = run.ordinary().with_arguments(**never_seen)
    run.at(check, infinite.with_options(log_ratio_clip=20.0))
    run.at(run.conforms, infinite.with_options(log_ratio_clip=None))
    run.over(("extremes",), lambda case: run.at_default(case, "log_ratio_clip"), log_ratio_clip=20.0)


@clauses("is.ratio", "is.log-ratio-clamp")
@operations("importance_ratio")
def test_token_that_was_ruled_out(run: Run) -> None:
    """A new log-probability of -∞: 0, or exp(-c) with a clamp, and no gradient."""

    def check(case: Case) -> None:
        logprobs = np.array(case.arguments["logprobs"])
        logprobs[0, 0] = -np.inf
        run.conforms(case.with_arguments(logprobs=logprobs))
        run.differentiates(case.with_arguments(logprobs=logprobs))

    for bound in (20.0, None):
        run.over(("generic", "adversarial"), check, log_ratio_clip=bound)


@clauses("is.first-epoch")
@operations("importance_ratio", "sequence_importance_ratio")
def test_first_epoch(run: Run) -> None:
    """Equal log-probabilities: exactly 1, with the gradient of log π."""

    def check(case: Case) -> None:
        same = case.with_arguments(old_logprobs=np.array(case.arguments["logprobs"]))
        got = run.call(same)
        run.seen(same, bool((got == 1.0).all()), f"got {got.tolist()}, expected exactly 1")
        run.differentiates(same)

    run.over(VALUE_REGIONS, check)


@clauses("is.sequence-ratio")
@operations("sequence_importance_ratio")
def test_sequence_ratio(run: Run) -> None:
    """The exponential of the mean log-ratio over active tokens; 0, or infinite, if one was ruled out."""
    run.over((*VALUE_REGIONS, *MASK_REGIONS), run.conforms)
    plain = run.ordinary()
    for name in ("logprobs", "old_logprobs"):
        run.at(run.conforms, plain.with_arguments(**{name: _first_is_minus_infinity(plain, name)}))


@clauses("is.sequence-ratio-gradient")
@operations("sequence_importance_ratio")
def test_gradient_of_sequence_ratio(run: Run) -> None:
    """s/N at each active token, and exactly 0 at all others."""

    def check(case: Case) -> None:
        run.differentiates(case)
        found = run.gradients(case, ["logprobs"], run.upstream(case))["logprobs"]
        masked = np.where(case.arguments["mask"], 0.0, found)
        run.seen(case, not masked.any(), f"gradient at masked positions: {masked.tolist()}, expected 0")

    run.over((*VALUE_REGIONS, *MASK_REGIONS), check)


@clauses("is.truncated")
@operations("truncated_importance_weights")
def test_truncated_weights(run: Run) -> None:
    """min(w, C), or w where it is at most C and 0 elsewhere."""
    for mode in ("truncate", "mask"):
        run.over(VALUE_REGIONS, run.conforms, mode=mode)
    run.over(("exact",), run.conforms, cap=1.0, mode="mask")
    sizes = {"B": 1, "T": MANY}
    many = ordinary(run.operation, run.dtype, run.backend.limits(run.operation), sizes=sizes)
    run.tally.expected += 1
    run.count(run.conforms, many.with_arguments(rollout_logprobs=4.0 * many.arguments["old_logprobs"]))
    run.over(("generic",), lambda case: run.at_default(case, "mode"), mode="truncate")


@clauses("is.truncated-overflow")
@operations("truncated_importance_weights")
def test_truncated_weights_beyond_the_dtype(run: Run) -> None:
    """A weight that overflows is larger than any cap; one that underflows, or that was ruled out, is 0."""

    def check(case: Case) -> None:
        run.conforms(case)
        for name in ("rollout_logprobs", "old_logprobs"):
            run.conforms(case.with_arguments(**{name: _first_is_minus_infinity(case, name)}))

    for mode in ("truncate", "mask"):
        run.over(("extremes",), check, mode=mode)


@clauses("is.estimator")
@operations("importance_sampling_mean")
def test_estimator(run: Run) -> None:
    """Σ w f / N, samples of weight 0 included."""
    run.over(VALUE_REGIONS, _with_a_weight_of_0(run), self_normalized=False)
    run.over(("generic",), lambda case: run.at_default(case, "self_normalized"), self_normalized=False)


@clauses("is.self-normalised")
@operations("importance_sampling_mean")
def test_self_normalised(run: Run) -> None:
    """Σ w f / Σ w."""
    run.over(VALUE_REGIONS, _with_a_weight_of_0(run), self_normalized=True)


@clauses("is.self-normalised-shift")
@operations("importance_sampling_mean", "effective_sample_size")
def test_shift_of_log_weights(run: Run) -> None:
    """A constant added to all log-weights changes nothing, ±900 included."""

    def check(case: Case) -> None:
        for shift in (900.0, -900.0):
            # Multiples of 8 below 1024 are numbers of every dtype: the shift rounds nothing.
            unmoved = np.clip(np.round(case.arguments["log_weights"]), -8, 8) * 8
            moved = case.with_arguments(log_weights=unmoved + shift // 8 * 8)
            got = run.call(moved)
            run.seen(moved, bool(np.isfinite(got).all()), f"got {got.tolist()}, expected a finite number")
            run.judge(moved, got, permitted(moved))

    fixed = {"self_normalized": True} if run.operation == "importance_sampling_mean" else {}
    run.over(("generic", "adversarial"), check, **fixed)


@clauses("is.effective-sample-size")
@operations("effective_sample_size")
def test_effective_sample_size(run: Run) -> None:
    """(Σ w)² / Σ w²."""
    run.over(VALUE_REGIONS, _with_a_weight_of_0(run))


def _with_a_weight_of_0(run: Run) -> Callable[[Case], None]:
    """Check a case, and again with a weight of 0 in front of others."""

    def check(case: Case) -> None:
        run.conforms(case)
        if len(case.arguments["log_weights"]) > 1:
            run.conforms(case.with_arguments(log_weights=_first_is_minus_infinity(case, "log_weights")))

    return check


def _first_is_minus_infinity(case: Case, name: str) -> np.ndarray:
    """An argument whose first number is -∞."""
    changed = np.array(case.arguments[name])
    changed.flat[0] = -np.inf
    return changed
