"""The number system of float64 arrays: NumPy, with the few functions it lacks."""

from typing import Any

import numpy as np

expm1, log, log1p, sqrt, square, absolute = np.expm1, np.log, np.log1p, np.sqrt, np.square, np.abs
maximum, minimum, less, less_equal = np.maximum, np.minimum, np.less, np.less_equal


def number(value: float, _like: Any) -> float:
    """Turn a constant into a number of this system."""
    return float(value)


def exp(x: Any) -> Any:
    """Exponential; past the largest number it is infinite, which is an answer and no fault."""
    with np.errstate(over="ignore"):
        return np.exp(x)


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where the condition holds, y elsewhere."""
    if condition is None or (np.asarray(condition).dtype == object and np.size(condition)):
        raise TypeError("x or y has to be of the condition's number system: use reference.numbers.full")
    return np.where(condition, x, y)


def kink(x: Any, y: Any, below: Any, above: Any) -> Any:
    """Below up to the tie, above behind it."""
    return np.where(np.greater(x, y), above, below)


def log_sigmoid(x: Any) -> Any:
    """log(1 / (1 + exp(-x))) = min(x, 0) - log1p(exp(-|x|))."""
    return np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x)))


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), from the side on which exp does not overflow."""
    small = np.exp(-np.abs(x))
    return np.where(np.less(x, 0.0), small, 1.0) / (1.0 + small)
