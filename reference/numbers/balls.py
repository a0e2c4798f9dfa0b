"""The number system of balls: certified enclosures, with or without the rounding of a dtype.

A ball is an interval with a certified radius (FLINT's `arb`; Johansson, IEEE Trans. Comput. 66, 2017).
Without a :class:`Rounding` it encloses the exact result of a formula. With one, every operation also
widens its result by what a dtype may lose there, so that the ball ends as the set of answers that the
formula can give in that precision, whatever the library rounds and in whatever order it sums.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import flint
import numpy as np
from flint import arb

from reference.numbers.formats import Format

PRECISION_BITS = 160
"""Working precision: the radius that FLINT itself adds is then far below any dtype's unit roundoff."""

flint.ctx.prec = max(flint.ctx.prec, PRECISION_BITS)

ZERO = arb(0)


@dataclass(frozen=True)
class Rounding:
    """What one operation may lose: so many unit roundoffs, relative, and what underflows."""

    format: Format
    factor: float
    """Unit roundoffs that + - * / and the square root may lose."""
    elementary_factor: float | None = None
    """Unit roundoffs that exp, log and their like may lose; None: as many as arithmetic."""

    @cached_property
    def relative(self) -> arb:
        """The relative loss of an arithmetic operation, as a ball around 0."""
        return arb(0, self.factor * self.format.unit_roundoff)

    @cached_property
    def elementary(self) -> arb:
        """The relative loss of an elementary function, as a ball around 0."""
        factor = self.factor if self.elementary_factor is None else self.elementary_factor
        return arb(0, factor * self.format.unit_roundoff)

    @cached_property
    def absolute(self) -> arb:
        """The absolute loss of one operation, as a ball around 0."""
        return arb(0, self.format.underflow)


class Ball:
    """An interval of the reals; arithmetic encloses, and widens by the rounding it was made with."""

    __slots__ = ("rounding", "value")

    def __init__(self, value: arb, rounding: Rounding | None = None) -> None:
        self.value = value
        self.rounding = rounding

    def rounded(self, value: arb, terms: int = 1, scale: arb | None = None) -> "Ball":
        """Make a ball of the same rounding, widened by `terms` roundings of something as large as `scale`.

        One operation whose exact result is 0 gives 0; a sum of several may lose something on its way there.
        """
        rounding = self.rounding
        endless = not value.is_finite() and _is_infinity(value)
        if rounding is None or endless or (terms == 1 and value.is_zero()):
            return Ball(value, rounding)
        loss = (value.abs_upper() if scale is None else scale) * rounding.relative + rounding.absolute
        return Ball(value + (loss if terms == 1 else loss * terms), rounding)

    def called(self, value: arb, calls: int = 1, steps: int = 0) -> "Ball":
        """As `rounded`, for what takes so many calls of elementary functions and arithmetic steps."""
        rounding = self.rounding
        endless = not value.is_finite() and _is_infinity(value)
        if rounding is None or endless or value.is_zero():
            return Ball(value, rounding)
        relative = rounding.elementary if calls == 1 else rounding.elementary * calls
        if steps:
            relative += rounding.relative * steps
        return Ball(value + (value.abs_upper() * relative + rounding.absolute), rounding)

    def __add__(self, other: Any) -> "Ball":
        y = other.value if type(other) is Ball else _value(other)
        return NotImplemented if y is None else self.rounded(self.value + y)

    def __sub__(self, other: Any) -> "Ball":
        y = other.value if type(other) is Ball else _value(other)
        return NotImplemented if y is None else self.rounded(self.value - y)

    def __rsub__(self, other: Any) -> "Ball":
        y = _value(other)
        return NotImplemented if y is None else self.rounded(y - self.value)

    def __mul__(self, other: Any) -> "Ball":
        y = other.value if type(other) is Ball else _value(other)
        return NotImplemented if y is None else self.rounded(self.value * y)

    def __truediv__(self, other: Any) -> "Ball":
        y = other.value if type(other) is Ball else _value(other)
        return NotImplemented if y is None else self.rounded(self.value / y)

    def __rtruediv__(self, other: Any) -> "Ball":
        y = _value(other)
        return NotImplemented if y is None else self.rounded(y / self.value)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> "Ball":
        return Ball(-self.value, self.rounding)

    def __bool__(self) -> bool:
        raise TypeError("a formula must not branch on a value: use reference.numbers.where")

    def __eq__(self, other: object) -> bool:
        raise TypeError("a formula must not compare values: use reference.numbers.less and where")

    def __repr__(self) -> str:
        return f"Ball({self.value.str(20)})"


