"""The number system of dyadic rationals: it knows where every order of evaluation is exact.

A dyadic rational carries its value, a quantum q (it and all that led to it are multiples of 2**q) and a
magnitude (the sum of the absolute values that were added up to make it). Additions and multiplications
in any order have every intermediate a multiple of the quantum and below the magnitude: where
magnitude / 2**quantum fits in the significand of a dtype, no order of evaluation rounds, and a correct
backend has to answer exactly. What is not a dyadic rational (a square root, a quotient by 3) is lost, and
all that depends on it.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any


class Dyadic:
    """An exact rational with denominator a power of two, or None once exactness is lost."""

    __slots__ = ("magnitude", "quantum", "value")

    def __init__(self, value: Fraction | None, quantum: int = 0, magnitude: Fraction = Fraction(0)) -> None:
        self.value = value
        self.quantum = quantum
        self.magnitude = magnitude

    def fits(self, precision: int, min_quantum: int, max_exponent: int) -> bool:
        """Whether all multiples of the quantum up to the magnitude have so many bits and such exponents."""
        return (
            self.value is not None
            and self.magnitude <= Fraction(2) ** (self.quantum + precision)
            and (self.magnitude == 0 or self.quantum >= min_quantum)
            and self.magnitude < Fraction(2) ** max_exponent
        )

    def __add__(self, other: Any) -> "Dyadic":
        return _combine(self, other, lambda x, y: x + y)

    def __sub__(self, other: Any) -> "Dyadic":
        return _combine(self, other, lambda x, y: x - y)

    def __mul__(self, other: Any) -> "Dyadic":
        if not isinstance(other, Dyadic | int | float):
            return NotImplemented
        x, y = self, number(other)
        if x.value is None or y.value is None:
            return LOST
        return Dyadic(x.value * y.value, x.quantum + y.quantum, x.magnitude * y.magnitude)

    def __truediv__(self, other: Any) -> "Dyadic":
        if not isinstance(other, Dyadic | int | float):
            return NotImplemented
        if self.value == 0:
            return self
        divisor = number(other).value
        if not divisor or _log2(abs(divisor)) is None:
            return LOST
        return self * number(1 / divisor)

    def __neg__(self) -> "Dyadic":
        return self * -1

    def __radd__(self, other: Any) -> "Dyadic":
        return self + other

    def __rmul__(self, other: Any) -> "Dyadic":
        return self * other

    def __rsub__(self, other: Any) -> "Dyadic":
        return number(other) - self

    def __rtruediv__(self, other: Any) -> "Dyadic":
        return number(other) / self

    def __bool__(self) -> bool:
        raise TypeError("a formula must not branch on a value: use reference.numbers.where")

    def __repr__(self) -> str:
        return f"Dyadic({self.value}, quantum={self.quantum}, magnitude={self.magnitude})"


LOST = Dyadic(None)


def number(value: Any, _like: Any = None) -> Dyadic:
    """Turn a float, integer or fraction into a dyadic rational; what is none is lost."""
    if isinstance(value, Dyadic):
        return value
    if isinstance(value, float) and value - value != 0.0:  # NaN or infinite
        return LOST
    exact = Fraction(value)
    power = _log2(Fraction(exact.denominator))
    if power is None:
        return LOST
    if exact == 0:
        return Dyadic(exact)
    odd = exact.numerator
    trailing = (odd & -odd).bit_length() - 1
    return Dyadic(exact, trailing - power, abs(exact))


def total(terms: list[Dyadic]) -> Dyadic:
    """The sum of a list, exact in any order or lost."""
    result = number(0)
    for term in terms:
        result = result + term
    return result


def square(x: Dyadic) -> Dyadic:
    """x squared."""
    return x * x


def absolute(x: Dyadic) -> Dyadic:
    """Absolute value."""
    return LOST if x.value is None else Dyadic(abs(x.value), x.quantum, x.magnitude)


def less(x: Any, y: Any) -> bool | None:
    """x < y, None when either is lost."""
    return _compare(x, y, lambda a, b: a < b)


def less_equal(x: Any, y: Any) -> bool | None:
    """x <= y, None when either is lost."""
    return _compare(x, y, lambda a, b: a <= b)


def where(condition: bool | None, x: Any, y: Any) -> Dyadic:
    """x or y; lost when the condition is undecided."""
    return LOST if condition is None else number(x if condition else y)


def maximum(x: Any, y: Any) -> Dyadic:
    """The larger of the two."""
    return where(less(x, y), y, x)


def minimum(x: Any, y: Any) -> Dyadic:
    """The smaller of the two."""
    return where(less(y, x), y, x)


def exp(x: Dyadic) -> Dyadic:
    """Exact at 0 only."""
    return number(1) if x.value == 0 else LOST


def log(x: Dyadic) -> Dyadic:
    """Exact at 1 only."""
    return number(0) if x.value == 1 else LOST


def expm1(x: Dyadic) -> Dyadic:
    """Exact at 0 only."""
    return number(0) if x.value == 0 else LOST


def log1p(x: Dyadic) -> Dyadic:
    """Exact at 0 only."""
    return number(0) if x.value == 0 else LOST


def sqrt(x: Dyadic) -> Dyadic:
    """Exact at 0 and 1 only: a backend may take a reciprocal square root instead."""
    return x if x.value in (0, 1) else LOST


def sigmoid(_x: Dyadic) -> Dyadic:
    """Never demanded exactly."""
    return LOST


def log_sigmoid(_x: Dyadic) -> Dyadic:
    """Never demanded exactly."""
    return LOST


def _combine(x: Dyadic, other: Any, operation: Callable[[Fraction, Fraction], Fraction]) -> Dyadic:
    if not isinstance(other, Dyadic | int | float):
        return NotImplemented
    y = number(other)
    if x.value is None or y.value is None:
        return LOST
    quantum = min(x.quantum, y.quantum) if x.magnitude and y.magnitude else max(
        (z.quantum for z in (x, y) if z.magnitude), default=0
    )
    return Dyadic(operation(x.value, y.value), quantum, x.magnitude + y.magnitude)


def _compare(x: Any, y: Any, operation: Callable[[Fraction, Fraction], bool]) -> bool | None:
    a, b = number(x).value, number(y).value
    return None if a is None or b is None else operation(a, b)


def _log2(x: Fraction) -> int | None:
    """The exponent of a power of two, None for anything else."""
    if x.numerator & (x.numerator - 1) or x.denominator & (x.denominator - 1):
        return None
    return x.numerator.bit_length() - x.denominator.bit_length()
