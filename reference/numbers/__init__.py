"""Elementary functions that run on floats, on balls, on dyadic rationals and on symbols.

A formula that does its arithmetic with ``+ - * /``, NumPy's shape functions and the functions of this
module, and never branches in Python on a value, runs unchanged on

========================  ==========================  ============================================
array of                  what comes out              what it is for
========================  ==========================  ============================================
float64                   float64                     to compute
:class:`balls.Ball`       a certified enclosure       to know what a correct backend may answer
:class:`dyadics.Dyadic`   an exact rational or None   to know where a backend must answer exactly
``sympy.Expr``            the formula itself          to prove it
========================  ==========================  ============================================

The number system is that of the arguments: the functions below look at the element type, nowhere else.
"""

import sys
from collections.abc import Callable
from functools import partial, reduce
from operator import mul
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from reference.numbers import balls, dyadics, floats

Array = npt.NDArray[np.float64]
"""A float64 array; at run time also an object array of balls, dyadic rationals or SymPy expressions."""

Mask = npt.NDArray[np.bool_]
"""True where a token takes part. Masks and shapes are always concrete, in every number system."""

Scalar = float
"""A hyper-parameter: a float, or one ball, dyadic rational or SymPy expression."""

Operand = Array | Scalar


def system_of(*operands: Any) -> ModuleType:
    """Tell the number system of the operands: the first that is not plain floats wins."""
    for operand in operands:
        element = operand
        if isinstance(operand, np.ndarray):
            if operand.dtype != object or operand.size == 0:
                continue
            element = operand.flat[0]
        if isinstance(element, balls.Ball):
            return balls
        if isinstance(element, dyadics.Dyadic):
            return dyadics
        if "sympy" in sys.modules and isinstance(element, sys.modules["sympy"].Basic):
            from reference.numbers import symbols  # it imports SymPy, which only symbols need

            return symbols
    return floats


def _elementwise(name: str, *operands: Any) -> Array:
    system = system_of(*operands)
    function = getattr(system, name)
    result: Array = (function if system is floats else np.frompyfunc(function, len(operands), 1))(*operands)
    return result


def exp(x: Operand) -> Array:
    """Exponential."""
    return _elementwise("exp", x)


def expm1(x: Operand) -> Array:
    """exp(x) - 1, without cancellation near 0."""
    return _elementwise("expm1", x)


def log(x: Operand) -> Array:
    """Natural logarithm; x > 0."""
    return _elementwise("log", x)


def log1p(x: Operand) -> Array:
    """log(1 + x), without cancellation near 0; x > -1."""
    return _elementwise("log1p", x)


def sqrt(x: Operand) -> Array:
    """Square root; x >= 0."""
    return _elementwise("sqrt", x)


def square(x: Operand) -> Array:
    """x * x, which is never negative: a ball around 0 gives [0, ...], unlike ``x * x``."""
    return _elementwise("square", x)


def absolute(x: Operand) -> Array:
    """Absolute value."""
    return _elementwise("absolute", x)


def sigmoid(x: Operand) -> Array:
    """1 / (1 + exp(-x)), stable for every x."""
    return _elementwise("sigmoid", x)


def log_sigmoid(x: Operand) -> Array:
    """log(1 / (1 + exp(-x))), stable for every x."""
    return _elementwise("log_sigmoid", x)


def maximum(x: Operand, y: Operand) -> Array:
    """The larger of the two, element by element."""
    return _elementwise("maximum", x, y)


def minimum(x: Operand, y: Operand) -> Array:
    """The smaller of the two, element by element."""
    return _elementwise("minimum", x, y)


def product(*factors: Any, over: Any = None, halvings: int = 0) -> Array:
    """Product of several numbers, divided by `over`. On balls, what every order of doing so may give.

    Automatic differentiation also halves a product on its way and makes it whole again, where it shares a
    slope between the two sides of a tie or takes that of half a square: `halvings` times at most. So it is
    where one of the factors is doubled. A half is exact but below the normal range of a format.
    """
    result: Array = reduce(mul, factors) if over is None else reduce(mul, factors) / over
    system = system_of(*factors)
    if system not in (balls, dyadics):
        return result
    in_any_order = np.frompyfunc(partial(system.multiplied, halvings), 2 + len(factors), 1)
    return np.asarray(in_any_order(result, over, *factors))[()]


def blurred(x: Operand, factor: Operand) -> Array:
    """x, as its products with a factor show it, where they are what a backend compares.

    Below the normal range of a format, products of the factor with numbers near to each other are the same.
    Balls take in all that this may happen to; every other system has x itself.
    """
    if system_of(x, factor) is not balls:
        return np.asarray(x)[()]
    return np.asarray(np.frompyfunc(balls.blurred, 2, 1)(x, factor))[()]


def clip(x: Operand, low: Operand, high: Operand) -> Array:
    """The point of [low, high] that is nearest to x."""
    return minimum(maximum(x, low), high)


def less(x: Operand, y: Operand) -> Any:
    """x < y: a condition for :func:`where`. A comparison that balls cannot decide stays undecided."""
    return _elementwise("less", x, y)


