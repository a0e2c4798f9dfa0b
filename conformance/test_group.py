"""The clauses of the chapter `group`: group advantages, leave-one-out baselines, the GRPO loss."""

import numpy as np

from conformance.cases import MASK_REGIONS, VALUE_REGIONS, Case
from conformance.marks import clauses, operations
from conformance.run import Run

ADVANTAGES = ("group_advantages", "rloo_advantages")


@clauses("grpo.advantage")
@operations("group_advantages")
def test_group_advantages(run: Run) -> None:
    """(r - mean)/(std + eps), or r - mean."""
    run.over(VALUE_REGIONS, run.conforms)


@clauses("grpo.leave-one-out")
@operations("rloo_advantages")
def test_leave_one_out(run: Run) -> None:
    """The reward less the mean of the others'."""
    run.over(VALUE_REGIONS, run.conforms)


@clauses("grpo.invariances")
@operations(*ADVANTAGES)
def test_ids_are_names(run: Run) -> None:
    """Other integers for the ids, another order of the rows: the same advantages."""

    def check(case: Case) -> None:
        ids = case.arguments["group_ids"]
        renamed = case.with_arguments(group_ids=np.array([907, 3, 88])[ids])
        allowed = run.permitted_base(case)
        run.judge(renamed, run.call(renamed), allowed)
        order = np.argsort(ids, kind="stable")
        sorted_rows = case.with_arguments(scores=case.arguments["scores"][order], group_ids=ids[order])
        run.judge(sorted_rows, run.call(sorted_rows)[np.argsort(order)], allowed)

    run.over(("generic", "adversarial"), check)


@clauses("grpo.zero-variance")
@operations(*ADVANTAGES)
def test_equal_rewards(run: Run) -> None:
    """Equal rewards: exactly 0, in every dtype."""

    def check(case: Case) -> None:
        scores = np.full_like(case.arguments["scores"], case.arguments["scores"][0])
        equal = case.with_arguments(scores=scores)
        got = run.call(equal)
        run.seen(equal, not got.any(), f"got {got.tolist()}, expected exactly 0")

    run.over(VALUE_REGIONS, check)


@clauses("grpo.single")
@operations(*ADVANTAGES)
def test_group_of_one(run: Run) -> None:
    """A group of one response: 0."""

    def check(case: Case) -> None:
        alone = case.with_arguments(group_ids=np.arange(len(case.arguments["scores"])))
        got = run.call(alone)
        run.seen(alone, not got.any(), f"got {got.tolist()}, expected exactly 0")

    run.over(VALUE_REGIONS, check)


@clauses("grpo.loss")
@operations("grpo_loss")
def test_loss(run: Run) -> None:
    """The clipped loss with the response's advantage at every token, and β times the aggregate of k3."""
    run.over((*VALUE_REGIONS, *MASK_REGIONS), run.conforms, ratio_level="token")


@clauses("grpo.sequence-ratio")
@operations("grpo_loss")
def test_sequence_ratio(run: Run) -> None:
    """The response's ratio at every token, in value and gradient."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)

    for level in ("sequence", "sequence-token"):
        run.over(VALUE_REGIONS, check, ratio_level=level)


@clauses("grpo.on-policy-gradient")
@operations("grpo_loss")
def test_gradient(run: Run) -> None:
    """Where π = π_old, -(A + β (π_ref/π - 1)) over the divisor; elsewhere what the pieces give."""

    def check(case: Case) -> None:
        run.differentiates(case)
        run.differentiates(case.with_arguments(old_logprobs=np.array(case.arguments["logprobs"])))

    run.over(VALUE_REGIONS, check)
