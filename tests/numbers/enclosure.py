"""Whether a ball holds a number, decided exactly."""

from fractions import Fraction
from typing import Any

import numpy as np
import sympy
from flint import arb
from mpmath.libmp import to_rational

from reference.numbers import balls

DIGITS = 80
"""mpmath's digits: a ball has 48, so mpmath's own error is 10³⁰ times smaller than the narrowest one."""

OWN = Fraction(1, 10 ** (DIGITS - 5))
"""Relative error of a number of mpmath, after many operations: an exact ball has no room for it."""


def fraction(x: Any) -> Fraction:
    """Read a float, an integer, an exact `arb`, or a number of mpmath or SymPy as the rational that it is."""
    if isinstance(x, arb):
        mantissa, exponent = x.man_exp()
        return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
    if hasattr(x, "_mpf_"):
        return Fraction(*to_rational(x._mpf_))
    return Fraction(int(x.p), int(x.q)) if isinstance(x, sympy.Rational) else Fraction(x)


def ends(ball: Any) -> tuple[Any, Any]:
    """Lowest and highest number of a ball."""
    return fraction(ball.value.lower()), fraction(ball.value.upper())


def is_bounded(ball: Any) -> bool:
    """Whether the ball says anything: an unbounded one holds every number."""
    return bool(ball.value.is_finite())


def encloses(ball: Any, x: Any) -> bool:
    """Whether a ball is bounded and holds a finite number."""
    if not is_bounded(ball):
        return False
    if type(x) in (float, int, np.float64):
        return bool(ball.value.contains(arb(x)))
    (low, high), number = ends(ball), fraction(x)
    slack = abs(number) * OWN if hasattr(x, "_mpf_") else 0
    return bool(low - slack <= number <= high + slack)


def is_hull(ball: Any, low: float, high: float) -> bool:
    """Whether a ball is an interval, but for radii, which have 30 bits and are rounded up, twice at most."""
    slack = Fraction(high - low) / 2**28
    lowest, highest = ends(ball)
    return bool(low - slack <= lowest <= low and high <= highest <= high + slack)


def between(low: float, high: float) -> Any:
    """A ball that holds all numbers from one to another."""
    return balls.where(None, balls.array(low), balls.array(high))
