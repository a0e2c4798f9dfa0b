"""Balls enclose: the value at a point, the values over an interval, both sides of what is undecided."""

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given

from reference import numbers
from reference.numbers import balls
from reference.numbers.balls import Ball
from tests.examples import examples
from tests.numbers.enclosure import DIGITS, between, encloses, ends, is_bounded, is_hull

INFINITY, NAN = float("inf"), float("nan")
LARGEST = float(np.finfo(np.float64).max)
SMALLEST = float(np.finfo(np.float64).smallest_subnormal)

Domain = tuple[float, float]
UNARY: dict[str, tuple[Callable[[Any], Any], Domain]] = {
    "exp": (mpmath.exp, (-1e4, 1e4)),
    "expm1": (mpmath.expm1, (-1e4, 1e4)),
    "log": (mpmath.log, (SMALLEST, LARGEST)),
    "log1p": (mpmath.log1p, (float(np.nextafter(-1.0, 0.0)), LARGEST)),
    "sqrt": (mpmath.sqrt, (0.0, LARGEST)),
    "square": (lambda x: x * x, (-LARGEST, LARGEST)),
    "absolute": (abs, (-LARGEST, LARGEST)),
    "sigmoid": (lambda x: 1 / (1 + mpmath.exp(-x)), (-1e4, 1e4)),
    "log_sigmoid": (lambda x: -mpmath.log1p(mpmath.exp(-x)), (-1e4, 1e4)),
}
"""Each function with mpmath's definition of it, and the inputs for which both are finite."""

BINARY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "+": (operator.add, operator.add),
    "-": (operator.sub, operator.sub),
    "*": (operator.mul, operator.mul),
    "/": (operator.truediv, operator.truediv),
    "maximum": (numbers.maximum, max),
    "minimum": (numbers.minimum, min),
    "clip": (numbers.clip, lambda x, low, high: min(max(x, low), high)),
}
"""Each operation on balls with what it does to rationals."""


def floats_in(domain: Domain) -> st.SearchStrategy[float]:
    """Floats of a domain: simple, extreme, and of the size where most functions bend."""
    low, high = domain
    return st.floats(low, high) | st.floats(max(low, -50.0), min(high, 50.0))


ANY = floats_in((-LARGEST, LARGEST))


@pytest.mark.parametrize("name", UNARY)
def test_value_at_a_point_is_enclosed(name: str) -> None:
    function, (definition, domain) = getattr(numbers, name), UNARY[name]

    @examples(100)
    @given(floats_in(domain))
    def check(x: float) -> None:
        ball = function(balls.array(x))
        with mpmath.workdps(DIGITS):
            assert encloses(ball, definition(mpmath.mpf(x)))
        assert ball.value.rel_accuracy_bits() > np.finfo(np.float64).nmant  # it tells float64s apart

    check()


@pytest.mark.parametrize("name", UNARY)
def test_values_over_an_interval_are_enclosed(name: str) -> None:
    function, (definition, domain) = getattr(numbers, name), UNARY[name]
    lowest = {"log": 0.0, "log1p": -1.0}.get(name, -INFINITY)

    @examples(100)
    @given(st.tuples(*[floats_in(domain)] * 3).map(sorted))
    def check(points: list[float]) -> None:
        low, x, high = points
        ball = between(low, high)
        image = function(ball)
        with mpmath.workdps(DIGITS):
            # An interval that reaches the pole has an unbounded image, which holds everything.
            assert encloses(image, definition(mpmath.mpf(x))) or ends(ball)[0] <= lowest

    check()


@pytest.mark.parametrize("name", BINARY)
@examples(100)
@given(st.lists(ANY, min_size=3, max_size=3))
def test_operations_on_points(name: str, points: list[float]) -> None:
    function, definition = BINARY[name]
    count = 3 if name == "clip" else 2
    operands = points[:count]
    ball = function(*map(balls.array, operands))
    if name == "/" and operands[1] == 0.0:
        assert not is_bounded(ball)
    else:
        assert encloses(ball, definition(*map(Fraction, operands)))


@pytest.mark.parametrize("name", BINARY)
@examples(100)
@given(st.lists(st.lists(ANY, min_size=3, max_size=3).map(sorted), min_size=3, max_size=3))
def test_operations_on_intervals(name: str, intervals: list[list[float]]) -> None:
    function, definition = BINARY[name]
    operands = intervals[: 3 if name == "clip" else 2]
    factors = [between(low, high) for low, _, high in operands]
    ball = function(*factors)
    if name == "/" and ends(factors[1])[0] <= 0 <= ends(factors[1])[1]:
        assert not is_bounded(ball)
    else:
        assert encloses(ball, definition(*(Fraction(x) for _, x, _ in operands)))


