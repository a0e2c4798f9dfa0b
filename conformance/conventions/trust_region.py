"""Conventions of conjugate gradients, of the trust region's step and of the line search."""

from typing import Any

import numpy as np

from conformance.conventions.family import Convention, Family, Observation, values
from conformance.conventions.inputs import dense
from reference import numbers, trust_region


def _solve(matvec: Any, b: Any, *, max_iters: int, tol: Any, stop: str = "norm") -> Any:
    """Conjugate gradients that stop on the residual's norm, on its square, or never."""
    tol = {"norm": tol, "square": numbers.sqrt(tol), "never": 0 * tol}[stop]
    return trust_region.conjugate_gradient(matvec, b, max_iters=max_iters, tol=np.asarray(tol).item())


def _step(
    matvec: Any,
    gradient: Any,
    *,
    max_kl: Any,
    cg_iters: int = 10,
    cg_tol: Any = 1e-10,
    damping: Any = 0.0,
    damped: str = "both",
    half: bool = True,
) -> Any:
    """The step with the damping elsewhere, or with Δ·FΔ in the place of half of it."""
    max_kl = max_kl if half else max_kl / 2
    options = {"max_kl": max_kl, "cg_iters": cg_iters, "cg_tol": cg_tol}
    if damped == "both":
        return trust_region.trust_region_step(matvec, gradient, damping=damping, **options)
    direction = trust_region.conjugate_gradient(
        lambda v: matvec(v) + damping * v, gradient, max_iters=cg_iters, tol=cg_tol
    )
    return numbers.sqrt(2 * max_kl / numbers.total(direction * matvec(direction))) * direction


def _search(
    evaluate: Any,
    parameters: Any,
    full_step: Any,
    *,
    max_kl: Any,
    improvement: str = "above",
    bound: str = "at most",
    first: int = 0,
    **options: Any,
) -> Any:
    """The line search with other rules of acceptance, or a first point that is shortened already."""

    def judged(point: Any) -> tuple[Any, Any]:
        gain, divergence = evaluate(point)
        nothing, beyond = 0 * divergence, 1 + max_kl
        if bound == "below":
            divergence = numbers.where(numbers.less(divergence, max_kl), nothing, beyond)
        elif bound == "ignored":
            divergence = nothing
        if improvement == "at least":
            gain = numbers.where(numbers.less_equal(0, gain), 1 + nothing, nothing)
        return (1 + nothing if improvement == "ignored" else gain), divergence

    max_kl = 3 * max_kl / 2 if bound == "half more" else max_kl
    step = full_step if first == 0 else options["backtrack"] * full_step
    return trust_region.backtracking_line_search(judged, parameters, step, max_kl=max_kl, **options)


MATRIX = np.array([[4.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])
SYSTEM = {"matrix": MATRIX, "b": dense(0, 3)}


def _quadratic(slope: float, step: float) -> dict[str, Any]:
    """Improvement slope · x - x²/2 and divergence x²/2 of a single parameter."""
    one = np.array([1.0])
    return {"matrix": np.array([[1.0]]), "slope": slope * one, "parameters": 0 * one, "full_step": step * one}


LIMIT = {"max_kl": 0.5, "backtrack": 0.5}

FAMILIES = (
    Family(
        "conjugate_gradient",
        (
            Convention(
                "stop",
                {
                    "stops on the residual's norm": "norm",
                    "stops on the residual's squared norm": "square",
                    "never stops before max_iters": "never",
                },
                "trpo.conjugate-gradient-stop",
            ),
        ),
        _solve,
        (
            Observation("no tolerance", SYSTEM, {"tol": 0.0, "max_iters": 2}, main=True),
            Observation("a loose tolerance", SYSTEM, {"tol": 0.5, "max_iters": 3}, main=True),
            Observation("a tolerance", SYSTEM, {"tol": 0.3, "max_iters": 3}, main=True),
            Observation("one step", SYSTEM, {"tol": 0.0, "max_iters": 1}, main=True),
        ),
    ),
    Family(
        "trust_region_step",
        (
            Convention("half", {"½Δ·FΔ = δ": True, "Δ·FΔ = δ": False}, "trpo.step"),
            Convention("damping", values(0.0, 0.1), "trpo.step-damping"),
            Convention(
                "damped",
                {
                    "damped in the direction and in the length": "both",
                    "damped in the direction alone": "direction",
                },
                "trpo.step-damping",
                unless={"damping": (0.0,)},
            ),
        ),
        _step,
        (
            Observation(
                "a plain step",
                {"matrix": MATRIX, "gradient": dense(0, 3)},
                {"cg_tol": 0.0},
                vary=("max_kl", "damping"),
                main=True,
            ),
        ),
    ),
    Family(
        "backtracking_line_search",
        (
            Convention("backtrack", values(0.5, 0.8), "trpo.line-search"),
            Convention("max_steps", values(10, 15), "trpo.line-search"),
            Convention(
                "improvement",
                {
                    "an improvement above 0": "above",
                    "an improvement of at least 0": "at least",
                    "no look at the improvement": "ignored",
                },
                "trpo.line-search",
            ),
            Convention(
                "bound",
                {
                    "a KL of at most δ": "at most",
                    "a KL below δ": "below",
                    "a KL of at most 1.5 δ": "half more",
                    "no look at the KL": "ignored",
                },
                "trpo.line-search",
            ),
            Convention("first", {"the full step first": 0, "a shortened step first": 1}, "trpo.line-search"),
        ),
        _search,
        (
            Observation("a step too long", _quadratic(8.0, 4.0), LIMIT, main=True, exact=True),
            Observation("a step just beyond", _quadratic(8.0, 1.125), LIMIT, main=True, exact=True),
            Observation("a short step", _quadratic(8.0, 0.5), LIMIT, main=True, exact=True),
            Observation("KL = δ", _quadratic(8.0, 1.0), LIMIT, main=True, exact=True),
            Observation(
                "no improvement", _quadratic(0.5, 1.0), {**LIMIT, "max_kl": 2.0}, main=True, exact=True
            ),
            Observation("a setback", _quadratic(0.5, 2.0), {**LIMIT, "max_kl": 4.0}, main=True, exact=True),
            Observation("another factor", _quadratic(8.0, 3.0), LIMIT, vary=("backtrack",), main=True),
            Observation("a long step", _quadratic(32.0, 24.0), LIMIT, vary=("max_steps",)),
            Observation("a very long step", _quadratic(3072.0, 3072.0), LIMIT),
        ),
    ),
)
