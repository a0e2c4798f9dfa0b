"""The chapter `trpo`: answers of reference and torch_impl are those float64 may give; other formulas, errors.

Results on drawn inputs are held against a second definition in `test_second_definitions`.
"""

import itertools
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given

from reference import numbers, trust_region
from reference.numbers import balls, dyadics, symbols
from reference.numbers.formats import FORMATS
from tests.examples import examples
from tests.formulas.scalar_trust_region import dot
from tests.formulas.scalars import real
from tests.numbers.enclosure import DIGITS, encloses, is_bounded
from torch_impl import trust_region as in_torch

reference: Any = trust_region
"""As a module of anything: balls, dyadic rationals and symbols go where floats are declared."""

torch_impl: Any = in_torch

FORM = FORMATS["float64"]
ROUNDING = balls.Rounding(FORM, 2.0)
HALVES = (torch.float16, torch.bfloat16)

Vector = list[Fraction]
Matrix = list[Vector]

quarters = st.integers(-8, 8).map(lambda k: k / 4)
budgets = st.sampled_from([0.5, 0.0, 1.0, 0.01, 2.0])
tolerances = st.sampled_from([1e-9, 0.5, 1.0, 2.0, 1e-3])
dampings = st.sampled_from([0.0, 0.5, 0.1, 1.0])


@st.composite
def systems(draw: Any) -> tuple[Any, Any]:
    """A symmetric matrix whose eigenvalues are at least 1, and a right-hand side."""
    size = draw(st.integers(1, 4))
    entries = draw(st.lists(quarters, min_size=size * (size + 1), max_size=size * (size + 1)))
    factor = np.reshape(entries[size:], (size, size))
    return factor @ factor.T + np.eye(size), np.array(entries[:size])


def fractions(x: Any) -> Any:
    return [fractions(row) for row in x] if np.ndim(x) else Fraction(float(x))


def product_on_balls(matrix: Any, rounding: Any = None, perturbation: float = 0.0) -> Any:
    held = balls.array(matrix, rounding, perturbation)
    return lambda vector: numbers.total(held * vector, axis=1)


def widened(x: Any) -> Any:
    """A float64 argument with all that float64 may do to it."""
    return balls.array(x, ROUNDING, 2 * FORM.unit_roundoff)


def widened_product(matrix: Any) -> Any:
    return product_on_balls(matrix, ROUNDING, 2 * FORM.unit_roundoff)


def allowed(got: Any, permitted: Any) -> bool:
    """Whether a result lies in its balls; an unbounded ball holds everything."""
    return all(
        not is_bounded(ball) or encloses(ball, float(x)) for x, ball in zip(got, permitted, strict=True)
    )


def tensors(*arrays: Any) -> list[Any]:
    return [torch.tensor(x, dtype=torch.float64) for x in arrays]


@examples(150)
@given(systems(), st.integers(1, 6), tolerances)
def test_conjugate_gradient_in_float64(system: Any, max_iters: int, tol: float) -> None:
    matrix, b = system
    permitted = reference.conjugate_gradient(
        widened_product(matrix), widened(b), max_iters=max_iters, tol=widened(tol)
    )
    options = {"max_iters": max_iters, "tol": tol}
    assert allowed(reference.conjugate_gradient(matrix.dot, b, **options), permitted)
    held, right = tensors(matrix, b)
    assert allowed(torch_impl.conjugate_gradient(held.mv, right, **options), permitted)


def test_most_systems_have_bounded_answers() -> None:
    source = np.random.default_rng(0)
    bounded = 0
    for _ in range(50):
        factor = source.integers(-8, 9, (3, 3)) / 4
        matrix, b = factor @ factor.T + np.eye(3), source.integers(-8, 9, 3) / 4
        points = reference.conjugate_gradient(
            widened_product(matrix), widened(b), max_iters=10, tol=widened(1e-6)
        )
        bounded += all(map(is_bounded, points))
    assert bounded > 45


