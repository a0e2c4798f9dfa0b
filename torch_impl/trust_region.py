"""Trust regions: conjugate gradients, the step along the natural gradient, the backtracking line search.

Shapes: D parameters, flattened into one vector. float16 and bfloat16 vectors are kept and summed in float32
and rounded where they are handed to a callable, or returned. Results are constants: no gradient flows
through them. The definitions are those of the chapter `trpo` of the spec.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_impl import checks
from torch_impl.precision import widen

MatrixVectorProduct = Callable[[Tensor], Tensor]
Evaluation = Callable[[Tensor], tuple[Tensor | float, Tensor | float]]


def conjugate_gradient(matvec: MatrixVectorProduct, b: Tensor, *, max_iters: int, tol: float) -> Tensor:
    """Solution of A x = b by conjugate gradients from x = 0.

    Clauses: `trpo.conjugate-gradient`, `trpo.conjugate-gradient-stop`.

    Parameters
    ----------
    matvec : callable (D,) -> (D,)
        The product A v of a symmetric matrix without negative eigenvalues, in the dtype of b. It may
        differentiate: gradients are as enabled inside it as they are around this call.
    b : (D,) floating
        The right-hand side, of which A has to be able to make an image.
    max_iters : int, at least 1
        How many products are made at most. Each step waits for the device, to see whether it is the last:
        that costs less than a product that is not needed.
    tol : float, at least 0
        Steps end where the norm of b - A x is at most tol.

    Returns
    -------
    (D,)
        The last point, in the dtype of b; 0 for b = 0.

    Raises
    ------
    ValueError
        For a `matvec` that cannot be called or whose product has another shape, max_iters below 1, or a
        negative tol.
    """
    checks.function("matvec", matvec)
    checks.floating("b", b, (None,))
    checks.integer("max_iters", max_iters, at_least=1)
    checks.non_negative("tol", tol)
    return _solution(matvec, b.detach(), max_iters, tol).to(b.dtype)


def trust_region_step(
    matvec: MatrixVectorProduct,
    gradient: Tensor,
    *,
    max_kl: float,
    cg_iters: int = 10,
    cg_tol: float = 1e-10,
    damping: float = 0.0,
) -> Tensor:
    """Step Δ = √(2δ / s·F s) s along the natural gradient s, F s = g.

    Clauses: `trpo.step`, `trpo.step-damping`, `trpo.step-zero`.

    Parameters
    ----------
    matvec : callable (D,) -> (D,)
        The product of the Fisher matrix with a vector, in the dtype of the gradient.
    gradient : (D,) floating
        Gradient g of the objective, which is to grow.
    max_kl : float, at least 0
        δ, in nats: what ½ Δ·F Δ becomes.
    cg_iters, cg_tol
        `max_iters` and `tol` of :func:`conjugate_gradient`, which finds s.
    damping : float, at least 0
        Added to the diagonal of the Fisher matrix, throughout.

    Returns
    -------
    (D,)
        Δ, in the dtype of the gradient; 0 for a gradient whose norm is at most `cg_tol`.

    Raises
    ------
    ValueError
        For a negative max_kl or damping, and as :func:`conjugate_gradient`.
    """
    checks.function("matvec", matvec)
    checks.floating("gradient", gradient, (None,))
    checks.integer("cg_iters", cg_iters, at_least=1)
    checks.non_negative("cg_tol", cg_tol)
    checks.non_negative("max_kl", max_kl)
    checks.non_negative("damping", damping)

    def damped(vector: Tensor) -> Tensor:
        return _product(matvec, vector) + damping * widen(vector)

    direction = _solution(damped, gradient.detach(), cg_iters, cg_tol)
    curvature = torch.dot(direction, _product(damped, direction.to(gradient.dtype)))
    # A direction of 0 has a curvature of 0, and stays 0 by any finite factor.
    factor = torch.sqrt(2 * max_kl / torch.where(curvature > 0, curvature, 1.0))
    return (factor * direction).to(gradient.dtype)


@torch.no_grad()
def backtracking_line_search(
    evaluate: Evaluation,
    parameters: Tensor,
    full_step: Tensor,
    *,
    max_kl: float,
    backtrack: float = 0.5,
    max_steps: int = 10,
) -> Tensor:
    """First of the points θ + β^j Δ, j = 0, 1 ..., that improves and keeps the KL; θ itself if there is none.

    Clause: `trpo.line-search`.

    Parameters
    ----------
    evaluate : callable (D,) -> (improvement, kl)
        What a point improves the surrogate by, and its KL from the old policy, in nats; called without
        gradients, and not again once a point is accepted.
    parameters, full_step : (D,) floating
        θ and Δ.
    max_kl : float, at least 0
        The largest KL that is accepted.
    backtrack : float, strictly between 0 and 1
        β, by which a step is shortened.
    max_steps : int, at least 1
        How many points are tried.

    Returns
    -------
    (D,)
        The first point with improvement > 0 and kl <= max_kl, in the dtype of the parameters; else a copy of
        the parameters. NaN is neither.

    Raises
    ------
    ValueError
        For an `evaluate` that cannot be called, shapes that disagree, or options out of their ranges.
    """
    checks.function("evaluate", evaluate)
    checks.floating("parameters", parameters, (None,))
    checks.floating("full_step", full_step, tuple(parameters.shape), like="parameters")
    checks.non_negative("max_kl", max_kl)
    checks.open_unit_interval("backtrack", backtrack)
    checks.integer("max_steps", max_steps, at_least=1)
    for j in range(max_steps):
        point = (widen(parameters) + backtrack**j * widen(full_step)).to(parameters.dtype)
        improvement, kl = evaluate(point)
        if improvement > 0 and kl <= max_kl:
            return point
    return parameters.clone()


def _solution(matvec: MatrixVectorProduct, b: Tensor, max_iters: int, tol: float) -> Tensor:
    """The solution in the dtype of the computation."""
    residual = widen(b)
    solution, direction = torch.zeros_like(residual), residual
    squared = torch.dot(residual, residual)
    for _ in range(max_iters):
        if squared.sqrt() <= tol:
            break
        # What the matrix was multiplied with is what the solution moves along, rounding included.
        handed = direction.to(b.dtype)
        direction = widen(handed)
        product = _product(matvec, handed)
        curvature = torch.dot(direction, product)
        if curvature <= 0:
            break  # a residual of rounding errors, in the matrix's kernel
        length = squared / curvature
        solution = solution + length * direction
        residual = residual - length * product
        before, squared = squared, torch.dot(residual, residual)
        direction = residual + (squared / before) * direction
    return solution


def _product(matvec: MatrixVectorProduct, vector: Tensor) -> Tensor:
    """A product as a constant, in the dtype of the computation."""
    product = matvec(vector)
    checks.floating("matvec(vector)", product, tuple(vector.shape), like="its argument")
    return widen(product.detach())