@examples(100)
@given(ANY, ANY)
def test_operations_take_plain_numbers_on_either_side(x: float, y: float) -> None:
    for name in ("+", "-", "*", "maximum", "minimum"):
        function, definition = BINARY[name]
        exact = definition(Fraction(x), Fraction(y))
        assert encloses(function(balls.array(x), y), exact)
        assert encloses(function(x, balls.array(y)), exact)


def test_large_integers_are_exact() -> None:
    odd = 2**53 + 1  # the first integer that float64 does not have
    assert encloses(balls.array(0.0) + odd, odd)
    assert not encloses(balls.array(0.0) + odd, float(odd))


@examples(100)
@given(st.lists(ANY, min_size=3, max_size=3).map(sorted), st.integers(0, 8))
def test_powers(points: list[float], count: int) -> None:
    low, x, high = points
    powers = numbers.powers(between(low, high), count)
    assert len(powers) == count
    assert all(encloses(power, Fraction(x) ** k) for k, power in enumerate(powers))


@examples(100)
@given(st.lists(st.lists(ANY, min_size=3, max_size=3).map(sorted), min_size=1, max_size=8))
def test_total(intervals: list[list[float]]) -> None:
    terms = np.array([between(low, high) for low, _, high in intervals], dtype=object)
    exact = sum(Fraction(x) for _, x, _ in intervals)
    assert encloses(numbers.total(terms), exact)


def test_total_counts_plain_numbers_among_balls() -> None:
    assert encloses(balls.total([balls.array(1.0), 2.0, 4]), 7)
    with pytest.raises(TypeError, match="expected a ball or a number, got str"):
        balls.total([balls.array(1.0), "2"])


@examples(100)
@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=6))
def test_logsumexp(points: list[float]) -> None:
    largest = mpmath.mpf(max(points))
    with mpmath.workdps(DIGITS):
        exact = largest + mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(x) - largest) for x in points))
    assert encloses(numbers.logsumexp(balls.array(points)), exact)
    off_by_a_roundoff = numbers.logsumexp(balls.array([x / 128 for x in points], None, 2.0**-11))
    with mpmath.workdps(DIGITS):
        exact = mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(x) / 128) for x in points))
    assert encloses(off_by_a_roundoff, exact)


@pytest.mark.parametrize(
    ("x", "y", "less", "less_equal"),
    [
        (between(0.0, 2.0), 1.0, None, None),
        (1.0, between(0.0, 2.0), None, None),
        (between(0.0, 1.0), between(2.0, 3.0), True, True),
        (between(2.0, 3.0), between(0.0, 1.0), False, False),
        (balls.array(1.0), 1.0, False, True),
        (balls.array(1.0), NAN, None, None),
        (balls.array(-INFINITY), 0.0, True, True),
    ],
)
def test_comparisons_are_decided_or_not(x: Any, y: Any, less: bool | None, less_equal: bool | None) -> None:
    assert numbers.less(x, y) is less
    assert numbers.less_equal(x, y) is less_equal


def test_undecided_comparison_takes_the_hull() -> None:
    one, three = balls.array(1.0), balls.array(3.0)
    assert is_hull(balls.where(numbers.less(between(0.0, 2.0), 1.0), one, three), 1.0, 3.0)
    assert is_hull(balls.where(numbers.less(between(0.0, 2.0), 1.0), one, 3.0), 1.0, 3.0)
    assert ends(balls.where(numbers.less(between(0.0, 2.0), 4.0), one, three)) == (1, 1)
    assert ends(balls.where(numbers.less(between(0.0, 2.0), -1.0), one, three)) == (3, 3)


def test_condition_of_balls_does_not_choose_between_floats() -> None:
    """An undecided None would count as False there."""
    x = np.array([between(0.0, 2.0)], dtype=object)
    undecided = numbers.less(x, 1.0)
    for condition in (undecided, undecided[0]):
        with pytest.raises(TypeError, match=r"reference\.numbers\.full"):
            numbers.where(condition, 1.0, 0.0)
    indicator: Any = numbers.where(undecided, numbers.full((1,), 1, like=x), 0.0)
    assert is_hull(indicator[0], 0.0, 1.0)