@examples(100)
@given(systems(), budgets, st.integers(1, 5), tolerances, dampings)
def test_trust_region_step(system: Any, max_kl: float, iters: int, tol: float, damping: float) -> None:
    matrix, gradient = system
    options = {"max_kl": max_kl, "cg_tol": tol, "damping": damping}
    permitted = reference.trust_region_step(
        widened_product(matrix),
        widened(gradient),
        cg_iters=iters,
        **{k: widened(x) for k, x in options.items()},
    )
    assert allowed(reference.trust_region_step(matrix.dot, gradient, cg_iters=iters, **options), permitted)
    fisher, slope = tensors(matrix, gradient)
    assert allowed(torch_impl.trust_region_step(fisher.mv, slope, cg_iters=iters, **options), permitted)


@examples(200)
@given(
    st.tuples(quarters, quarters, quarters, quarters),
    st.sampled_from([0.5, 0.75, 0.3]),
    st.integers(1, 6),
    budgets,
)
def test_backtracking_line_search(drawn: Any, backtrack: float, max_steps: int, max_kl: float) -> None:
    """A gain that bends down along the step, and a KL that grows with the step's square."""
    start, step, slope, bend = drawn

    def evaluate(point: Any) -> tuple[Any, Any]:
        moved = point[0] - start
        return slope * moved - bend * moved * moved, bend * moved * moved

    def search(module: Any, array: Any, option: Any) -> Any:
        options = {"max_kl": option(max_kl), "backtrack": option(backtrack), "max_steps": max_steps}
        return module.backtracking_line_search(evaluate, array([start]), array([step]), **options)

    expected = scalar_line_search(*map(Fraction, (*drawn, backtrack, max_kl)), max_steps=max_steps)
    assert encloses(search(reference, balls.array, balls.array)[0], expected)
    permitted = search(reference, widened, widened)
    assert allowed(search(reference, np.array, float), permitted)
    assert allowed(search(torch_impl, lambda x: torch.tensor(x, dtype=torch.float64), float), permitted)


def scalar_line_search(
    start: Fraction,
    step: Fraction,
    slope: Fraction,
    bend: Fraction,
    backtrack: Fraction,
    max_kl: Fraction,
    *,
    max_steps: int,
) -> Fraction:
    for j in range(max_steps):
        moved = backtrack**j * step
        kl = bend * moved * moved
        if slope * moved - kl > 0 and kl <= max_kl:
            return start + moved
    return start


NAN, INF = float("nan"), float("inf")
ANSWERS = ((1.0, 0.5), (1.0, 1.0), (1.0, 1.5), (0.0, 0.5), (-1.0, 0.5), (NAN, 0.5), (1.0, NAN), (INF, 0.0))


def test_first_point_that_is_accepted() -> None:
    """All answers to three points, with δ = 1: the tie of the KL is accepted, that of the gain is not."""
    for answers in itertools.product(ANSWERS, repeat=3):
        accepted = [j for j, (gain, kl) in enumerate(answers) if gain > 0 and kl <= 1]
        expected = 0.5 ** accepted[0] if accepted else 0.0
        table = dict(zip((1.0, 0.5, 0.25), answers, strict=True))
        for module, array in ((reference, np.array), (torch_impl, torch.tensor)):
            found = module.backtracking_line_search(
                lambda x, table=table: table[float(x[0])], array([0.0]), array([1.0]), max_kl=1.0, max_steps=3
            )
            assert float(found[0]) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
def test_parameters_stay_bit_by_bit(dtype: torch.dtype) -> None:
    parameters = torch.tensor([-0.0, 1.0, 1e-3, 6e4], dtype=dtype)
    step = torch.ones(4, dtype=dtype)
    found = torch_impl.backtracking_line_search(lambda _: (-1.0, 0.0), parameters, step, max_kl=1.0)
    assert found.dtype == dtype
    assert torch.equal(found, parameters)
    assert torch.equal(found.signbit(), parameters.signbit())
    assert found.data_ptr() != parameters.data_ptr()
    kept = reference.backtracking_line_search(
        lambda _: (-1.0, 0.0), parameters.double().numpy(), step.double().numpy(), max_kl=1.0
    )
    assert kept.tobytes() == parameters.double().numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
