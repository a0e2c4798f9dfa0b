"""The clauses of the chapter `group`: group advantages, leave-one-out baselines, the GRPO loss."""

import itertools

import numpy as np

from conformance.cases import MASK_REGIONS, VALUE_REGIONS, Case, ordinary
from conformance.marks import clauses, operations
from conformance.reproduction import Call
from conformance.run import Run
from conformance.zones import CLIPS, with_every_group, with_every_ratio
from reference.numbers.formats import FORMATS

ADVANTAGES = ("group_advantages", "rloo_advantages")
MANY_GROUPS = 80
MANY_RESPONSES = 64
NAMES = ((907, 3, 88), (-1, 1, 0), (-(2**62), 2**62, 2**62 + 1))
"""Ids of three groups; two of the last are one number in 32 bits, in float64, and without their sign."""
ANY_NAMES = np.array([-100, *np.random.default_rng(0).integers(-(2**62), 2**62, MANY_GROUPS - 1)])
"""Ids of many: of so many numbers some are equal in any table of a thousand places."""


@clauses("grpo.advantage")
@operations("group_advantages")
def test_group_advantages(run: Run) -> None:
    """(r - mean)/(std + eps), or r - mean."""
    run.over((*VALUE_REGIONS, "offset", "close"), run.conforms)
    one_success = np.eye(1, MANY_RESPONSES)[0]
    close = np.array([0.0, 1.0, 2.0, 1.0]) * 2.0**-20
    run.at(run.conforms, *(_one_group(run, scores) for scores in (one_success, close)))


@clauses("grpo.leave-one-out")
@operations("rloo_advantages")
def test_leave_one_out(run: Run) -> None:
    """The reward less the mean of the others'."""
    run.over((*VALUE_REGIONS, "offset", "close"), run.conforms)


@clauses("grpo.advantage", of=("group_advantages",))
@clauses("grpo.leave-one-out", of=("rloo_advantages",))
@operations(*ADVANTAGES)
def test_many_groups(run: Run) -> None:
    """Groups of two and three among each other: none is left out, however many there are."""
    run.tally.expected = 1
    limits, sizes = run.backend.limits(run.operation), {"B": 2 * MANY_GROUPS + MANY_GROUPS // 2}
    case = ordinary(run.operation, run.dtype, limits, sizes=sizes)
    run.count(run.conforms, case.with_arguments(group_ids=np.arange(sizes["B"]) % MANY_GROUPS))


@clauses("grpo.invariances")
@operations(*ADVANTAGES)
def test_ids_are_names(run: Run) -> None:
    """Other integers for the ids, another order of the rows: the same advantages."""

    def check(case: Case) -> None:
        ids = case.arguments["group_ids"]
        allowed = run.permitted_base(case)
        for names in NAMES:
            renamed = case.with_arguments(group_ids=np.array(names)[ids])
            run.judge(renamed, run.call(renamed), allowed)
        order = np.argsort(ids, kind="stable")
        sorted_rows = case.with_arguments(scores=case.arguments["scores"][order], group_ids=ids[order])
        back = np.argsort(order)
        made = Call(sorted_rows, read=f"{{answer}}[{back.tolist()}]")
        note = f"the call has its rows in the order {order.tolist()}; in order it is right"
        run.judge(case, run.call(sorted_rows)[back], allowed, note=note, made=made)

    run.over(("generic", "adversarial"), check)
    run.at(check, run.ordinary(B=9).with_arguments(group_ids=np.arange(9) % 3))
    ids = ANY_NAMES[np.arange(2 * MANY_GROUPS) % MANY_GROUPS]
    run.at(run.conforms_there, run.ordinary(B=len(ids)).with_arguments(group_ids=ids))


@clauses("grpo.invariances")
@operations(*ADVANTAGES)
def test_other_groups(run: Run) -> None:
    """NaN and infinity stay in the group that they are in."""

    def check(case: Case) -> None:
        allowed, clean = run.permitted_base(case), run.call(case)
        ids, scores = case.arguments["group_ids"], case.arguments["scores"]
        for filling in (np.nan, np.inf):
            others = case.with_arguments(scores=np.where(ids == ids[0], scores, filling))
            run.judge(others, np.where(ids == ids[0], run.call(others), clean), allowed)

    run.over(VALUE_REGIONS, check)
    if run.operation == "group_advantages":
        run.over(VALUE_REGIONS, check, scale="std")


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
    if run.operation == "group_advantages":
        run.over(VALUE_REGIONS, check, eps=0.0)
    for size, score in itertools.product((3, 5, 6, 7), (0.1, 0.7, -1 / 3)):
        run.at(check, _one_group(run, FORMATS[run.dtype].round(np.full(size, score))))


def _one_group(run: Run, scores: np.ndarray) -> Case:
    """A plain call with these scores, all of one group."""
    return run.ordinary().with_arguments(scores=scores, group_ids=np.zeros(len(scores), dtype=np.int64))


@clauses("grpo.zero-variance-rounding", of=("group_advantages",))
@clauses("grpo.invariances")
@operations(*ADVANTAGES)
def test_every_kind_of_group(run: Run) -> None:
    """Spread, alone, equal, equal up to a rounding, one success: interleaved in one batch."""
    run.over(("exact", "generic"), lambda case: run.conforms(with_every_group(case)))


@clauses("grpo.single")
@operations(*ADVANTAGES)
def test_group_of_one(run: Run) -> None:
    """A group of one response: 0."""

    def check(case: Case) -> None:
        alone = case.with_arguments(group_ids=np.arange(len(case.arguments["scores"])))
        got = run.call(alone)
        run.seen(alone, not got.any(), f"got {got.tolist()}, expected exactly 0")

    run.over(VALUE_REGIONS, check)
    if run.operation == "group_advantages":
        run.over(VALUE_REGIONS, check, eps=0.0)


@clauses("grpo.loss")
@operations("grpo_loss")
def test_loss(run: Run) -> None:
    """The clipped loss with the response's advantage at every token, and β times the aggregate of k3."""
    run.over((*VALUE_REGIONS, *MASK_REGIONS), run.conforms, ratio_level="token")


@clauses("grpo.loss", "ppo.clip-cases", "ppo.clip-boundary")
@operations("grpo_loss")
def test_every_zone_of_the_clip(run: Run) -> None:
    """Each sign of A with the ratios of a row in each zone and on each bound, all in one batch."""

    def check(case: Case) -> None:
        zoned = with_every_ratio(case)
        run.conforms(zoned)
        run.differentiates(zoned)

    for low, high, dual in CLIPS:
        if dual is None:
            run.over(("exact", "generic"), check, inputs=3, clip_low=low, clip_high=high)


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
