"""The number system of dyadic rationals: it knows where every order of evaluation is exact.

A dyadic rational is an integer times a power of two, its quantum: it and all that led to it are multiples
of the quantum. It also carries a magnitude, the sum of the absolute values that were added up to make it.
Additions and multiplications in any order have every sum a multiple of the quantum and no larger than the
magnitude: where magnitude / quantum fits in the significand of a dtype, no order of evaluation runs out of
bits. Nor may one run out of exponents: 0.5**27 * 8 is a number of float16, and 0.5**27 is none. So a third
part bounds every product of some of the factors, from below and above. Where all three fit, a correct
backend has to answer exactly. What is no dyadic rational (a square root, a quotient by 3) is lost, and so
is all that depends on it.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any


class Dyadic:
    """`units` · 2**`exponent` with magnitude `size` · 2**`exponent`; units is None once exactness is lost.

    Every product of some of its factors is a multiple of 2**`low`, and no larger than `high`.
    """

    __slots__ = ("exponent", "high", "low", "size", "units")

    def __init__(self, units: int | None, exponent: int, size: int, low: int, high: int) -> None:
        self.units = units
        self.exponent = exponent
        self.size = size
        self.low = low
        self.high = high

    @property
    def value(self) -> Fraction | None:
        """The rational itself, None when it is lost."""
        return None if self.units is None else Fraction(self.units) * Fraction(2) ** self.exponent

    def fits(self, precision: int, min_exponent: int, max_exponent: int) -> bool:
        """Whether all multiples of the quantum up to the magnitude have so many bits and such exponents."""
        if self.units is None or self.high.bit_length() > max_exponent:
            return False
        return self.size == 0 or ((self.size - 1).bit_length() <= precision and self.low >= min_exponent)

    def __add__(self, other: Any) -> "Dyadic":
        if not isinstance(other, Dyadic | int | float):
            return NotImplemented
        y = number(other)
        if self.units is None or y.units is None:
            return LOST
        if not self.size or not y.size:
            x = self if self.size else y
            return Dyadic(x.units, x.exponent, x.size, x.low, max(self.high, y.high))
        exponent = min(self.exponent, y.exponent)
        left, right = self.exponent - exponent, y.exponent - exponent
        units, size = (self.units << left) + (y.units << right), (self.size << left) + (y.size << right)
        return Dyadic(units, exponent, size, min(self.low, y.low), self.high + y.high)

    def __mul__(self, other: Any) -> "Dyadic":
        if not isinstance(other, Dyadic | int | float):
            return NotImplemented
        y = number(other)
        if self.units is None or y.units is None:
            return LOST
        size = self.size * y.size
        low = self.low + y.low if size else 0  # what underflows is 0 all the same when it is multiplied by 0
        return Dyadic(self.units * y.units, self.exponent + y.exponent, size, low, self.high * y.high)

    def __truediv__(self, other: Any) -> "Dyadic":
        if not isinstance(other, Dyadic | int | float):
            return NotImplemented
        y = number(other)
        if y.units == 0 or self.units is None:
            return LOST
        if self.units == 0:
            return self
        if y.units is None or abs(y.units) & (abs(y.units) - 1):
            return LOST
        # 1 / (±2**k · 2**e) is ±2**k · 2**(-2k-e): written so, the reciprocal keeps the divisor's size.
        exponent = -2 * (abs(y.units).bit_length() - 1) - y.exponent
        x = self * Dyadic(y.units, exponent, y.size, min(exponent, 0), _ceiling(y.size, exponent))
        return Dyadic(x.units, x.exponent, x.size, min(x.low, y.low), max(x.high, y.high))

    def __neg__(self) -> "Dyadic":
        return self * -1

    def __sub__(self, other: Any) -> "Dyadic":
        return NotImplemented if not isinstance(other, Dyadic | int | float) else self + -number(other)

    def __rsub__(self, other: Any) -> "Dyadic":
        return number(other) - self

    def __rtruediv__(self, other: Any) -> "Dyadic":
        return number(other) / self

    __radd__ = __add__
    __rmul__ = __mul__

    def __bool__(self) -> bool:
        raise TypeError("a formula must not branch on a value: use reference.numbers.where")

    def __eq__(self, other: object) -> bool:
        raise TypeError("a formula must not compare values: use reference.numbers.less and where")

    def __repr__(self) -> str:
        return f"Dyadic({self.units}, 2**{self.exponent}, size={self.size})"


LOST = Dyadic(None, 0, 0, 0, 1)


def number(value: Any, _like: Any = None) -> Dyadic:
    """Turn a float, integer or fraction into a dyadic rational; what is none is lost."""
    if isinstance(value, Dyadic):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return LOST
    numerator, denominator = value.as_integer_ratio()
    if denominator & (denominator - 1):
        return LOST
    trailing = (numerator & -numerator).bit_length() - 1 if numerator else 0
    units = numerator >> trailing
    exponent = trailing - (denominator.bit_length() - 1)
    return Dyadic(units, exponent, abs(units), min(exponent, 0), _ceiling(abs(units), exponent))


def total(terms: list[Dyadic]) -> Dyadic:
    """The sum of a list, exact in any order or lost."""
    return sum(terms, number(0))


def multiplied(halvings: int, product: Dyadic, *_of: Any) -> Dyadic:
    """A product that may be halved so often on the way; of the order of its factors it knows already."""
    low = product.low - halvings if product.size else product.low
    return Dyadic(product.units, product.exponent, product.size, low, product.high)


def square(x: Dyadic) -> Dyadic:
    """x squared."""
    return x * x


def absolute(x: Dyadic) -> Dyadic:
    """Absolute value."""
    return LOST if x.units is None else Dyadic(abs(x.units), x.exponent, x.size, x.low, x.high)


def as_exact_as(x: Dyadic, *others: Dyadic) -> Dyadic:
    """A number that is exact only where others are too."""
    if any(other.units is None for other in others):
        return LOST
    size, low, high = (
        choose([getattr(x, part), *(getattr(other, part) for other in others)])
        for choose, part in ((max, "size"), (min, "low"), (max, "high"))
    )
    return Dyadic(x.units, x.exponent, size, low, high)


class Decision:
    """The truth of a comparison, and what was compared: it is sure only where that is exact."""

    __slots__ = ("compared", "truth")

    def __init__(self, truth: bool, compared: tuple[Dyadic, ...]) -> None:
        self.truth = truth
        self.compared = compared

    def __bool__(self) -> bool:
        return self.truth


def less(x: Any, y: Any) -> Decision | None:
    """x < y, None when either is lost."""
    return _compare(x, y, lambda a, b: a < b)


def less_equal(x: Any, y: Any) -> Decision | None:
    """x <= y, None when either is lost."""
    return _compare(x, y, lambda a, b: a <= b)


def where(condition: Decision | bool | None, x: Any, y: Any) -> Dyadic:
    """x or y, exact only where what decided is; lost when the condition is undecided."""
    if condition is None:
        return LOST
    compared = condition.compared if isinstance(condition, Decision) else ()
    return as_exact_as(number(x if condition else y), *compared)


def kink(x: Any, y: Any, below: Any, above: Any) -> Dyadic:
    """One side or the other; at the tie only what both agree on is demanded."""
    a, b = number(below), number(above)
    if less(x, y):
        return as_exact_as(a, number(x), number(y))
    if less(y, x):
        return as_exact_as(b, number(x), number(y))
    agreed = a if a.units is not None and a.value == b.value else LOST
    return as_exact_as(agreed, number(x), number(y))


def maximum(x: Any, y: Any) -> Dyadic:
    """The larger of the two."""
    return where(less(x, y), y, x)


def minimum(x: Any, y: Any) -> Dyadic:
    """The smaller of the two."""
    return where(less(y, x), y, x)


def exp(x: Dyadic) -> Dyadic:
    """Exact at 0 only."""
    return x + 1 if x.units == 0 else LOST


def expm1(x: Dyadic) -> Dyadic:
    """Exact at 0 only."""
    return x if x.units == 0 else LOST


def log(x: Dyadic) -> Dyadic:
    """Exact at 1 only."""
    return x - 1 if x.value == 1 else LOST


def log1p(x: Dyadic) -> Dyadic:
    """Exact at 0 only."""
    return x if x.units == 0 else LOST


def sqrt(x: Dyadic) -> Dyadic:
    """Exact at 0 and 1 only: a backend may take a reciprocal square root instead."""
    return x if x.value in (0, 1) else LOST


def sigmoid(_x: Dyadic) -> Dyadic:
    """Never demanded exactly."""
    return LOST


def log_sigmoid(_x: Dyadic) -> Dyadic:
    """Never demanded exactly."""
    return LOST


def _ceiling(size: int, exponent: int) -> int:
    """The least integer that is at least size · 2**exponent and at least 1."""
    return max(1, size << exponent if exponent >= 0 else -(-size >> -exponent))


def _compare(x: Any, y: Any, operation: Callable[[Fraction, Fraction], bool]) -> Decision | None:
    compared = number(x), number(y)
    a, b = (operand.value for operand in compared)
    if a is None or b is None:
        return None
    return Decision(operation(a, b), compared)
