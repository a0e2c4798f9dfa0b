"""Where a dyadic rational fits a format, every order of evaluation answers exactly."""

import operator
import random
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from reference import numbers
from reference.numbers import dyadics
from reference.numbers.dyadics import LOST, Dyadic
from reference.numbers.formats import FORMATS, Format
from tests.examples import examples

Tree = float | tuple[str, list["Tree"]]
"""A formula: a number, or the sum or product of several formulas."""

NARROW: dict[str, Any] = {"float32": np.float32, "float16": np.float16}
narrow = pytest.mark.parametrize("name", NARROW)

LEAVES = st.builds(lambda m, e: m * 2.0**e, st.integers(-9, 9), st.integers(-9, 5))
FACTORS = st.builds(lambda m, e: m * 2.0**e, st.sampled_from([1, -1]), st.integers(-12, 12))


def trees(leaves: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    """Formulas of up to a dozen numbers."""
    return st.recursive(
        leaves,
        lambda inner: st.tuples(st.sampled_from("+*"), st.lists(inner, min_size=2, max_size=5)),
        max_leaves=12,
    )


def fold(tree: Tree, leaf: Callable[[float], Any], combine: Callable[[str, list[Any]], Any]) -> Any:
    """Evaluate a formula."""
    if isinstance(tree, float):
        return leaf(tree)
    name, parts = tree
    return combine(name, [fold(part, leaf, combine) for part in parts])


def in_order(name: str, parts: list[Any]) -> Any:
    result = parts[0]
    for part in parts[1:]:
        result = result + part if name == "+" else result * part
    return result


def in_some_order(rng: random.Random) -> Callable[[str, list[Any]], Any]:
    """Combine two parts at a time, whichever the generator picks: any order and any association."""

    def combine(name: str, parts: list[Any]) -> Any:
        parts = list(parts)
        while len(parts) > 1:
            x, y = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
            parts.append(x + y if name == "+" else x * y)
        return parts[0]

    return combine


def expanded(tree: Tree) -> list[list[float]]:
    """Multiply a formula out: a sum of products."""

    def combine(name: str, parts: list[list[list[float]]]) -> list[list[float]]:
        if name == "+":
            return [product for part in parts for product in part]
        products: list[list[float]] = [[]]
        for part in parts:
            products = [one + other for one in products for other in part]
        return products

    return list(fold(tree, lambda x: [[x]], combine))


def results(tree: Tree, dtype: Any) -> list[Fraction | None]:
    """What several orders of evaluation give in a dtype: as written, shuffled, and multiplied out."""
    found = [fold(tree, dtype, in_order)]
    for seed in range(4):
        found.append(fold(tree, dtype, in_some_order(random.Random(seed))))
        combine = in_some_order(random.Random(seed))
        products = [combine("*", [dtype(x) for x in product]) for product in expanded(tree)]
        found.append(combine("+", products))
    return [Fraction(float(x)) if np.isfinite(x) else None for x in found]


@narrow
@pytest.mark.parametrize("leaves", [LEAVES, FACTORS], ids=["small", "powers"])
@np.errstate(over="ignore", under="ignore", invalid="ignore")
def test_what_fits_is_exact_in_every_order(name: str, leaves: st.SearchStrategy[float]) -> None:
    form, seen = FORMATS[name], Counter[tuple[bool, bool]]()

    @examples(250)
    @given(trees(leaves))
    def check(tree: Tree) -> None:
        dyadic = fold(tree, dyadics.number, in_order)
        exact = fold(tree, Fraction, in_order)
        assert dyadic.value == exact
        fits, right = form.holds(dyadic), all(x == exact for x in results(tree, NARROW[name]))
        assert right or not fits
        seen[fits, right] += 1

    check()
    assert seen[True, True] > seen.total() / 4  # most of what was drawn was demanded exactly
    assert seen[False, False]  # and some of it cannot be


@examples(100)
@given(trees(LEAVES), st.integers(1, 2**10), st.integers(-8, 8))
def test_quotients(tree: Tree, divisor: int, exponent: int) -> None:
    """By a power of two, however it came about, a quotient is exact; by anything else it is lost."""
    x, exact = fold(tree, dyadics.number, in_order), fold(tree, Fraction, in_order)
    by = dyadics.number(divisor - 1) + 1.0
    quotient = (x / (by * 2.0**exponent)).value
    if divisor & (divisor - 1) and exact:
        assert quotient is None
    else:
        assert quotient == exact / (divisor * Fraction(2) ** exponent)


@narrow
def test_precision_is_tight(name: str) -> None:
    """2**p is the last integer before a gap: one more unit in the sum, and some order rounds."""
    form, dtype = FORMATS[name], NARROW[name]
    full = dyadics.number(2.0**form.precision - 1)
    assert form.holds(full + 1)
    assert not form.holds(full + 2)
    assert float(dtype(2.0**form.precision - 1) + dtype(2.0)) != 2.0**form.precision + 1
    assert form.holds(full, spare_bits=0)
    assert not form.holds(full, spare_bits=1)
    cancelled = full + 2 - 2  # as a value it needs no more bits than it did, but the way there does
    assert cancelled.value == full.value
    assert not form.holds(cancelled)


@narrow
def test_range_is_tight(name: str) -> None:
    form, dtype = FORMATS[name], NARROW[name]
    for fitting, too_far in ((form.largest, 2.0**form.max_exponent), (form.underflow, form.underflow / 2)):
        assert form.holds(dyadics.number(fitting))
        assert not form.holds(dyadics.number(too_far))
        with np.errstate(over="ignore"):
            assert float(dtype(fitting)) == fitting
            assert float(dtype(too_far)) in ((too_far, 0.0) if too_far < 1.0 else (np.inf,))


@narrow
@pytest.mark.parametrize("back", [1.0, -1.0])
def test_intermediates_that_leave_the_range(name: str, back: float) -> None:
    """0.5**k * 2**k is 1, and 0.5**k underflows; 2**k * 0.5**k is 1, and 2**k overflows."""
    form, dtype = FORMATS[name], NARROW[name]
    base, there_and_back = dyadics.number(2.0**back), dyadics.number(1)
    for _ in range(form.max_exponent + form.precision):
        there_and_back = base * there_and_back
    for _ in range(form.max_exponent + form.precision):
        there_and_back = there_and_back / base
    assert there_and_back.value == 1
    assert not form.holds(there_and_back)
    with np.errstate(over="ignore", under="ignore"):
        assert np.prod(np.full(form.max_exponent + form.precision, 2.0**back, dtype=dtype)) in (0.0, np.inf)


@narrow
def test_sums_that_overflow_on_the_way(name: str) -> None:
    form, dtype = FORMATS[name], NARROW[name]
    large = 2.0 ** (form.max_exponent - 1)
    total = dyadics.total([dyadics.number(x) for x in (large, large, -large)])
    assert total.value == large
    assert not form.holds(total)
    with np.errstate(over="ignore"):
        assert dtype(large) + dtype(large) - dtype(large) == np.inf


def test_a_product_with_zero_is_exact_unless_the_other_factor_overflows() -> None:
    form, zero = FORMATS["float16"], dyadics.number(0)
    assert form.holds(dyadics.number(2.0**-30) * zero + 1)
    assert not form.holds(dyadics.number(2.0**30) * zero + 1)
    with np.errstate(invalid="ignore"):
        assert np.isnan(np.float16(np.inf) * np.float16(0))


def test_what_is_no_dyadic_rational_is_lost() -> None:
    for value in (Fraction(1, 3), float("nan"), float("inf"), -float("inf")):
        assert dyadics.number(value).value is None
    assert dyadics.number(0.1).value == Fraction(0.1)  # the float, not a tenth
    for form in FORMATS.values():
        assert not form.holds(LOST)


@pytest.mark.parametrize(
    "result",
    [
        lambda lost, x: lost + x,
        lambda lost, x: x - lost,
        lambda lost, x: x * lost,
        lambda lost, x: lost * 0,
        lambda lost, x: lost / x,
        lambda lost, x: x / lost,
        lambda lost, x: -lost,
        lambda lost, x: x / 0,
        lambda lost, x: dyadics.number(0) / 0,
        lambda lost, x: x / 3,
        lambda lost, x: dyadics.total([x, lost, x]),
        lambda lost, x: dyadics.square(lost),
        lambda lost, x: dyadics.absolute(lost),
        lambda lost, x: dyadics.maximum(lost, x),
        lambda lost, x: dyadics.minimum(x, lost),
        lambda lost, x: dyadics.where(dyadics.less(x, lost), x, x),
        lambda lost, x: dyadics.where(dyadics.less_equal(lost, x), x, x),
        lambda lost, x: dyadics.exp(x),
        lambda lost, x: dyadics.expm1(x),
        lambda lost, x: dyadics.log(x),
        lambda lost, x: dyadics.log1p(x),
        lambda lost, x: dyadics.sqrt(x),
        lambda lost, x: dyadics.sigmoid(x - x),
        lambda lost, x: dyadics.log_sigmoid(x - x),
    ],
)
def test_lost_spreads(result: Callable[[Dyadic, Dyadic], Dyadic]) -> None:
    lost = result(LOST, dyadics.number(2))
    assert lost.value is None
    assert not FORMATS["float64"].holds(lost)


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (numbers.exp, 0, 1),
        (numbers.expm1, 0, 0),
        (numbers.log, 1, 0),
        (numbers.log1p, 0, 0),
        (numbers.sqrt, 1, 1),
        (numbers.sqrt, 0, 0),
        (numbers.square, -3, 9),
        (numbers.absolute, -3, 3),
        (lambda x: numbers.maximum(x, 1.0), 4, 4),
        (lambda x: numbers.maximum(x, 5), 4, 5),
        (lambda x: numbers.minimum(x, 1.0), 4, 1),
        (lambda x: numbers.clip(x, 0.0, 1.0), -4, 0),
        (lambda x: dyadics.where(True, x, 1.0), 4, 4),
        (lambda x: dyadics.where(False, x, 1.0), 4, 1),
    ],
)
def test_functions_where_they_are_exact(function: Any, x: int, expected: int) -> None:
    """And the way to their argument still counts: what it may round to has another image."""
    form = FORMATS["float16"]
    assert function(dyadics.number(x)).value == expected
    assert form.holds(function(dyadics.number(x)))
    if "where" not in function.__code__.co_names:  # a condition is a plain bool
        roundabout = dyadics.number(x) + 2.0**form.precision + 0.5 - 2.0**form.precision - 0.5
        assert function(roundabout).value == expected
        assert not form.holds(function(roundabout))


