"""Rounding balls hold what NumPy and ml_dtypes compute: single operations, sums, whole formulas."""

import itertools
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from conformance.oracle import ELEMENTARY_FACTOR, FACTOR
from reference import gae, numbers
from reference.numbers import balls
from reference.numbers.formats import FORMATS, FloatArray, Format
from tests.examples import examples
from tests.numbers.enclosure import encloses, is_bounded
from tests.numbers.samples import DTYPES, awkward, pairs, spread

IEEE = 1.0
"""Unit roundoffs that + - * / and the square root lose in IEEE arithmetic."""

ULPS = {"exp": 3, "expm1": 3, "log": 4, "log1p": 2}
"""Units in the last place by which NumPy's functions may miss the rounded result, in whatever format: the
largest in the data files of its own numpy/_core/tests/test_umath_accuracy.py."""

every_format = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)


def held(ball: Any, got: float, form: Format) -> bool:
    """Whether a rounding ball permits a result; infinity where it reaches beyond the largest number."""
    if np.isfinite(got):
        return encloses(ball, got)
    return not is_bounded(ball) or bool(ball.value.abs_upper() > form.largest)


def all_held(permitted: Any, got: Any, form: Format) -> bool:
    return all(held(ball, float(x), form) for ball, x in zip(permitted.flat, np.ravel(got), strict=True))


def domain(name: str, form: Format) -> FloatArray:
    """Inputs of a function, from the whole range and from where its result is finite and not 1."""
    near = form.round(np.random.default_rng(4).normal(size=1000) * form.largest**0.01)
    x = np.concatenate([awkward(form), spread(form, 1000, seed=5), near, form.round(1.0 + near / 8)])
    return np.asarray(x[x > {"log": 0.0, "sqrt": 0.0, "log1p": -1.0}.get(name, -np.inf)])


@every_format
@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_arithmetic(operation: Any, form: Format) -> None:
    x, y = pairs(form)
    with np.errstate(all="ignore"):
        got = operation(x.astype(DTYPES[form.name]), y.astype(DTYPES[form.name])).astype(np.float64)
    assert all_held(operation(*(balls.array(v, balls.Rounding(form, IEEE)) for v in (x, y))), got, form)


@every_format
@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_two_units_in_the_last_place_further_is_outside(operation: Any, form: Format) -> None:
    """The exact result is 1.5 units away, at least 1.5 roundoffs, where one is allowed."""
    x, y = pairs(form)
    with np.errstate(all="ignore"):
        got = form.round(operation(x, y))
    # Half a roundoff is more than what underflows from here on.
    smallest = 2.0 * form.underflow / form.unit_roundoff
    large = np.isfinite(got) & (np.abs(got) > smallest) & (np.abs(got) < form.largest / 2)
    x, y, got = x[large], y[large], got[large]
    two_ulps = np.copysign(np.ldexp(2.0, np.frexp(got)[1] - form.precision), got)
    permitted = operation(*(balls.array(v, balls.Rounding(form, IEEE)) for v in (x, y)))
    assert permitted.size > large.size / 4
    assert not any(map(encloses, permitted, map(operator.add, map(Fraction, got), map(Fraction, two_ulps))))


@every_format
def test_square_root(form: Format) -> None:
    x = np.abs(domain("sqrt", form))
    got = np.sqrt(x.astype(DTYPES[form.name])).astype(np.float64)
    assert all_held(numbers.sqrt(balls.array(x, balls.Rounding(form, IEEE))), got, form)


@every_format
@pytest.mark.parametrize("name", ULPS)
def test_elementary_functions(name: str, form: Format) -> None:
    """A unit in the last place is at most 2 roundoffs; one more rounds the result that ULPS counts from."""
    x = domain(name, form)
    with np.errstate(all="ignore"):
        got = getattr(np, name)(x.astype(DTYPES[form.name])).astype(np.float64)
    permitted = getattr(numbers, name)(balls.array(x, balls.Rounding(form, 2.0 * ULPS[name] + 1.0)))
    assert all_held(permitted, got, form)


