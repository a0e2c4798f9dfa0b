"""Derivations of the chapter `trpo` for its operations: conjugate gradients, the step, the line search.

A *frame* turns the code's own expressions into statements about every system: conjugate gradients take
nothing of vectors but sums, multiples and inner products, so they run alike in every orthonormal frame. In
the frame of Lanczos, A is tridiagonal, A = L D Lᵀ with ones on the diagonal of L, l_i beside it, and
D = diag(d_i) > 0; and b is a multiple of the first axis.
"""

import random
from typing import Any

import numpy as np
import sympy

from reference import trust_region as reference
from reference.numbers import symbols
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import HALF, ONE, ZERO
from spec.trust_region import resolved

LARGEST = 4
"""Systems of symbols are tried up to this size."""


def lanczos(size: int) -> tuple[Any, Any]:
    """A = L D Lᵀ and b = (s, 0 ...) of symbols: any positive definite system, in its own frame."""
    diagonal = symbols.array("d", (size,), positive=True)
    factor = np.array(sympy.eye(size).tolist(), dtype=object)
    for i in range(size - 1):
        factor[i + 1, i] = sympy.Symbol(f"l_{i}", positive=True)
    right = np.array([sympy.Symbol("s", positive=True)] + [ZERO] * (size - 1), dtype=object)
    return factor @ np.diag(diagonal) @ factor.T, right


def rational_systems() -> list[tuple[Any, Any]]:
    """Random positive definite systems of 1 to 4 unknowns, in rationals."""
    source, systems = random.Random(1952), []
    for size in (1, 2, 2, 3, 3, 4):
        entries = [
            sympy.Rational(source.randint(-4, 4), source.randint(1, 3)) for _ in range(size * (size + 1))
        ]
        factor = np.reshape(entries[size:], (size, size))
        systems.append((factor @ factor.T + np.diag([ONE] * size), np.array(entries[:size])))
    return systems


@derivation("trpo.conjugate-gradient", status="proved")
def each_step_settles_one_axis() -> None:
    """An induction in the frame of Lanczos: a residual along axis k leads to one along axis k + 1.

    To be kept: the residual r lies along axis k, the direction p has p_k = r_k, and A p is 0 on all axes
    before k, for which one stands here. So residuals are orthogonal, directions conjugate, and after as many
    steps as there are axes no residual is left.
    """
    c, d, m, r = sympy.symbols("c d m r", positive=True)
    o, side = sympy.symbols("o l", real=True)
    matrix = np.array([[c, o, ZERO], [o, d + o**2 / c, side * d], [ZERO, side * d, m]])
    residual, direction = np.array([ZERO, r, ZERO]), np.array([-o * r / c, r, ZERO])
    agree(matrix @ direction, [ZERO, d * r, side * d * r])
    point = symbols.array("x", (3,))
    step = reference.conjugate_gradient_step(matrix.dot, point, residual, direction)
    after, left, onward = map(resolved, step)
    agree(after - point, direction / d)
    agree(left, [ZERO, ZERO, -side * r])
    agree(onward[2], left[2])
    agree((matrix @ onward)[:2], [ZERO, ZERO])
    _frames_do_not_matter()
    _whole_runs()


def _frames_do_not_matter() -> None:
    """A step in a turned frame is the turned step, in a plane: A, x, r and p of symbols."""
    turn = np.array([[3 * ONE, -4 * ONE], [4 * ONE, 3 * ONE]]) / 5
    matrix = np.diag(symbols.array("d", (2,), positive=True))
    vectors = [symbols.array(name, (2,), positive=True) for name in "xrp"]
    plain = reference.conjugate_gradient_step(matrix.dot, *vectors)
    turned = reference.conjugate_gradient_step(
        (turn @ matrix @ turn.T).dot, *(turn @ vector for vector in vectors)
    )
    for x, y in zip(map(resolved, turned), map(resolved, plain), strict=True):
        agree(x, turn @ y)


