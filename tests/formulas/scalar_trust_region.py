"""The chapter `trpo` a second time: definitions in fractions, from the words of the clauses alone.

A point of conjugate gradients is what its clause says it is, found by elimination: the point of a Krylov
space whose residual is orthogonal to that space.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from tests.formulas.scalars import sqrt

Vector = list[Fraction]
Matrix = list[Vector]


def dot(x: Vector, y: Vector) -> Fraction:
    """Σ x y."""
    return sum((a * b for a, b in zip(x, y, strict=True)), Fraction(0))


def times(matrix: Matrix, vector: Vector) -> Vector:
    """A matrix times a vector."""
    return [dot(row, vector) for row in matrix]


def eliminated(matrix: Matrix, right: Vector) -> Vector:
    """The solution of a system, by Gauss and Jordan."""
    rows = [[*row, b] for row, b in zip(matrix, right, strict=True)]
    for k in range(len(rows)):
        pivot = next(i for i in range(k, len(rows)) if rows[i][k])
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i in range(len(rows)):
            if i != k:
                rows[i] = [x - rows[i][k] * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[-1] for row in rows]


def krylov_point(matrix: Matrix, b: Vector, steps: int) -> Vector:
    """The point of span{b, Ab ...} whose residual is orthogonal to it."""
    basis = [b]
    for _ in range(steps - 1):
        basis.append(times(matrix, basis[-1]))
    images = [times(matrix, vector) for vector in basis]
    gram = [[dot(vector, image) for image in images] for vector in basis]
    shares = eliminated(gram, [dot(vector, b) for vector in basis])
    return [dot(shares, [vector[i] for vector in basis]) for i in range(len(b))]


def conjugate_gradient(matrix: Matrix, b: Vector, *, max_iters: int, tol: Fraction) -> Vector:
    """The first point whose residual is no longer than `tol`, or that of `max_iters` steps."""
    point, steps = [Fraction(0)] * len(b), 0
    while True:
        residual = [x - y for x, y in zip(b, times(matrix, point), strict=True)]
        if dot(residual, residual) <= tol * tol or steps == max_iters:
            return point
        steps += 1
        point = krylov_point(matrix, b, steps)


def trust_region_step(
    matrix: Matrix, gradient: Vector, *, max_kl: Fraction, cg_iters: int, cg_tol: Fraction, damping: Fraction
) -> list[Any]:
    """√(2δ / s·F s) s, with the damping in F."""
    damped = [[x + damping * (i == j) for j, x in enumerate(row)] for i, row in enumerate(matrix)]
    direction = conjugate_gradient(damped, gradient, max_iters=cg_iters, tol=cg_tol)
    if not any(direction):
        return direction
    length = sqrt(2 * max_kl / dot(direction, times(damped, direction)))
    return [length * x for x in direction]


def backtracking_line_search(
    matrix: Matrix,
    slope: Vector,
    parameters: Vector,
    full_step: Vector,
    *,
    max_kl: Fraction,
    backtrack: Fraction,
    max_steps: int,
) -> Vector:
    """The first point that is accepted, where the KL of a move d is ½ d·A d, and the gain slope·d less it."""
    for j in range(max_steps):
        move = [backtrack**j * x for x in full_step]
        kl = dot(move, times(matrix, move)) / 2
        if dot(slope, move) - kl > 0 and kl <= max_kl:
            return [x + y for x, y in zip(parameters, move, strict=True)]
    return parameters


DEFINITIONS: dict[str, Callable[..., Any]] = {
    "conjugate_gradient": conjugate_gradient,
    "trust_region_step": trust_region_step,
    "backtracking_line_search": backtracking_line_search,
}
"""The operations of the protocol on nested lists."""