def written_out(name: str, x: Any) -> Any:
    """A function as NumPy has it, or as one writes it with NumPy's."""
    one = x.dtype.type(1)
    if name == "sigmoid":
        return np.where(
            x >= 0, one / (one + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (one + np.exp(-np.abs(x)))
        )
    if name == "log_sigmoid":
        return np.minimum(x, one * 0) - np.log1p(np.exp(-np.abs(x)))
    return getattr(np, name)(x)


@every_format
@pytest.mark.parametrize("name", [*ULPS, "sigmoid", "log_sigmoid"])
def test_numpys_functions_lie_within_the_oracles_factors(name: str, form: Format) -> None:
    x = domain(name, form)
    with np.errstate(all="ignore"):
        got = written_out(name, x.astype(DTYPES[form.name])).astype(np.float64)
    rounding = balls.Rounding(form, FACTOR, ELEMENTARY_FACTOR[form.name])
    assert all_held(getattr(numbers, name)(balls.array(x, rounding)), got, form)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", [*ULPS, "sigmoid", "log_sigmoid"])
def test_rounded_float64_functions_lie_within_the_oracles_factor(name: str, dtype: str) -> None:
    """What float64 loses is 2**-29 of a roundoff of float32, so one roundoff and a little is lost in all."""
    form = FORMATS[dtype]
    x = domain(name, form)
    with np.errstate(all="ignore"):
        got = form.round(getattr(numbers, name)(x))
    assert all_held(getattr(numbers, name)(balls.array(x, balls.Rounding(form, FACTOR))), got, form)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_sigmoid_by_its_logarithm(dtype: str) -> None:
    """As JAX differentiates its logarithm: exp(x - log(1 + exp(x))), every step rounded."""
    form = FORMATS[dtype]
    x, fl = domain("sigmoid", form), form.round
    logarithm = fl(np.maximum(x, 0.0) + fl(np.log1p(fl(np.exp(-np.abs(x))))))
    got = fl(np.exp(fl(x - logarithm)))
    assert all_held(numbers.sigmoid(balls.array(x, balls.Rounding(form, IEEE))), got, form)


def pairwise(terms: list[Any], add: Callable[[Any, Any], Any]) -> Any:
    half = len(terms) // 2
    return terms[0] if not half else add(pairwise(terms[:half], add), pairwise(terms[half:], add))


def one_by_one(terms: list[Any], add: Callable[[Any, Any], Any]) -> Any:
    result = terms[0]
    for term in terms[1:]:
        result = add(result, term)
    return result


@every_format
@examples(60)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), cancels=st.booleans(), tiny=st.booleans())
def test_sums_in_every_order(form: Format, seed: int, count: int, cancels: bool, tiny: bool) -> None:
    rng = np.random.default_rng(seed)
    x = form.round(rng.normal(size=count) * 2.0 ** rng.integers(0, 8, count))
    x = np.concatenate([x, -x[::-1]]) if cancels else x
    x = form.round(x * form.subnormal) if tiny else x
    permitted: Any = numbers.total(balls.array(x, balls.Rounding(form, IEEE)))
    terms = list(x.astype(DTYPES[form.name]))
    orders = [terms, terms[::-1], sorted(terms), sorted(terms, key=abs, reverse=True)]
    results = [method(order, operator.add) for order in orders for method in (one_by_one, pairwise)]
    results.append(np.sum(np.array(terms, dtype=DTYPES[form.name])))
    assert all(held(permitted, float(result), form) for result in results)


def near_underflow(form: Format, seed: int) -> FloatArray:
    """Four factors: the first at the bottom of the format, the others of moderate size."""
    rng = np.random.default_rng(seed)
    exponents = rng.integers(-2, 5, 4) + rng.integers(0, form.precision + 2) * np.array([1, 0, 0, 0])
    return form.round(rng.normal(size=4) * 2.0**exponents * np.array([form.subnormal, 1, 1, 1]))