def _whole_runs() -> None:
    """In rationals, in any frame: after m steps the best point of span{b, Ab ...}, after n the solution."""
    for matrix, right in rational_systems():
        krylov = right[:, None]
        for steps in range(1, len(right) + 1):
            reached = reference.conjugate_gradient(matrix.dot, right, max_iters=steps, tol=ZERO)
            agree(krylov.T @ (right - matrix @ reached), np.zeros(krylov.shape[1], dtype=int))
            assert sympy.Matrix(np.column_stack([krylov, reached])).rank() <= krylov.shape[1]
            krylov = np.column_stack([krylov, matrix @ krylov[:, -1]])
        agree(matrix @ reached, right)


@derivation("trpo.conjugate-gradient", status="verified for n <= 4")
def residuals_and_directions() -> None:
    """The code's steps on symbols: residuals along the axes, directions conjugate, the solution after n."""
    for size in range(1, LARGEST + 1):
        matrix, right = lanczos(size)
        point, residual, direction = np.full(size, ZERO), right, right
        conjugate: list[Any] = []
        for k in range(size):
            agree(np.delete(residual, k), [ZERO] * (size - 1))
            agree(point[k:], [ZERO] * (size - k))
            agree([direction @ matrix @ other for other in conjugate], [ZERO] * k)
            conjugate.append(direction)
            step = reference.conjugate_gradient_step(matrix.dot, point, residual, direction)
            point, residual, direction = map(resolved, step)
        agree(matrix @ point, right)
        agree(residual, [ZERO] * size)
    _with_a_kernel()


def _with_a_kernel() -> None:
    """The Fisher matrix of logits has a kernel, in which a gradient has no part: fewer steps, and no more."""
    probabilities = np.array([[sympy.Rational(x, 10) for x in (1, 2, 3, 4)]])
    advantages = np.array([[ONE, -ONE, 2 * ONE, ZERO]])

    def product(vector: Any) -> Any:
        return reference.fisher_vector_product(probabilities, np.array([ONE]), vector[None])[0]

    gradient = product(advantages[0])
    for steps in (3, 4, 10):
        reached = reference.conjugate_gradient(product, gradient, max_iters=steps, tol=ZERO)
        agree(product(reached), gradient)


@derivation("trpo.conjugate-gradient-stop", status="witnessed")
def stops_at_the_tolerance() -> None:
    """Residuals of b = (3, 4) have the norms 5, a rational, and 0; a tolerance of just that norm stops."""
    matrix, right = np.diag([ONE, 2 * ONE]), np.array([3 * ONE, 4 * ONE])

    def reached(tol: Any, most: int = 9) -> Any:
        return reference.conjugate_gradient(matrix.dot, right, max_iters=most, tol=tol)

    start, first, second = np.array([ZERO, ZERO]), reached(ZERO, 1), reached(ZERO, 2)
    left = right - matrix @ first
    norm = sympy.sqrt(np.sum(left**2))
    assert norm.is_Rational
    agree(matrix @ second, right)
    below = sympy.Rational(999, 1000)
    for tol, point in ((5, start), (5 * below, first), (norm, first), (norm * below, second), (ZERO, second)):
        agree(reached(tol), point)
    agree(reference.conjugate_gradient(matrix.dot, start, max_iters=3, tol=ZERO), start)


@derivation("trpo.step", status="proved")
def step_is_the_best() -> None:
    """½ Δ·F Δ = δ and g = μ F Δ with μ > 0; then Lagrange's identity says that nobody gains more.

    For any d, (g·d)² = μ² (Δ·F d)² <= μ² (Δ·F Δ) (d·F d) <= μ² (Δ·F Δ)² = (g·Δ)² if ½ d·F d <= δ, because
    (x·F x) (d·F d) - (x·F d)² is a sum of squares with the weights d_i d_j: in y = Lᵀx and z = Lᵀd, over all
    pairs. Cut short, Δ still has ½ Δ·F Δ = δ, and gains. The systems are in the frame of Lanczos.
    """
    budget = sympy.Symbol("delta", positive=True)
    for size in (1, 2):
        matrix, gradient = lanczos(size)
        for iterations in range(1, size + 1):
            options = {"max_kl": budget, "cg_iters": iterations, "cg_tol": ZERO}
            step = resolved(reference.trust_region_step(matrix.dot, gradient, **options))
            agree(step @ matrix @ step / 2, budget)
            assert sympy.factor(gradient @ step).is_positive
        multiplier = sympy.sqrt(gradient @ _solved(matrix, gradient) / (2 * budget))
        agree(multiplier * (matrix @ step), gradient)
    _lagrange()
    _steps_in_rationals()


