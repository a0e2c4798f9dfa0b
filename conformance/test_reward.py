"""The clauses of the chapter `reward`: the reward model's loss, and rewards shaped by a KL penalty."""

import numpy as np

from conformance.cases import MASK_REGIONS, VALUE_REGIONS, Case
from conformance.marks import clauses, operations
from conformance.run import Run
from reference.numbers.formats import FORMATS


@clauses("rm.bradley-terry")
@operations("reward_model_loss")
def test_loss(run: Run) -> None:
    """The mean of -log σ(s_c - s_r - m); 0 for no pairs."""
    run.over(VALUE_REGIONS, run.conforms)

    def is_zero(case: Case) -> None:
        got = run.call(case)
        run.seen(case, not got.any(), f"got {got.tolist()}, expected 0 for no pairs")

    run.at(is_zero, run.ordinary(N=0))


@clauses("rm.gradient")
@operations("reward_model_loss")
def test_gradient(run: Run) -> None:
    """-σ(-Δ)/N and σ(-Δ)/N."""
    run.over(VALUE_REGIONS, run.differentiates)


@clauses("rm.bradley-terry-stable")
@operations("reward_model_loss")
def test_stable(run: Run) -> None:
    """Scores of ±10⁴ and less: finite, and the small losses of pairs far ahead are not lost."""

    def check(case: Case) -> None:
        for scale in (25.0, 100.0, 1e3, 1e4) if case.dtype != "float16" else (8.0, 100.0):
            chosen = np.sign(case.arguments["chosen"]) * FORMATS[case.dtype].round(scale)
            for rejected in (np.zeros_like(chosen), -chosen):
                apart = case.with_arguments(chosen=chosen, rejected=rejected)
                run.conforms(apart)
                run.differentiates(apart)

    run.over(("generic", "adversarial"), check, inputs=3, margin=0.0)


@clauses("rm.shaping")
@operations("shaped_rewards")
def test_shaped_rewards(run: Run) -> None:
    """-β KL_t everywhere, and the score on top at the end."""
    run.over(VALUE_REGIONS, run.conforms)


@clauses("rm.last-token")
@operations("shaped_rewards")
def test_last_token(run: Run) -> None:
    """Without a penalty, what is left is the score, on the last active token alone."""
    run.over((*MASK_REGIONS, "one-token", "exact"), run.conforms, kl_coef=0.0)