def test_nothing_to_solve(dtype: torch.dtype) -> None:
    nothing, matrix = torch.zeros(3, dtype=dtype), torch.eye(3, dtype=dtype)
    for got in (
        torch_impl.conjugate_gradient(matrix.mv, nothing, max_iters=3, tol=0.0),
        torch_impl.trust_region_step(matrix.mv, nothing, max_kl=0.1, cg_tol=0.0),
        torch_impl.trust_region_step(matrix.mv, torch.ones(3, dtype=dtype), max_kl=0.0),
        torch_impl.trust_region_step(matrix.mv, torch.full((3,), 0.25, dtype=dtype), max_kl=0.1, cg_tol=0.5),
    ):
        assert torch.equal(got, nothing)
    for array in (np.zeros(3), balls.array(np.zeros(3)), balls.array(np.zeros(3), ROUNDING)):
        for solved in (
            reference.conjugate_gradient(lambda v: 2 * v, array, max_iters=3, tol=0.0),
            reference.trust_region_step(lambda v: 2 * v, array, max_kl=0.1),
        ):
            assert all(x == 0 if isinstance(x, float) else x.value.is_zero() for x in solved)


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
def test_every_dtype(name: str) -> None:
    """A system that is exact in every format; in bfloat16 the balls of a second step hold everything."""
    form, dtype = FORMATS[name], getattr(torch, name)
    matrix, b = np.array([[4.0, 0.25], [0.25, 0.5]]), np.array([1.0, 1.0])
    rounding = balls.Rounding(form, 2.0)
    product = product_on_balls(matrix, rounding, 2 * form.unit_roundoff)
    right, held = balls.array(b, rounding, 2 * form.unit_roundoff), torch.tensor(matrix, dtype=dtype)
    for steps in (1,) if name == "bfloat16" else (1, 2):
        permitted = reference.conjugate_gradient(product, right, max_iters=steps, tol=0.0)
        got = torch_impl.conjugate_gradient(held.mv, torch.tensor(b, dtype=dtype), max_iters=steps, tol=0.0)
        assert got.dtype == dtype
        assert all(map(encloses, permitted, map(float, got)))


def test_a_direction_in_the_kernel_ends_the_steps() -> None:
    """A = (1, 0; 0, 0), b = (1, 1): after a step of length 2 along b the direction is (0, 2), of image 0."""
    found = torch_impl.conjugate_gradient(
        lambda v: v * torch.tensor([1.0, 0.0]), torch.ones(2), max_iters=5, tol=0.0
    )
    assert torch.equal(found, torch.tensor([2.0, 2.0]))