def array(x: Any, rounding: Rounding | None = None, perturbation: float = 0.0) -> Any:
    """Turn float64 values (an array or one scalar) into balls.

    Parameters
    ----------
    x : array_like of float
        Midpoints, exact.
    rounding : Rounding or None
        What every operation on these balls may lose.
    perturbation : float
        Relative radius of the balls: how far the input itself may be off.
    """
    values = np.asarray(x, dtype=np.float64)
    result = np.empty(values.size, dtype=object)
    for index, middle in enumerate(values.ravel().tolist()):
        value = arb(middle, abs(middle) * perturbation) if math.isfinite(middle) else _special(middle)
        result[index] = Ball(value, rounding)
    return result.reshape(values.shape) if values.ndim else result[0]


def number(value: Any, like: Ball) -> Ball:
    """Turn an exact constant into a ball of the same rounding."""
    return Ball(arb(value), like.rounding)


def exp(x: Ball) -> Ball:
    """Exponential; the roundings that x brings are widened by the function itself."""
    return x.called(_image(x, arb.exp))


def expm1(x: Ball) -> Ball:
    """exp(x) - 1."""
    return x.called(_image(x, arb.expm1))


def log(x: Ball) -> Ball:
    """Natural logarithm; what of the ball lies below 0 is outside the domain and is left out."""
    return x.called(_image(x, arb.log, lowest=ZERO))


def log1p(x: Ball) -> Ball:
    """log(1 + x); what of the ball lies below -1 is outside the domain and is left out."""
    return x.called(_image(x, arb.log1p, lowest=arb(-1)))


def sqrt(x: Ball) -> Ball:
    """Square root; what of the ball lies below 0 is outside the domain and is left out."""
    return x.rounded(_image(x, arb.sqrt, lowest=ZERO))


def square(x: Ball) -> Ball:
    """x squared."""
    if x.value.is_exact():
        return x.rounded(x.value * x.value)
    low, high = x.value.abs_lower(), x.value.abs_upper()
    return x.rounded(_hull(low * low, high * high))


def absolute(x: Ball) -> Ball:
    """Absolute value; exact in every format."""
    if x.value.is_exact():
        return _exact(x, abs(x.value))
    return _exact(x, _hull(x.value.abs_lower(), x.value.abs_upper()))


def sigmoid(x: Ball) -> Ball:
    """1 / (1 + exp(-x)); a library may take it as exp(x - log(1 + exp(x))), where the exponent rounds too."""
    plain = x.called(_image(x, _sigmoid), steps=2)
    rounding = x.rounding
    if rounding is None or not x.value.is_finite():
        return plain
    size, tail = x.value.abs_upper(), (-x.value.abs_lower()).exp().log1p()
    # The logarithm is max(x, 0) and a tail: adding them and subtracting lose two tails at most.
    lost = min(rounding.relative.abs_upper() * (size + 2 * tail), 2 * tail)
    lost += 2 * rounding.elementary.abs_upper() * tail
    return Ball(plain.value * arb(0, lost).exp(), rounding)


def log_sigmoid(x: Ball) -> Ball:
    """log(1 / (1 + exp(-x)))."""
    return x.called(_image(x, _log_sigmoid), calls=2, steps=1)


def maximum(x: Any, y: Any) -> Ball:
    """The larger of the two; exact in every format. Where undecided, the set of both answers."""
    ball, a, b = _operands(x, y)
    return _exact(ball, _extreme(max, a, b))