def _solved(matrix: Any, right: Any) -> Any:
    return np.array(sympy.Matrix(matrix).LUsolve(sympy.Matrix(right)).applyfunc(sympy.factor)).ravel()


def _lagrange() -> None:
    """Pair by pair, in three dimensions, where all pairs are of the same form."""
    pivots, x, z = (symbols.array(name, (3,)) for name in "dxz")
    squares = sum(
        pivots[i] * pivots[j] * (x[i] * z[j] - x[j] * z[i]) ** 2 for i, j in ((0, 1), (0, 2), (1, 2))
    )
    agree(np.sum(pivots * x**2) * np.sum(pivots * z**2) - np.sum(pivots * x * z) ** 2, squares)


def _steps_in_rationals() -> None:
    """In any frame, any number of steps: the whole budget is spent, and g·s = s·F s."""
    for matrix, gradient in rational_systems():
        for iterations in range(1, len(gradient) + 1):
            options = {"max_kl": HALF, "cg_iters": iterations, "cg_tol": ZERO}
            step = reference.trust_region_step(matrix.dot, gradient, **options)
            agree(step @ matrix @ step, 2 * HALF)
            limits = {"max_iters": iterations, "tol": ZERO}
            direction = reference.conjugate_gradient(matrix.dot, gradient, **limits)
            agree(direction @ gradient, direction @ matrix @ direction)
            agree((step @ gradient) ** 2, direction @ gradient)


@derivation("trpo.step-damping", status="witnessed")
def damping_spends_the_budget() -> Numbers:
    """One parameter of F = 0.1, damped by 0.1; and two of them, renamed by a matrix J."""
    curvature, damping, budget = 0.1, 0.1, 0.01
    [step] = reference.trust_region_step(lambda v: curvature * v, np.ones(1), max_kl=budget, damping=damping)
    assert step > 0
    matrix, gradient = rational_systems()[1]
    renaming = np.array([[ONE, 2 * ONE], [ZERO, ONE]])
    for damping_of_both in (ZERO, ONE):
        both = {"max_kl": HALF, "cg_tol": ZERO, "damping": damping_of_both}
        plain = reference.trust_region_step(matrix.dot, gradient, **both)
        renamed = reference.trust_region_step(
            (renaming.T @ matrix @ renaming).dot, renaming.T @ gradient, **both
        )
        moved = sympy.simplify(sympy.Matrix(renaming @ renamed - plain))
        assert moved.is_zero_matrix is (damping_of_both == ZERO)
    return {"F": curvature, "damping": damping, "δ": budget, "spent": curvature * step**2 / 2}


@derivation("trpo.line-search", status="witnessed")
def full_step_overshoots() -> Numbers:
    """A coin of one logit, head 0.05 and wanted: the full step has a KL above δ, half of it is accepted."""
    head, budget = 0.05, 0.1
    old = np.log([[head, 1 - head]])
    logit = np.log(head / (1 - head))

    def evaluate(parameters: Any) -> tuple[float, float]:
        new = 1 / (1 + np.exp(-parameters[0]))
        divergence = reference.mean_kl(old, np.log([[new, 1 - new]]), np.ones(1))
        return new - head, divergence

    fisher = head * (1 - head)
    step = reference.trust_region_step(lambda v: fisher * v, np.array([fisher]), max_kl=budget)
    found = reference.backtracking_line_search(evaluate, np.array([logit]), step, max_kl=budget)
    assert found == logit + step / 2
    full, half = (evaluate(logit + step / k)[1] for k in (1, 2))
    return {"head": head, "δ": budget, "KL of the full step": full, "KL of half of it": half}