@pytest.mark.parametrize("seed", range(5))
def test_steps_are_taken_along_what_the_matrix_was_given(seed: int) -> None:
    """In bfloat16 it is given rounded directions: steps in float64 along these end at the same point."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randint(-3, 4, (4, 4), generator=generator).double()
    matrix, b = factor @ factor.T + torch.eye(4), torch.randint(-4, 5, (4,), generator=generator).double()
    given: list[torch.Tensor] = []

    def product(vector: torch.Tensor) -> torch.Tensor:
        given.append(vector.double())
        return (matrix @ given[-1]).float()

    found = torch_impl.conjugate_gradient(product, b.bfloat16(), max_iters=4, tol=0.0)
    solution, residual = torch.zeros(4, dtype=torch.float64), b
    for direction in given:
        length = residual @ residual / (direction @ matrix @ direction)
        solution, residual = solution + length * direction, residual - length * (matrix @ direction)
    assert torch.equal(found, solution.bfloat16())


def test_damping_is_rounded_as_products_are_computed() -> None:
    """A = 0, b = 1, d = 4/3: Δ = √(2δ/d), just beyond the middle between two numbers of bfloat16.

    4/3 in bfloat16 is 2⁻⁹ of it too large, which takes Δ 2⁻¹⁰ down, to the other side.
    """
    one = torch.ones(1, dtype=torch.bfloat16)
    middle = 1 + 2.0**-8
    beyond = (middle * (1 + 2.0**-12)) ** 2 * (4 / 3) / 2
    step = torch_impl.trust_region_step(lambda v: 0 * v, one, max_kl=beyond, damping=4 / 3)
    assert step.item() == 1 + 2.0**-7


def test_a_shortened_step_is_rounded_with_the_point_that_it_leads_to() -> None:
    """1 + 0.7 · 183 · 2⁻¹⁵ is just beyond the middle, 1 + 2⁻⁸, to which 0.7 · 183 · 2⁻¹⁵ alone is rounded."""
    one, step = (torch.tensor([x], dtype=torch.bfloat16) for x in (1.0, 183 * 2.0**-15))
    improvements = iter([-1.0, 1.0])
    found = torch_impl.backtracking_line_search(
        lambda _: (next(improvements), 0.0), one, step, max_kl=1.0, backtrack=0.7
    )
    assert found.item() == 1 + 2.0**-7


def test_a_kernel_costs_nothing() -> None:
    """The Fisher matrix of logits in float32: rounding leaves its products a part in its kernel."""
    probabilities = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])

    def product(vector: Any) -> Any:
        v = vector.view_as(probabilities)
        return (probabilities * (v - (probabilities * v).sum(1, keepdim=True))).flatten()

    gradient = product(torch.tensor([1.0, -1.0, 2.0, 0.0, 0.5, 0.0, 1.0, -2.0]))
    for tol in (1e-6, 1e-10, 0.0):
        step = torch_impl.trust_region_step(product, gradient, max_kl=0.01, cg_iters=50, cg_tol=tol)
        assert step.isfinite().all()
        assert float(gradient @ step) > 0


def test_no_gradient_flows_through() -> None:
    matrix = torch.eye(2, requires_grad=True)
    vector = torch.ones(2, requires_grad=True)
    for got in (
        torch_impl.conjugate_gradient(matrix.mv, vector, max_iters=2, tol=0.0),
        torch_impl.trust_region_step(matrix.mv, vector, max_kl=0.1),
        torch_impl.backtracking_line_search(lambda x: (x.sum(), x @ x), vector, vector, max_kl=9.0),
    ):
        assert not got.requires_grad


def test_a_product_may_differentiate() -> None:
    """The Fisher-vector product as training makes it: the derivative of the KL's gradient along v."""
    logits = torch.tensor([[0.0, 1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    constant = logits.detach().log_softmax(-1)

    def product(vector: Any) -> Any:
        new = logits.log_softmax(-1)
        divergence = (constant.exp() * (constant - new)).sum()
        [slope] = torch.autograd.grad(divergence, logits, create_graph=True)
        return torch.autograd.grad((slope.flatten() * vector).sum(), logits)[0].flatten()

    probabilities, weights = constant.exp().numpy(), np.ones(1)
    gradient = reference.fisher_vector_product(probabilities, weights, np.array([[1.0, -2.0, 1.0]]))[0]
    options = {"max_kl": 0.5, "cg_iters": 2}
    permitted = reference.trust_region_step(
        lambda v: reference.fisher_vector_product(widened(probabilities), weights, v[None])[0],
        widened(gradient),
        **options,
    )
    step = torch_impl.trust_region_step(product, torch.tensor(gradient), **options)
    assert all(map(encloses, permitted, map(float, step)))


@examples(200)
@given(st.integers(1, 3), st.integers(1, 3), st.randoms(use_true_random=False))
def test_formulas(states: int, actions: int, source: Any) -> None:
    """Sums over states and actions, element by element."""

    def table(*shape: int, low: float = -2.0) -> Any:
        return np.array([source.uniform(low, 2.0) for _ in range(int(np.prod(shape)))]).reshape(shape)

    weights, policy, advantages = table(states, low=0.1), table(states, actions), table(states, actions)
    cells = list(itertools.product(range(states), range(actions)))
    w, p, a = map(fractions, (weights, policy, advantages))
    gathered = sum((w[s] * p[s][k] * a[s][k] for s, k in cells), Fraction(0))
    assert encloses(reference.expected_advantage(*map(balls.array, (weights, policy, advantages))), gathered)
    largest = max(abs(a[s][k]) for s, k in cells)
    coefficient = reference.penalty_coefficient(balls.array(advantages), gamma=balls.array(0.75))
    assert encloses(coefficient, 4 * largest * Fraction(3, 4) / Fraction(1, 4) ** 2)
    product = reference.fisher_vector_product(*map(balls.array, (policy, weights, advantages)))
    for s, k in cells:
        mean = dot(p[s], a[s])
        assert encloses(product[s, k], w[s] / sum(w) * p[s][k] * (a[s][k] - mean))
    with mpmath.workdps(DIGITS):
        terms = [real(w[s]) * mpmath.exp(real(p[s][k])) * (real(p[s][k]) - real(a[s][k])) for s, k in cells]
        divergence = reference.mean_kl(*map(balls.array, (policy, advantages, weights)))
        assert encloses(divergence, mpmath.fsum(terms) / real(sum(w, Fraction(0))))


@examples(150)
@given(st.integers(1, 3), st.integers(1, 4), st.randoms(use_true_random=False))
def test_surrogate(batch: int, width: int, source: Any) -> None:
    logprobs, old, advantages = (
        np.array(
            [
                [source.choice((0.0, -0.5, -3.0, source.uniform(-9, 0))) for _ in range(width)]
                for _ in range(batch)
            ]
        )
        for _ in range(3)
    )
    mask = np.array([[source.random() < 0.6 for _ in range(width)] for _ in range(batch)])
    with mpmath.workdps(DIGITS):
        kept = [
            mpmath.exp(mpmath.mpf(logprobs[i]) - mpmath.mpf(old[i])) * mpmath.mpf(advantages[i])
            for i in np.ndindex(mask.shape)
            if mask[i]
        ]
        expected = mpmath.fsum(kept) / max(len(kept), 1)
        garbage = [
            np.where(mask, x, fill) for x, fill in ((logprobs, np.nan), (old, -np.inf), (advantages, np.inf))
        ]
        assert encloses(reference.surrogate(*map(balls.array, garbage), mask), expected)
    permitted = reference.surrogate(*map(widened, garbage), mask)
    assert encloses(permitted, float(reference.surrogate(*garbage, mask)))


def test_surrogate_of_no_tokens_is_zero() -> None:
    logprobs, old, advantages = np.array([[-1.0, -2.0]]), np.array([[-2.0, -1.0]]), np.array([[3.0, 4.0]])
    none = np.zeros((1, 2), dtype=bool)
    assert reference.surrogate(logprobs, old, advantages, none) == 0.0
    enclosed = reference.surrogate(*map(balls.array, (logprobs, old, advantages)), none)
    assert encloses(enclosed, 0.0)


def test_forbidden_actions_cost_nothing_or_all() -> None:
    old, new = np.array([[0.0, -np.inf]]), np.log([[0.5, 0.5]])
    with np.errstate(divide="ignore"):
        assert reference.mean_kl(old, new, np.ones(1)) == np.log(2.0)
        assert reference.mean_kl(old, old, np.ones(1)) == 0.0
        assert reference.mean_kl(new, old, np.ones(1)) == np.inf


def test_a_state_that_is_never_visited_has_no_say() -> None:
    old, new = np.log([[0.5, 0.5], [0.25, 0.75]]), np.array([np.log([0.25, 0.75]), [0.0, -np.inf]])
    visited = reference.mean_kl(old[:1], new[:1], [3.0])
    assert visited > 0
    assert reference.mean_kl(old, new, [3.0, 0.0]) == visited
    [exact, of_balls] = (
        reference.mean_kl(*map(balls.array, (old[:n], new[:n], [3.0, 0.0][:n]))) for n in (1, 2)
    )
    assert of_balls.value.is_finite()
    assert of_balls.value.overlaps(exact.value)


def test_other_number_systems() -> None:
    exact = np.frompyfunc(dyadics.number, 1, 1)
    vector = exact(np.array([1.0, 1.0, -1.0, 1.0]))
    solved = reference.conjugate_gradient(lambda v: 4.0 * v, vector, max_iters=1, tol=0.0)
    assert [x.value for x in solved] == [Fraction(k, 4) for k in (1, 1, -1, 1)]
    point = reference.backtracking_line_search(
        lambda x: (x[0], x[0]), vector - vector, vector, max_kl=0.25, backtrack=0.5
    )
    assert [x.value for x in point] == [Fraction(k, 4) for k in (1, 1, -1, 1)]
    [symbol] = reference.trust_region_step(
        lambda v: 2 * v, symbols.array("g", (1,), positive=True), max_kl=4, cg_iters=1, cg_tol=0
    )
    assert sympy.simplify(symbol) == 2


GOOD: dict[str, dict[str, Any]] = {
    "conjugate_gradient": {"matvec": lambda v: v, "b": [1.0, 2.0], "max_iters": 2, "tol": 0.0},
    "trust_region_step": {"matvec": lambda v: v, "gradient": [1.0, 2.0], "max_kl": 0.1},
    "backtracking_line_search": {
        "evaluate": lambda _: (1.0, 0.0),
        "parameters": [1.0, 2.0],
        "full_step": [1.0, 2.0],
        "max_kl": 0.1,
    },
}
"""Arguments by name; the lists are vectors."""

BAD: list[tuple[str, str, Any, str]] = [
    ("conjugate_gradient", "matvec", 1.0, "matvec"),
    ("conjugate_gradient", "matvec", lambda v: v[:1], "matvec"),
    ("conjugate_gradient", "b", [[1.0]], "b"),
    ("conjugate_gradient", "max_iters", 0, "max_iters"),
    ("conjugate_gradient", "max_iters", 1.0, "max_iters"),
    ("conjugate_gradient", "tol", -1.0, "tol"),
    ("trust_region_step", "matvec", None, "matvec"),
    ("trust_region_step", "matvec", lambda v: v[:1], "matvec"),
    ("trust_region_step", "gradient", [[1.0]], "gradient"),
    ("trust_region_step", "max_kl", -0.1, "max_kl"),
    ("trust_region_step", "max_kl", NAN, "max_kl"),
    ("trust_region_step", "damping", -0.1, "damping"),
    ("trust_region_step", "cg_iters", 0, "cg_iters"),
    ("trust_region_step", "cg_tol", INF, "cg_tol"),
    ("backtracking_line_search", "evaluate", "no", "evaluate"),
    ("backtracking_line_search", "parameters", [[1.0]], "parameters"),
    ("backtracking_line_search", "full_step", [1.0], "full_step"),
    ("backtracking_line_search", "max_kl", -1.0, "max_kl"),
    ("backtracking_line_search", "backtrack", 1.0, "backtrack"),
    ("backtracking_line_search", "backtrack", 0.0, "backtrack"),
    ("backtracking_line_search", "max_steps", 0, "max_steps"),
]


def test_a_quotient_with_the_divisor_0_is_one_by_1() -> None:
    """A residual of 3 where A is 0: α = 9, and nothing of the residual is gone."""
    found = reference.conjugate_gradient_step(lambda v: 0.0 * v, np.zeros(1), np.array([3.0]), np.ones(1))
    assert [vector.item() for vector in found] == [9.0, 3.0, 4.0]


def test_a_residual_as_long_as_the_tolerance_is_short_enough() -> None:
    for module, vector in ((reference, np.array), (torch_impl, torch.tensor)):
        for tol, moves in ((5.0, False), (4.5, True)):
            got = module.conjugate_gradient(lambda v: 2 * v, vector([3.0, 4.0]), max_iters=1, tol=tol)
            assert bool(got.any()) == moves


@pytest.mark.parametrize(("operation", "argument", "value", "named"), BAD)
def test_bad_arguments(operation: str, argument: str, value: Any, named: str) -> None:
    for module, vector in ((reference, np.array), (torch_impl, torch.tensor)):
        arguments = GOOD[operation] | {argument: value}
        held = {name: vector(x) if isinstance(x, list) else x for name, x in arguments.items()}
        with pytest.raises(ValueError, match=rf"^{named}\b.* must "):
            getattr(module, operation)(**held)