def test_maximum_and_minimum_of_what_overlaps() -> None:
    x, y = between(0.0, 2.0), between(1.0, 5.0)
    assert is_hull(balls.maximum(x, y), 1.0, 5.0)
    assert is_hull(balls.minimum(x, y), 0.0, 2.0)
    assert is_hull(balls.maximum(between(-3.0, 9.0), 1.0), 1.0, 9.0)


def test_square_and_absolute_know_that_both_factors_are_one() -> None:
    around_zero = between(-1.0, 1.0)
    for ball in (balls.square(around_zero), balls.absolute(around_zero)):
        assert encloses(ball, 0.0)
        assert encloses(ball, 1.0)
        assert not encloses(ball, -0.5)
    assert encloses(around_zero * around_zero, -1.0)


def test_what_lies_outside_the_domain_is_left_out() -> None:
    assert is_hull(balls.sqrt(between(-1.0, 4.0)), 0.0, 2.0)
    for function, x in ((numbers.sqrt, -1.0), (numbers.log, 0.0), (numbers.log, -1.0), (numbers.log1p, -2.0)):
        assert not is_bounded(function(balls.array(x)))


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (numbers.exp, -INFINITY, 0),
        (numbers.expm1, -INFINITY, -1),
        (numbers.sigmoid, -INFINITY, 0),
        (numbers.sigmoid, INFINITY, 1),
        (numbers.log_sigmoid, INFINITY, 0),
        (lambda x: numbers.maximum(x, 3.0), -INFINITY, 3),
        (lambda x: numbers.minimum(3.0, x), INFINITY, 3),
        (lambda x: 1.0 / x, INFINITY, 0),
    ],
)
def test_infinite_inputs_with_finite_results(function: Any, x: float, expected: int) -> None:
    assert ends(function(balls.array(x))) == (expected, expected)


@pytest.mark.parametrize(
    "function", [numbers.exp, numbers.log, numbers.sqrt, numbers.square, numbers.absolute]
)
def test_infinite_inputs_with_infinite_results(function: Any) -> None:
    assert not is_bounded(function(balls.array(INFINITY)))
    assert function(balls.array(INFINITY)).value.lower() > balls.array(LARGEST).value


def test_logsumexp_of_minus_infinity() -> None:
    terms = balls.array([-INFINITY, 2.0, -INFINITY])
    assert ends(numbers.logsumexp(terms)) == (2, 2)


@pytest.mark.parametrize(
    "result",
    [
        lambda nan, x: nan + x,
        lambda nan, x: x - nan,
        lambda nan, x: nan * x,
        lambda nan, x: numbers.exp(nan),
        lambda nan, x: numbers.square(nan),
        lambda nan, x: numbers.maximum(nan, x),
        lambda nan, x: numbers.maximum(x, nan),
        lambda nan, x: numbers.minimum(x, NAN),
        lambda nan, x: numbers.clip(nan, 0.0, 1.0),
        lambda nan, x: balls.total([x, nan]),
        lambda nan, x: numbers.where(None, x, nan),
        lambda nan, x: balls.array(INFINITY) - balls.array(INFINITY),
        lambda nan, x: balls.array(INFINITY) * 0.0,
    ],
)
def test_nan_spreads(result: Callable[[Ball, Ball], Any]) -> None:
    assert not is_bounded(result(balls.array(NAN), balls.array(1.0)))


def test_mask_selects_around_nan() -> None:
    mask = np.array([True, False])
    x, y = balls.array([1.0, NAN]), balls.array([NAN, 2.0])
    assert list(map(ends, numbers.where(mask, x, y))) == [(1, 1), (2, 2)]


@pytest.mark.parametrize(
    "branch",
    [
        bool,
        lambda x: 1 if x else 0,
        lambda x: not x,
        lambda x: x == 1.0,
        lambda x: x != 1.0,
        lambda x: x in (0.0, 1.0),
        lambda x: x < 1.0,
        lambda x: max(x, x),
        float,
        int,
    ],
)
def test_formulas_cannot_branch_on_a_value(branch: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        branch(balls.array(1.0))


@pytest.mark.parametrize("stranger", ["1", None, Fraction(1, 3), 1j])
def test_strangers_are_refused(stranger: Any) -> None:
    for operation in (operator.add, operator.sub, operator.mul, operator.truediv, numbers.maximum):
        with pytest.raises(TypeError):
            operation(balls.array(1.0), stranger)
        with pytest.raises(TypeError):
            operation(stranger, balls.array(1.0))