def products(factors: FloatArray, dtype: np.dtype[Any], halvings: int, over: float = 1.0) -> set[float]:
    """What every order of multiplying and dividing gives, halved so often at every place, and made whole."""
    found = set()
    half, two, divisor = np.array([0.5, 2.0, over]).astype(dtype)
    steps = [(operator.truediv, divisor), *((operator.mul, factor) for factor in factors.astype(dtype))]
    for order in itertools.permutations(steps):
        for places in itertools.combinations_with_replacement(range(len(order)), halvings):
            result = dtype.type(1.0)
            for place, (step, factor) in enumerate(order):
                result = step(result, factor)
                for _ in range(places.count(place)):
                    result = result * half
            for _ in range(halvings):
                result = result * two
            found.add(float(result))
    return found


@every_format
@pytest.mark.parametrize("halvings", [0, 1, 2])
@examples(20)
@given(seed=st.integers(0, 2**32 - 1))
def test_products_in_every_order(form: Format, halvings: int, seed: int) -> None:
    factors = near_underflow(form, seed)
    permitted: Any = numbers.product(*balls.array(factors, balls.Rounding(form, IEEE)), halvings=halvings)
    assert all(held(permitted, got, form) for got in products(factors, DTYPES[form.name], halvings))


@every_format
@pytest.mark.parametrize("over", [3.0, 100.0, 0.125])
@examples(20)
@given(seed=st.integers(0, 2**32 - 1))
def test_divided_products_in_every_order(form: Format, over: float, seed: int) -> None:
    factors = near_underflow(form, seed)[:3]
    permitted: Any = numbers.product(*balls.array(factors, balls.Rounding(form, IEEE)), over=over)
    assert all(held(permitted, got, form) for got in products(factors, DTYPES[form.name], 0, over))


@every_format
@examples(20)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_products_do_not_tell_apart(form: Format, seed: int) -> None:
    """All numbers whose product with a factor near the bottom of the format is that of x, and few others."""
    rng, dtype = np.random.default_rng(seed), DTYPES[form.name]
    [factor] = form.round(rng.choice([-1.0, 1.0], 1) * rng.uniform(1, 60) * form.subnormal)
    x, *others = form.round(rng.uniform(0.5, 2.0, 500))
    blurred: Any = numbers.blurred(*balls.array([x, factor], balls.Rounding(form, IEEE)))
    typed = np.array(others).astype(dtype) * dtype.type(factor)
    alike = [
        y for y, product in zip(others, typed, strict=True) if product == dtype.type(x) * dtype.type(factor)
    ]
    assert all(encloses(blurred, y) for y in [x, *alike])
    assert not encloses(blurred, x + 1.01 * form.underflow / abs(factor))
    assert not encloses(blurred, x - 1.01 * form.underflow / abs(factor))


def test_only_balls_are_blurred() -> None:
    rounding = balls.Rounding(FORMATS["float16"], IEEE)
    ordinary, nothing = balls.array([1.5, 0.0], rounding)
    assert numbers.blurred(1.5, 2.0**-24) == 1.5
    assert not encloses(numbers.blurred(ordinary, nothing), 1.5000001)
    assert not encloses(numbers.blurred(balls.array(1.5), balls.array(2.0**-24)), 1.5000001)
    tiny = balls.array(2.0**-24, rounding)
    for factor in (balls.array(np.nan, rounding), tiny * tiny):  # the product may be 0
        endless: Any = numbers.blurred(ordinary, factor)
        assert not endless.value.is_finite()


def test_the_order_of_a_product_matters_where_it_underflows() -> None:
    """Half of 2**-24 is 0 in float16, and twice that too; above the normal range a half is exact."""
    form = FORMATS["float16"]
    rounding = balls.Rounding(form, IEEE)
    tiny, two = balls.array([form.subnormal, 2.0], rounding)
    for halvings, held_multiples in enumerate(((1.0, 2.0, 3.0), (0.0, 2.0, 5.0))):
        permitted: Any = numbers.product(tiny, two, halvings=halvings)
        assert all(encloses(permitted, k * form.subnormal) for k in held_multiples)
        assert not encloses(permitted, (held_multiples[-1] + 0.1) * form.subnormal)
    plain, halved = two * two, numbers.product(two, two, halvings=1)
    assert encloses(plain, 4 * (1 + form.unit_roundoff))
    assert not encloses(halved, 4 * (1 + 1.01 * form.unit_roundoff))


