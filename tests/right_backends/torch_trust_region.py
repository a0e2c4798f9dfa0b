"""A right backend in PyTorch: conjugate gradients, the step, the line search, in the dtype that comes in."""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor

array_library = "torch"
name = f"torch trust region (torch {torch.__version__})"


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], b: Tensor, *, max_iters: int, tol: float
) -> Tensor:
    return _solution(matvec, b, max_iters, tol)


def trust_region_step(
    matvec: Callable[[Tensor], Tensor],
    gradient: Tensor,
    *,
    max_kl: float,
    cg_iters: int = 10,
    cg_tol: float = 1e-10,
    damping: float = 0.0,
) -> Tensor:
    def fisher(vector: Tensor) -> Tensor:
        return matvec(vector) + damping * vector

    direction = _solution(fisher, gradient, cg_iters, cg_tol)
    curvature = direction @ fisher(direction)
    if curvature <= 0:
        return torch.zeros_like(gradient)
    # PyTorch divides a number by a tensor through its reciprocal, and that of 1e-5 is too large for float16.
    return sqrt(2 * max_kl) / curvature.sqrt() * direction


def backtracking_line_search(
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]],
    parameters: Tensor,
    full_step: Tensor,
    *,
    max_kl: float,
    backtrack: float = 0.5,
    max_steps: int = 10,
) -> Tensor:
    for j in range(max_steps):
        point = parameters + backtrack**j * full_step
        improvement, kl = evaluate(point)
        if improvement > 0 and kl <= max_kl:
            return point
    return parameters.clone()


def _solution(matvec: Callable[[Tensor], Tensor], b: Tensor, max_iters: int, tol: float) -> Tensor:
    """x with A x = b, by conjugate gradients from 0."""
    x, residual, direction = torch.zeros_like(b), b, b
    for _ in range(max_iters):
        if residual.norm() <= tol:
            break
        product = matvec(direction)
        length = residual.square().sum() / (direction @ product)
        x = x + length * direction
        left = residual - length * product
        direction = left + left.square().sum() / residual.square().sum() * direction
        residual = left
    return x
