"""The clauses of the chapter `trust_region`: conjugate gradients, the step, the line search."""

import itertools

import numpy as np

from conformance.backend import Limited
from conformance.cases import Case
from conformance.marks import clauses, operations
from conformance.run import Run
from reference.numbers.formats import FORMATS

REGIONS = ("exact", "generic")
ALMOST = dict.fromkeys(("float64", "float32"), (1 - 2.0**-10,))
"""Shares of a bound just below it, which a dtype tells from it."""
MANY_STEPS = (7, 12)
"""More than a solver stops after by itself, and not enough to be done."""


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


@clauses("trpo.conjugate-gradient")
@operations("conjugate_gradient")
def test_each_number_of_steps(run: Run) -> None:
    """The point after 1, 2 ... steps, up to the solution after as many as there are dimensions."""

    def check(case: Case) -> None:
        for steps in range(1, len(case.arguments["b"]) + 1):
            run.conforms(_at(run, case, max_iters=steps))

    run.over(REGIONS, check, tol=0.0)
    run.at(run.conforms, *(_spread(run, "b", max_iters=steps, tol=0.0) for steps in MANY_STEPS))


@clauses("trpo.conjugate-gradient-stop")
@operations("conjugate_gradient")
def test_tolerance(run: Run) -> None:
    """The norm of the residual itself, not its square, nor a part of the norm of b."""

    def check(case: Case) -> None:
        for scale in (0.5, 1.0):
            b = scale * case.arguments["b"]
            for share in (0.75, 1.5):
                tol = share * float(np.linalg.norm(b))
                run.conforms(_at(run, case.with_arguments(b=b), tol=tol))

    run.over(REGIONS, check)


@clauses("trpo.step-zero", "trpo.step")
@operations("trust_region_step")
def test_tolerance_of_the_step(run: Run) -> None:
    """The tolerance is on the norm of the residual, not its square, nor relative to the gradient."""

    def check(case: Case) -> None:
        for scale, share in itertools.product((0.5, 1.0), (0.75, 1.5)):
            gradient = scale * case.arguments["gradient"]
            tol = share * float(np.linalg.norm(gradient))
            run.conforms(_at(run, case.with_arguments(gradient=gradient), cg_tol=tol, cg_iters=1))

    run.over(REGIONS, check, inputs=5)


@clauses("trpo.step", "trpo.step-damping")
@operations("trust_region_step")
def test_step(run: Run) -> None:
    """√(2δ / s·Fs) s."""
    run.over(REGIONS, run.conforms)
    run.at(run.conforms, *(_spread(run, "gradient", cg_iters=steps, damping=0.0) for steps in MANY_STEPS))


@clauses("trpo.step-damping")
@operations("trust_region_step")
def test_damping(run: Run) -> None:
    """Damping in the direction and in its length."""
    for region, damping in (("exact", 1.0), ("generic", 0.1)):
        run.over((region,), run.conforms, damping=damping, max_kl=0.5)


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
def test_whatever_evaluate_gives(run: Run) -> None:
    """An estimate of the KL below 0 is within any bound, and an infinite improvement is one."""
    start, step = np.array([0.5]), np.array([1.0])

    def check(case: Case) -> None:
        got = run.call(case)
        run.seen(case, got == start + step, f"got {got.tolist()}, expected the first point, {start + step}")

    for curvature, slope in ((-4.0, 1.0), (0.25, np.inf)):
        found = {"matrix": np.array([[curvature]]), "slope": np.array([slope])}
        run.at(check, run.ordinary().with_arguments(**found, parameters=start, full_step=step))


@clauses("trpo.line-search")
@operations("backtracking_line_search")
def test_infinite_far_away(run: Run) -> None:
    """Where the KL is infinite, and the improvement NaN, a point is not accepted; a nearer one is."""
    large = 2.0 ** (FORMATS[run.dtype].max_exponent - 1)

    def check(case: Case) -> None:
        got = run.call(case)
        run.seen(case, got == [1.0], f"got {got.tolist()}, expected [1.0], where both are finite")

    quadratic = {"matrix": np.array([[large]]), "slope": np.array([large])}
    case = run.ordinary().with_arguments(**quadratic, parameters=np.zeros(1), full_step=np.array([8.0]))
    run.at(check, _at(run, case, max_kl=large, backtrack=0.5, max_steps=10))