@examples(100)
@given(LEAVES, LEAVES)
def test_values_are_those_of_fractions(x: float, y: float) -> None:
    a, b, p, q = dyadics.number(x), dyadics.number(y), Fraction(x), Fraction(y)
    for operation in (operator.add, operator.sub, operator.mul):
        for result in (operation(a, b), operation(a, y), operation(x, b)):
            assert result.value == operation(p, q)
    assert (-a).value == -p
    assert dyadics.total([a, b, a]).value == p + q + p
    assert bool(dyadics.less(a, y)) == (p < q)
    assert bool(dyadics.less_equal(a, b)) == (p <= q)
    assert dyadics.maximum(a, b).value == max(p, q)
    assert dyadics.minimum(x, b).value == min(p, q)


@pytest.mark.parametrize("branch", [bool, lambda x: x == 1, lambda x: x in (0, 1), lambda x: x < 1, float])
def test_formulas_cannot_branch_on_a_value(branch: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        branch(dyadics.number(1))


def test_an_average_is_exact_where_a_sum_of_quotients_is() -> None:
    """Five numbers that cancel are 0 fifths, but a fifth of each of them is rounded."""
    entries: Any = [[1.5, 1, -2, -0.25, -0.25], [2, -2, 4, 0, 0]]
    x: Any = np.frompyfunc(dyadics.number, 1, 1)(np.array(entries, dtype=object))
    first, nothing = x[0], 0 * x[0]
    averages: Any = [numbers.total(first) / 5, numbers.average(first, 5), numbers.average(nothing, 5)]
    assert [average.value for average in averages] == [0, None, 0]
    rows: Any = numbers.average(x, np.array([5, 4]), axis=1)
    assert [row.value for row in rows] == [None, 1]


def test_a_value_is_exact_where_every_formula_for_it_is() -> None:
    """Four numbers have the sum 8, but a running mean of theirs passes a third, unless they are equal."""
    for entries, exact in (([3, 1], True), ([0, 2, 6, 0], False), ([2, 2, 2, 2], True)):
        x: Any = np.array([dyadics.number(entry) for entry in entries], dtype=object)
        mean: Any = numbers.mean(x)
        assert (dyadics.total(list(x)) / len(x)).value == 2
        assert mean.value == (2 if exact else None)
    one: Any = dyadics.number(1)
    roundabout: Any = dyadics.number(2.0**20) + 1 - 2.0**20
    sure: Any = numbers.same(one, lambda: one)
    unsure: Any = numbers.same(one, lambda: roundabout)
    assert sure.value == unsure.value == 1
    assert [FORMATS["float16"].holds(x) for x in (sure, unsure)] == [True, False]


def test_a_product_that_may_be_halved_is_exact_where_its_halves_are() -> None:
    """The last place of float16 is 2**-24: there is no half of it, but one of 2**-23."""
    for exponent, halvings, exact in ((-24, 0, True), (-24, 1, False), (-23, 1, True), (-23, 2, False)):
        factors = dyadics.number(2.0**exponent), dyadics.number(1)
        product: Any = numbers.product(*factors, halvings=halvings)
        assert product.value == Fraction(2) ** exponent
        assert FORMATS["float16"].holds(product) == exact


@pytest.mark.parametrize("stranger", ["1", None, 1j])
def test_strangers_are_refused(stranger: Any) -> None:
    for operation in (operator.add, operator.sub, operator.mul, operator.truediv):
        with pytest.raises(TypeError):
            operation(dyadics.number(1), stranger)


def test_format_of_zero() -> None:
    forms: list[Format] = list(FORMATS.values())
    assert all(form.holds(dyadics.number(zero)) for form in forms for zero in (0, 0.0, -0.0))


def test_what_a_comparison_chose_is_as_exact_as_what_was_compared() -> None:
    """8 - 2**-9 is no number of bfloat16: whether it is below 8 is not sure there."""
    number: Any = dyadics.number(8.0) - dyadics.number(2.0**-9)
    one, two = dyadics.number(1.0), dyadics.number(2.0)
    choices: list[Any] = [
        dyadics.where(dyadics.less(number, 8.0), one, two),
        numbers.where(numbers.less(number, 8.0), one, two),
        dyadics.where(dyadics.less_equal(8.0, number), two, one),
        dyadics.kink(number, 8.0, one, two),
    ]
    for chosen in choices:
        assert chosen.value == 1
        assert FORMATS["float32"].holds(chosen)
        assert not FORMATS["bfloat16"].holds(chosen)