@every_format
def test_sums_along_an_axis(form: Format) -> None:
    x = form.round(np.random.default_rng(6).normal(size=(3, 4, 5)))
    rounding = balls.Rounding(form, IEEE)
    for axis in (0, 1, 2, -1):
        got = np.sum(x.astype(DTYPES[form.name]), axis=axis)
        permitted = numbers.total(balls.array(x, rounding), axis=axis)
        assert permitted.shape == got.shape
        assert all_held(permitted, got.astype(np.float64), form)


def powers_by(how: str, discount: Any, count: int, form: Format) -> list[Any]:
    """1, d, d² ... in a format: each from the one before, or each rounded once."""
    one = DTYPES[form.name].type(1)
    if how == "once":
        return [DTYPES[form.name].type(float(discount) ** k) for k in range(count)]
    found = [one]
    for _ in range(count - 1):
        found.append(found[-1] * discount)
    return found


@every_format
@pytest.mark.parametrize("how", ["again and again", "once"])
@pytest.mark.parametrize("discount", [0.0, 0.25, 0.5, 0.9, 0.99, 1.0])
@examples(10)
@given(seed=st.integers(0, 2**32 - 1), count=st.sampled_from([1, 2, 7, 40, 150]), tiny=st.booleans())
def test_discounted_sums_in_every_order(
    form: Format, how: str, discount: float, seed: int, count: int, tiny: bool
) -> None:
    """Each term for itself, and then from the first, from the last, by size, and half and half."""
    rng, dtype = np.random.default_rng(seed), DTYPES[form.name]
    x = form.round(rng.normal(size=count) * 2.0 ** rng.integers(0, 8, count) * rng.integers(0, 4, count))
    x, discount = form.round(x * form.subnormal) if tiny else x, float(form.round(discount))
    given_balls = balls.array(x[None], balls.Rounding(form, IEEE))
    [permitted] = numbers.discounted_sums(given_balls, balls.array(discount, balls.Rounding(form, IEEE)))
    powers = powers_by(how, dtype.type(discount), count, form)
    for t in range(0, count, max(1, count // 4)):
        terms = [power * term for power, term in zip(powers, x.astype(dtype)[t:], strict=False)]
        orders = [terms, terms[::-1], sorted(terms), sorted(terms, key=abs, reverse=True)]
        results = [method(order, operator.add) for order in orders for method in (one_by_one, pairwise)]
        assert all(held(permitted[t], float(result), form) for result in results)


@every_format
def test_sixteen_roundings_off_is_outside_of_discounted_sums(form: Format) -> None:
    """Of 12 terms of one sign, γ = 1/2: 11 additions, a tail, a product, two for powers are allowed."""
    rounding, fine = balls.Rounding(form, IEEE), balls.Rounding(FORMATS["float64"], IEEE)
    x = form.round(1.0 + np.arange(12.0) / 8)
    [widened], [exact] = (
        numbers.discounted_sums(balls.array(x[None], r), balls.array(0.5, r)) for r in (rounding, fine)
    )
    off = 1.0 + 16 * form.unit_roundoff
    assert not any(
        encloses(ball, float(one.value.mid()) * off) for ball, one in zip(widened, exact, strict=True)
    )


Round = Callable[[Any], Any]


def gae_in_a_loop(rows: tuple[Any, ...], gamma: Any, lam: Any, fl: Round) -> list[list[Any]]:
    """GAE as a loop over tokens that rounds after every operation."""
    rewards, values, mask, bootstrap_value = rows
    result = [[fl(0.0)] * mask.shape[1] for _ in mask]
    for b, row in enumerate(mask):
        advantage, next_value = fl(0.0), bootstrap_value[b]
        for t in reversed(np.flatnonzero(row)):
            error = fl(fl(rewards[b, t] + fl(gamma * next_value)) - values[b, t])
            advantage = fl(error + fl(fl(gamma * lam) * advantage))
            result[b][t], next_value = advantage, values[b, t]
    return result


def whiten_in_a_loop(x: Any, eps: Any, fl: Round) -> list[Any]:
    """Whitening, one addition after another, rounded after every operation."""
    total, squares = fl(0.0), fl(0.0)
    for term in x:
        total = fl(total + term)
    mean = fl(total / fl(len(x)))
    for term in x:
        squares = fl(squares + fl(fl(term - mean) * fl(term - mean)))
    root = fl(np.sqrt(fl(fl(squares / fl(len(x) - 1)) + eps)))
    return [fl(fl(term - mean) / root) for term in x]


@st.composite
def drawn_rows(draw: st.DrawFn) -> tuple[Any, ...]:
    """Rows of normal numbers, at a size of 1 or so small that products underflow in float16."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    scale = draw(st.sampled_from([1.0, 2.0**-13]))
    mask = rng.random(shape) < draw(st.sampled_from([1.0, 0.7]))
    rewards, values, bootstrap_value = (scale * rng.normal(size=size) for size in (shape, shape, shape[0]))
    return rewards, values, mask, bootstrap_value


@every_format
@examples(80)
@given(drawn_rows(), st.sampled_from([1.0, 0.99, 0.5, 0.0]), st.sampled_from([1.0, 0.95, 0.5, 0.0]))
def test_gae(form: Format, rows: tuple[Any, ...], gamma: float, lam: float) -> None:
    """Rounding float64 results is that format's arithmetic, as tests/numbers/test_formats.py shows."""
    rounded = tuple(x if x.dtype == bool else form.round(x) for x in rows)
    gamma, lam = float(form.round(gamma)), float(form.round(lam))
    rounding = balls.Rounding(form, IEEE)
    args: list[Any] = [x if x.dtype == bool else balls.array(x, rounding) for x in rounded]
    permitted = gae.gae(*args, gamma=balls.array(gamma, rounding), lam=balls.array(lam, rounding))
    assert all_held(permitted, gae_in_a_loop(rounded, gamma, lam, lambda x: float(form.round(x))), form)


@examples(80)
@given(drawn_rows(), st.sampled_from([1.0, 0.99, 0.5, 0.0]), st.sampled_from([1.0, 0.95, 0.5, 0.0]))
def test_gae_in_float32_arrays(rows: tuple[Any, ...], gamma: float, lam: float) -> None:
    """NumPy's own float32 rounds every operation by itself."""
    narrow = tuple(x if x.dtype == bool else x.astype(np.float32) for x in rows)
    rounding = balls.Rounding(FORMATS["float32"], IEEE)
    args: list[Any] = [x if x.dtype == bool else balls.array(x, rounding) for x in narrow]
    discounts = [balls.array(np.float32(x), rounding) for x in (gamma, lam)]
    permitted = gae.gae(*args, gamma=discounts[0], lam=discounts[1])
    got = gae_in_a_loop(narrow, np.float32(gamma), np.float32(lam), np.float32)
    assert np.asarray(got).dtype == np.float32
    assert all_held(permitted, got, FORMATS["float32"])


@every_format
@examples(80)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.sampled_from([1.0, 16.0, 2.0**-8]))
def test_whiten(form: Format, seed: int, count: int, scale: float) -> None:
    x = form.round(scale * np.random.default_rng(seed).normal(size=count))
    eps, rounding = float(form.round(1e-5)), balls.Rounding(form, IEEE)
    everything = np.ones((1, count), dtype=bool)
    permitted = gae.whiten(balls.array(x[None], rounding), everything, eps=balls.array(eps, rounding))
    assert all(map(is_bounded, permitted.flat))
    assert all_held(permitted, whiten_in_a_loop(x, eps, lambda v: float(form.round(v))), form)
