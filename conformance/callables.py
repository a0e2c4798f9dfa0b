"""Arguments that are functions: they cross to the backend as arrays and become functions there.

The same text makes them from the arrays of a backend's library and from arrays of balls.
"""

from collections.abc import Callable
from typing import Any


def _with_matvec(matrix: Any, *vectors: Any) -> tuple[Any, ...]:
    """A matrix becomes the function that multiplies by it."""
    return (lambda vector: matrix @ vector, *vectors)


def _with_evaluate(matrix: Any, slope: Any, parameters: Any, full_step: Any) -> tuple[Any, ...]:
    """A matrix and a slope become the improvement and the KL of a quadratic model around the parameters."""

    def evaluate(candidate: Any) -> tuple[Any, Any]:
        step = candidate - parameters
        kl = (step @ (matrix @ step)) / 2
        return slope @ step - kl, kl

    return evaluate, parameters, full_step


BINDINGS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "conjugate_gradient": _with_matvec,
    "trust_region_step": _with_matvec,
    "backtracking_line_search": _with_evaluate,
}
"""How the arrays of a call become its arguments, for the operations that take functions."""

SOURCES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "conjugate_gradient": (("matvec = lambda vector: {matrix} @ vector",), ("matvec", "b")),
    "trust_region_step": (("matvec = lambda vector: {matrix} @ vector",), ("matvec", "gradient")),
    "backtracking_line_search": (
        (
            "kl = lambda x: (x - {parameters}) @ ({matrix} @ (x - {parameters})) / 2",
            "evaluate = lambda x: ({slope} @ (x - {parameters}) - kl(x), kl(x))",
        ),
        ("evaluate", "parameters", "full_step"),
    ),
}
"""The same as lines of Python, and the names of the arguments; what stands in braces is an array."""


def bind(operation: str, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """Turn the arrays of a call into its positional arguments."""
    return BINDINGS[operation](*arrays) if operation in BINDINGS else arrays
