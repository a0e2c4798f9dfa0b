"""Numbers that know their derivatives, for definitions that are loops over single numbers.

A value is a Fraction as long as it is rational, and a number of mpmath, at the precision that the caller
has set, behind the first exponential, logarithm or root. Beside it stand its derivatives in the inputs that
it depends on: so a loop that says what a loss is also says what its gradient is. Where two sides of a bound
meet, there is one value with two derivatives: `sides` runs a loop for either.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import mpmath

T = TypeVar("T")

Slopes = dict[Hashable, Any]


class Number:
    """A value, and its derivatives by the name of the input; those that are not there are 0."""

    __slots__ = ("slopes", "value")

    def __init__(self, value: Any, slopes: Slopes | None = None) -> None:
        self.value = value
        self.slopes = slopes or {}

    def __add__(self, other: Any) -> "Number":
        y = number(other)
        return Number(self.value + y.value, _combined(self.slopes, 1, y.slopes, 1))

    def __sub__(self, other: Any) -> "Number":
        return self + -number(other)

    def __mul__(self, other: Any) -> "Number":
        y = number(other)
        return Number(self.value * y.value, _combined(self.slopes, y.value, y.slopes, self.value))

    def __truediv__(self, other: Any) -> "Number":
        """The quotient; (x' y - x y') / y² is exactly 0 where x and y are the same."""
        y = number(other)
        slopes, square = _combined(self.slopes, y.value, y.slopes, -self.value), y.value * y.value
        return Number(
            _quotient(self.value, y.value), {name: _quotient(x, square) for name, x in slopes.items()}
        )

    def __rsub__(self, other: Any) -> "Number":
        return number(other) - self

    def __rtruediv__(self, other: Any) -> "Number":
        return number(other) / self

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> "Number":
        return self.through(-self.value, -1)

    def __lt__(self, other: Any) -> bool:
        x, y = _of_one_kind(self.value, number(other).value)
        return bool(x < y)

    def __gt__(self, other: Any) -> bool:
        return number(other) < self

    def __le__(self, other: Any) -> bool:
        return not self > other

    def __ge__(self, other: Any) -> bool:
        return not self < other

    def __eq__(self, other: object) -> bool:
        return self <= other <= self

    __hash__ = None  # type: ignore[assignment]

    def through(self, value: Any, slope: Any) -> "Number":
        """A function of this number: its value, and its derivative here."""
        return Number(value, {name: own * slope for name, own in self.slopes.items()})


def number(x: Any) -> Number:
    """A number without derivatives, unless it has some."""
    return x if isinstance(x, Number) else Number(x)


def constant(x: Number) -> Number:
    """The same value, which no gradient flows through."""
    return Number(x.value)


def exp(x: Any) -> Number:
    """The exponential: 0 at -∞, and at 0 the rational 1."""
    if x == -math.inf:
        return Number(Fraction(0))
    power = number(x)
    value = mpmath.exp(real(power.value)) if power.value else Fraction(1)
    return power.through(value, value)


def log(x: Number) -> Number:
    """The logarithm; at 1 the rational 0."""
    return x.through(mpmath.log(real(x.value)) if x.value != 1 else Fraction(0), _quotient(1, x.value))


def log1p(x: Number) -> Number:
    """log(1 + x), also where the sum of the two would hold no digit of one."""
    return x.through(mpmath.log1p(real(x.value)), _quotient(1, 1 + x.value))


def sqrt(x: Fraction) -> Number:
    """The root of a constant."""
    return Number(mpmath.sqrt(real(x)))


def total(terms: Any) -> Number:
    """The sum; 0 of nothing."""
    return sum(terms, Number(Fraction(0)))


def smaller(x: Any, bound: Any) -> Any:
    """The smaller of a number and its bound."""
    return x if _goes_first(x, bound) else bound


def larger(bound: Any, x: Any) -> Any:
    """The larger of a bound and a number."""
    return x if _goes_first(bound, x) else bound


def nearest(x: Any, low: Any, high: Any) -> Any:
    """The point of [low, high] that is nearest to x."""
    return smaller(larger(low, x), high)


@dataclass
class _Ties:
    """What a number equal to its bound does, and whether that made a difference for a derivative."""

    first: bool = True
    met: bool = False


_ties = _Ties()


def sides(loop: Callable[[], T]) -> list[T]:
    """What a loop gives: once, or where a number meets its bound, once along with it and once held by it."""
    _ties.first, _ties.met = True, False
    found = [loop()]
    if _ties.met:
        _ties.first = False
        found.append(loop())
        _ties.first = True
    return found


def _goes_first(x: Any, y: Any) -> bool:
    if x < y or x > y:
        return bool(x < y)
    _ties.met |= number(x).slopes != number(y).slopes
    return _ties.first


def real(x: Any) -> Any:
    """A rational as a number of mpmath."""
    return mpmath.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x


def _combined(first: Slopes, by: Any, second: Slopes, then: Any) -> Slopes:
    if not first and not second:
        return {}
    slopes = {name: slope * by for name, slope in first.items()}
    for name, slope in second.items():
        slopes[name] = slopes[name] + slope * then if name in slopes else slope * then
    return slopes


def _quotient(x: Any, y: Any) -> Any:
    x, y = _of_one_kind(x, y)
    return Fraction(x, y) if isinstance(x, int) and isinstance(y, int) else x / y


def _of_one_kind(x: Any, y: Any) -> tuple[Any, Any]:
    """Two rationals, or two numbers of mpmath: those two kinds do not compare or divide."""
    return (real(x), real(y)) if isinstance(x, mpmath.mpf) or isinstance(y, mpmath.mpf) else (x, y)
