"""The clauses of the chapter `trust_region`: conjugate gradients, the step, the line search."""

import numpy as np

from conformance.cases import Case
from conformance.marks import clauses, operations
from conformance.run import Run

REGIONS = ("exact", "generic")


@clauses("trpo.conjugate-gradient")
@operations("conjugate_gradient")
def test_conjugate_gradient(run: Run) -> None:
    """The solution after m steps."""
    run.over(REGIONS, run.conforms)


@clauses("trpo.conjugate-gradient-stop")
@operations("conjugate_gradient")
def test_stops(run: Run) -> None:
    """b = 0 gives 0, and so does a tolerance that 0 meets."""

    def check(case: Case) -> None:
        run.conforms(case.with_arguments(b=np.zeros_like(case.arguments["b"])))
        run.conforms(case.with_options(tol=1e6))

    run.over(REGIONS, check)


@clauses("trpo.step", "trpo.step-damping")
@operations("trust_region_step")
def test_step(run: Run) -> None:
    """√(2δ / s·Fs) s."""
    run.over(REGIONS, run.conforms)


@clauses("trpo.step-zero")
@operations("trust_region_step")
def test_zero_gradient(run: Run) -> None:
    """A gradient of 0, or within the tolerance, or no budget: a step of 0."""

    def check(case: Case) -> None:
        run.conforms(case.with_arguments(gradient=np.zeros_like(case.arguments["gradient"])))

    run.over(REGIONS, check)
    run.over(REGIONS, run.conforms, cg_tol=1e6)
    run.over(REGIONS, run.conforms, max_kl=0.0)


@clauses("trpo.line-search")
@operations("backtracking_line_search")
def test_line_search(run: Run) -> None:
    """The first step that improves and stays in the region; otherwise the parameters as they were."""
    run.over(("exact", "generic", "adversarial"), run.conforms)


@clauses("trpo.line-search")
@operations("backtracking_line_search")
def test_no_point_is_accepted(run: Run) -> None:
    """No improvement anywhere, or NaN: the parameters, without a bit changed."""

    def check(case: Case) -> None:
        for slope in (0.0, np.nan):
            stays = case.with_arguments(slope=np.full_like(case.arguments["slope"], slope))
            got = run.call(stays)
            same = np.array_equal(got, case.arguments["parameters"])
            run.seen(stays, same, f"got {got.tolist()}, expected the parameters, bit by bit")

    run.over(("exact", "generic", "adversarial"), check)