def minimum(x: Any, y: Any) -> Ball:
    """The smaller of the two; exact in every format. Where undecided, the set of both answers."""
    ball, a, b = _operands(x, y)
    return _exact(ball, _extreme(min, a, b))


def less(x: Any, y: Any) -> bool | None:
    """x < y, None where the balls cannot decide."""
    _, a, b = _operands(x, y)
    return True if a < b else (False if a >= b else None)


def less_equal(x: Any, y: Any) -> bool | None:
    """x <= y, None where the balls cannot decide."""
    _, a, b = _operands(x, y)
    return True if a <= b else (False if a > b else None)


def where(condition: bool | None, x: Any, y: Any) -> Ball:
    """x or y; the hull of both where the condition is undecided."""
    ball, a, b = _operands(x, y)
    if condition is None:
        return _exact(ball, _hull(a, b))
    return _exact(ball, a if condition else b)


def kink(x: Any, y: Any, below: Any, above: Any) -> Ball:
    """One side or the other; everything between them where the balls touch."""
    side = less(x, y) or (False if less(y, x) else None)
    return where(side, below, above)


def total(terms: list[Any]) -> Ball:
    """Sum: n terms in any order lose at most n - 1 roundings of the sum of their absolute values.

    Jeannerod and Rump, SIAM J. Matrix Anal. Appl. 34, 2013: no term of higher order is missing. Terms that
    are exactly 0 cost nothing, so padding a sum with zeros changes nothing.
    """
    like = next(term for term in terms if isinstance(term, Ball))
    values = [value for value in map(_interval, terms) if not value.is_zero()]
    exact = sum(values, ZERO)
    scale = sum((value.abs_upper() for value in values), ZERO)
    return _exact(like, exact) if len(values) < 2 else like.rounded(exact, len(values) - 1, scale)


def multiplied(halvings: int, product: Ball, over: Any, *factors: Any) -> Ball:
    """A product that is known in one order, and may be taken in any, halved so often on the way.

    What underflows is multiplied by all factors that come later, the largest ones at worst: none after the
    last multiplication, one after that before, and in each of 2^halvings parts all but one after a half.
    Dividing by `over`, if that is not None, is multiplying by its reciprocal.
    """
    rounding = product.rounding
    if rounding is None or product.value.is_zero() or not product.value.is_finite():
        return product
    values = [_interval(factor) for factor in factors]
    if over is not None:
        values.append(1 / _interval(over))
    lost, later = ZERO, arb(1)
    for size in sorted((max(value.abs_upper(), arb(1)) for value in values), reverse=True)[:-1]:
        lost += later
        later *= size
    lost = 2**halvings * (lost + halvings * later) * rounding.absolute
    if not rounding.format.flushed:
        lost /= 2  # what is rounded to nearest is half a spacing off
    exact = math.prod(values, start=arb(1))
    value = (exact + lost) * (1 + rounding.relative) ** (len(values) - 1)
    return Ball(_hull(product.value, value), rounding)


def blurred(x: Any, factor: Any) -> Ball:
    """All numbers whose product with the factor may be rounded to that of x: either is half a spacing off."""
    ball, value, size = _operands(x, factor)
    if ball.rounding is None or size.is_zero():
        return _exact(ball, value)
    return _exact(ball, value + ball.rounding.absolute / size.abs_lower())


def in_any_order(sums: list[Ball], terms: list[Any], discount: Any) -> list[Ball]:
    """Sums S_t = Σ_l d^l x_{t+l} that are known as x_t + d · S_{t+1}, and may be added up term by term.

    A term of d^l takes l products, and one more. Of the sum, only additions of terms above one roundoff of it
    lose a roundoff of it: rounding loses no more than the smaller of two numbers.
    """
    rounding, factor = sums[-1].rounding if sums else None, _interval(discount)
    if rounding is None or factor.is_zero() or not all(known.value.is_finite() for known in sums):
        return sums
    values, shrinks = [_interval(term) for term in terms], factor.abs_upper()
    exact = size = products = underflows = reach = ZERO
    found, sizes = [], []
    for value in reversed(values):
        exact = value + factor * exact
        products = shrinks * (products + size)
        size = value.abs_upper() + shrinks * size
        reach = 1 + shrinks * reach
        if not value.is_zero():
            underflows += 1 + value.abs_upper()
        found.append((exact, products, underflows * reach))
        sizes.append(size)
    additions = _additions(values, sizes[::-1], float(shrinks), rounding)
    ways = zip(sums, reversed(found), reversed(sizes), additions, strict=True)
    return [
        _exact(known, _hull(known.value, exact + _loss(rounding, products + (count + 1) * size, lost)))
        for known, (exact, products, lost), size, count in ways
    ]