def less_equal(x: Operand, y: Operand) -> Any:
    """x <= y: a condition for :func:`where`. A comparison that balls cannot decide stays undecided."""
    return _elementwise("less_equal", x, y)


def where(condition: Any, x: Any, y: Any) -> Array:
    """Select x where the condition holds and y elsewhere; undecided takes the hull of both.

    A mask selects: what lies on the other side, NaN included, does not matter.
    """
    if isinstance(condition, np.ndarray) and condition.dtype == bool:
        selected: Array = np.where(condition, x, y)
        return selected
    return _elementwise("where", condition, x, y)


def kink(x: Operand, y: Operand, below: Any, above: Any) -> Array:
    """`below` where x < y and `above` where x > y: the two sides of a derivative that jumps at x = y.

    At the tie any value between the sides is a right subgradient: balls, when equal or undecided, take the
    hull of both; floats and symbols take `below`.
    """
    return _elementwise("kink", x, y, below, above)


def total(x: Array, axis: int | None = None) -> Array:
    """Sum. On balls, an enclosure of what every order of summation may give."""
    system = system_of(x)
    if system is floats:
        return np.asarray(np.sum(x, axis=axis))
    if axis is None:
        return np.asarray(system.total(list(x.flat)), dtype=object)[()]
    rows = np.moveaxis(x, axis, -1)
    sums = [system.total(list(rows[index])) for index in np.ndindex(rows.shape[:-1])]
    result = np.empty(len(sums), dtype=object)
    result[:] = sums
    return result.reshape(rows.shape[:-1])


def discounted_sums(x: Array, discount: Scalar) -> Array:
    """Sums S_t = Σ_l discount^l x_{t+l} along each row of x, (B, T): x_t + discount · S_{t+1}.

    On balls, an enclosure of what this recursion may give, and every order in which the terms are added.
    """
    sums = zeros(x.shape, like=x)
    following = zeros(x.shape[:1], like=x)
    for t in reversed(range(x.shape[1])):
        following = x[:, t] + discount * following
        sums[:, t] = following
    if system_of(x) is balls:
        for row, terms in zip(sums, x, strict=True):
            row[:] = balls.in_any_order(list(row), list(terms), discount)
    return sums


def mean(x: Array) -> Array:
    """Mean of all entries, of one at least; a running mean is the same."""
    return same(average(x, np.size(x)), lambda: running_mean(x))


def average(x: Array, counts: Any, axis: int | None = None) -> Array:
    """Sum of entries along an axis, divided by a count for each slice; a sum of quotients is the same."""
    divisors = counts if axis is None else np.expand_dims(counts, axis)
    quotients: Array = total(x, axis=axis) / counts
    return same(quotients, lambda: total(x / divisors, axis=axis))


def running_mean(x: Array) -> Array:
    """Mean of all entries in one pass: m_k = m_{k-1} + (x_k - m_{k-1}) / k.

    Source
    ------
    Welford 1962, *Note on a method for calculating corrected sums of squares and products*.
    """
    average, *others = x.flat
    for count, entry in enumerate(others, start=2):
        average = average + (entry - average) / count
    return np.asarray(average)[()]


def same(x: Array, other: Callable[[], Array]) -> Array:
    """x, for which a backend may follow another formula of the same value: exact only where both are.

    Balls have the room for it: an operation may lose more than its own rounding.
    """
    if system_of(x) is not dyadics:
        return x
    return np.asarray(np.frompyfunc(dyadics.as_exact_as, 2, 1)(x, other()))[()]


def either(x: Array, other: Callable[[], Array]) -> Array:
    """As `same`, where another formula may lose more than balls have room for: they take the hull of both."""
    return where(None, x, other()) if system_of(x) is balls else same(x, other)


def logsumexp(x: Array, axis: int = -1) -> Array:
    """log Σ exp(x) along an axis, without overflow: the largest entry is taken out first.

    Entries of -inf contribute nothing; at least one entry of each slice has to be finite.
    """
    greatest = largest(x, axis)
    result: Array = greatest + log(total(exp(x - np.expand_dims(greatest, axis)), axis=axis))
    return result


def largest(x: Array, axis: int = -1) -> Array:
    """The largest entry along an axis, of one at least."""
    first, *others = np.moveaxis(x, axis, 0)
    greatest: Array = first
    for other in others:
        greatest = maximum(greatest, other)
    return greatest


def powers(base: Scalar, count: int) -> Array:
    """The powers base⁰ ... base^(count-1), by repeated multiplication; 0⁰ is 1."""
    system = system_of(base)
    result = np.empty(count, dtype=float if system is floats else object)
    power = system.number(1, base)
    for k in range(count):
        result[k] = power
        power = power * base
    return result


def zeros(shape: tuple[int, ...], like: Any) -> Array:
    """Zeros in the number system of `like`."""
    return full(shape, 0, like)


def full(shape: tuple[int, ...], value: float, like: Any) -> Array:
    """An array filled with an exact constant, in the number system of `like`."""
    system = system_of(like)
    if system is floats:
        return np.full(shape, float(value))
    element = like.flat[0] if isinstance(like, np.ndarray) else like
    result = np.empty(shape, dtype=object)
    result[...] = system.number(value, element)
    return result
