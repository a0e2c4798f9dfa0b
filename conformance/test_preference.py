"""The clauses of the chapter `preference`: sequence log-probabilities, implicit rewards, the DPO losses."""

import numpy as np

from conformance.cases import MASK_REGIONS, VALUE_REGIONS, Case
from conformance.marks import clauses, operations
from conformance.operations import OPERATIONS
from conformance.oracle import permitted
from conformance.run import Run
from conformance.values import option_values
from reference.numbers.formats import FORMATS


@clauses("dpo.sum-of-logprobs")
@operations("sequence_logprobs")
def test_sequence_logprobs(run: Run) -> None:
    """Sums over active tokens, or their means; and their gradients."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)

    run.over((*VALUE_REGIONS, *MASK_REGIONS), check)


@clauses("dpo.implicit-reward")
@operations("implicit_rewards")
def test_implicit_rewards(run: Run) -> None:
    """β (log π - log π_ref), and its gradient."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)

    run.over(VALUE_REGIONS, check)
    far = {"policy_logprobs": np.array([-1.0, -31.0, -2.0]), "ref_logprobs": np.array([-31.0, -1.0, -2.5])}
    run.at(check, run.ordinary().with_arguments(**far))


@clauses("dpo.loss")
@operations("dpo_loss")
def test_sigmoid_loss(run: Run) -> None:
    """The mean of -log σ(βh)."""
    run.over((*VALUE_REGIONS, "extremes"), run.conforms, loss_type="sigmoid", label_smoothing=0.0)


@clauses("dpo.loss", "dpo.gradient")
@operations("dpo_loss")
def test_far_apart(run: Run) -> None:
    """Margins of ±25: no straight line in the place of a small loss, nor of the small part of a large one."""

    def check(case: Case) -> None:
        ahead = case.arguments["policy_chosen"] >= case.arguments["ref_chosen"]
        far = FORMATS[case.dtype].round(np.full(ahead.shape, -25.0 / case.options["beta"]))
        apart = case.with_arguments(
            policy_chosen=np.where(ahead, 0.0, far),
            policy_rejected=np.where(ahead, far, 0.0),
            ref_chosen=np.zeros(ahead.shape),
            ref_rejected=np.zeros(ahead.shape),
        )
        run.conforms(apart)
        run.differentiates(apart)

    run.over(("generic",), check, loss_type="sigmoid", label_smoothing=0.0)


@clauses("dpo.loss-label-smoothing")
@operations("dpo_loss")
def test_label_smoothing(run: Run) -> None:
    """The pair as labelled and the other way round, mixed."""
    for smoothing in (0.1, 0.5):
        run.over(VALUE_REGIONS, run.conforms, loss_type="sigmoid", label_smoothing=smoothing)


@clauses("dpo.loss-hinge")
@operations("dpo_loss")
def test_hinge_loss(run: Run) -> None:
    """max(0, 1 - βh)."""
    run.over(VALUE_REGIONS, run.conforms, loss_type="hinge", label_smoothing=0.0)


@clauses("dpo.loss-ipo")
@operations("dpo_loss")
def test_ipo_loss(run: Run) -> None:
    """(h - 1/(2β))²."""
    run.over(VALUE_REGIONS, run.conforms, loss_type="ipo", label_smoothing=0.0)


@clauses("dpo.gradient")
@operations("dpo_loss")
def test_gradient(run: Run) -> None:
    """The slope of the pair's loss in its margin, over N, with opposite signs."""
    run.over((*VALUE_REGIONS, "extremes"), run.differentiates)


@clauses("dpo.limits-equal-answers")
@operations("dpo_loss")
def test_equal_answers(run: Run) -> None:
    """The same log-ratio on both sides is a margin of 0."""

    def check(case: Case) -> None:
        same = {
            "policy_rejected": np.array(case.arguments["policy_chosen"]),
            "ref_rejected": np.array(case.arguments["ref_chosen"]),
        }
        run.conforms(case.with_arguments(**same))

    run.over(VALUE_REGIONS, check)


@clauses("dpo.limits-equal-weights")
@operations("dpo_loss")
def test_pairs_weigh_the_same(run: Run) -> None:
    """Every pair twice is the same mean, and no pairs have the loss 0."""

    def check(case: Case) -> None:
        twice = {name: np.concatenate([x, x]) for name, x in case.arguments.items()}
        doubled = case.with_arguments(**twice)
        run.judge(doubled, run.call(doubled), permitted(doubled, _of_the_first_half))

    def _of_the_first_half(*arrays: np.ndarray, **options: object) -> object:
        half = len(arrays[0]) // 2
        return OPERATIONS[run.operation].reference(*(x[:half] for x in arrays), **options)

    def is_zero(case: Case) -> None:
        got = run.call(case)
        run.seen(case, not got.any(), f"got {got.tolist()}, expected 0 for no pairs")

    run.over(VALUE_REGIONS, check)
    for loss_type in option_values(run.operation, "loss_type"):
        run.at(is_zero, run.ordinary(N=0).with_options(loss_type=loss_type))