def _additions(values: list[arb], sizes: list[arb], shrinks: float, rounding: Rounding) -> list[int]:
    """How many terms from each on are above one loss of their sum, which is no smaller than `sizes`."""
    with np.errstate(divide="ignore"):
        rest = np.log(np.array([*map(float, sizes), 0.0])) + np.arange(len(sizes) + 1) * np.log(shrinks)
    least = rest[:-1] + np.log(rounding.factor * rounding.format.unit_roundoff)
    ends = np.searchsorted(-rest, -least)
    counted = np.concatenate([[0], np.cumsum([not value.is_zero() for value in values])])
    return list((counted[ends] - counted[:-1]).tolist())


def _loss(rounding: Rounding, relative: arb, absolute: arb) -> arb:
    return rounding.relative * relative + rounding.absolute * absolute


def _image(x: Ball, function: Callable[[arb], arb], lowest: arb | None = None) -> arb:
    """The image of an interval under an increasing function: the hull of the images of its ends."""
    if x.value.is_exact():
        return function(x.value)
    low, high = x.value.lower(), x.value.upper()
    if lowest is not None and low < lowest and high >= lowest:
        low = lowest
    return _hull(function(low), function(high))


def _sigmoid(x: arb) -> arb:
    return 1 / (1 + (-x).exp()) if x > 0 else x.exp() / (1 + x.exp())


def _log_sigmoid(x: arb) -> arb:
    return -((-x).exp().log1p()) if x > 0 else x - x.exp().log1p()


def _extreme(choose: Callable[[arb, arb], arb], a: arb, b: arb) -> arb:
    """The range of max or min over two intervals, end by end; NaN if either is."""
    if a.is_nan() or b.is_nan():
        return arb.nan()
    if a.is_exact() and b.is_exact():
        return choose(a, b)
    return _hull(choose(a.lower(), b.lower()), choose(a.upper(), b.upper()))


def _hull(a: arb, b: arb) -> arb:
    if a.is_exact() and b.is_exact() and a == b:
        return a
    return a.union(b)


def _exact(like: Ball, value: arb) -> Ball:
    return Ball(value, like.rounding)


def _operands(x: Any, y: Any) -> tuple[Ball, arb, arb]:
    if type(x) is Ball:
        return x, x.value, y.value if type(y) is Ball else _interval(y)
    if not isinstance(y, Ball):
        raise TypeError(f"one of the two has to be a ball, got {type(x).__name__} and {type(y).__name__}")
    return y, _interval(x), y.value


def _interval(x: Any) -> arb:
    value = x.value if type(x) is Ball else _value(x)
    if value is None:
        raise TypeError(f"expected a ball or a number, got {type(x).__name__}")
    return value


def _value(x: Any) -> arb | None:
    if isinstance(x, Ball):
        return x.value
    if isinstance(x, float):
        return arb(x) if math.isfinite(x) else _special(x)
    return arb(int(x)) if isinstance(x, int | np.integer | np.bool_) else None


def _is_infinity(x: arb) -> bool:
    """Whether a ball holds one of the two infinities and nothing else: no rounding changes them."""
    return not (x.is_finite() or x.mid().is_finite() or x.is_nan()) and bool(x.rad().is_finite())


def _special(x: float) -> arb:
    if math.isnan(x):
        return arb.nan()
    return arb.pos_inf() if x > 0 else arb.neg_inf()