@clauses("trpo.line-search")
@operations("backtracking_line_search")
def test_no_point_is_accepted(run: Run) -> None:
    """No improvement anywhere: the parameters, without a bit changed."""

    def check(case: Case) -> None:
        stays = case.with_arguments(slope=np.zeros_like(case.arguments["slope"]))
        got = run.call(stays)
        same = np.array_equal(got, case.arguments["parameters"])
        run.seen(stays, same, f"got {got.tolist()}, expected the parameters, bit by bit")

    run.over(("exact", "generic", "adversarial"), check)


@clauses("trpo.line-search")
@operations("backtracking_line_search")
def test_line_search_on_the_bounds(run: Run) -> None:
    """A KL of max_kl is accepted, one above it is not; an improvement of 0 is none."""

    def check(case: Case) -> None:
        step = np.sign(case.arguments["full_step"])
        force = case.arguments["matrix"] @ step
        kl = float(step @ force) / 2
        at_the_bound = case.with_arguments(full_step=step, slope=force)
        run.conforms(_at(run, at_the_bound, max_kl=kl))
        for share in (0.75, *ALMOST.get(run.dtype, ())):
            run.conforms(_at(run, at_the_bound, max_kl=share * kl))
        run.conforms(_at(run, at_the_bound.with_arguments(slope=force / 2), max_kl=kl))

    run.over(("exact",), check)


@clauses("trpo.line-search")
@operations("backtracking_line_search")
def test_line_search_to_the_end(run: Run) -> None:
    """Each step that is allowed is tried, and none beyond; otherwise no bit of the parameters changes."""

    def check(case: Case) -> None:
        step = np.sign(case.arguments["full_step"])
        force = case.arguments["matrix"] @ step
        kl, shorter = float(step @ force) / 2, case.options["backtrack"] ** 2
        for tries in (case.options["max_steps"] - 1, case.options["max_steps"]):
            within_after_tries = case.with_arguments(full_step=step, slope=force)
            for room in (1.0, 2.0):  # on the bound, and where that can be told in any precision
                run.conforms(_at(run, within_after_tries, max_kl=room * kl * shorter**tries))

    for max_steps in (3, 10, 20, 40):
        run.over(("exact",), check, max_steps=max_steps)
        plain = run.ordinary().with_options(max_steps=max_steps, backtrack=0.5)
        run.at(check, plain, plain.with_arguments(parameters=np.zeros_like(plain.arguments["parameters"])))


@clauses("trpo.line-search")
@operations("backtracking_line_search")
def test_line_search_without_numbers(run: Run) -> None:
    """An improvement or a KL that is NaN is not accepted: the parameters stay as they are."""

    def check(case: Case) -> None:
        for name in ("slope", "matrix"):
            unknown = case.with_arguments(**{name: np.full_like(case.arguments[name], np.nan)})
            got = run.call(unknown)
            same = np.array_equal(got, case.arguments["parameters"])
            run.seen(unknown, same, f"got {got.tolist()}, expected the parameters as they were")

    run.over(("exact",), check)


def _spread(run: Run, right_side: str, **options: float) -> Case:
    """A plain call with 16 eigenvalues far apart, which float64 alone decides after many steps."""
    scales = np.arange(1.0, 17.0)
    case = run.ordinary(D=len(scales)).with_arguments(matrix=np.diag(scales**2))
    return case.with_arguments(**{right_side: np.ones(len(scales))}).with_options(**options)


def _at(run: Run, case: Case, **options: float) -> Case:
    """The case with options at values of its own, where the backend can vary them."""
    for name in options:
        if name in run.backend.limits(run.operation):
            raise Limited(f"{name} cannot be varied")
    return case.with_options(**options)
