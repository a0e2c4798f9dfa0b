"""Formats round as NumPy and ml_dtypes do, and have the figures that these give."""

import operator
from typing import Any

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given

from reference.numbers.formats import FORMATS, FloatArray, Format
from tests.examples import examples
from tests.numbers.samples import DTYPES, awkward, pairs, spread

ANY_FLOAT32 = st.floats(width=32)
every_format = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)


def cast(x: FloatArray | float, form: Format) -> FloatArray:
    """What the library that implements the format rounds float64 values to."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(x, dtype=np.float64).astype(DTYPES[form.name]).astype(np.float64)


def same(x: FloatArray, y: FloatArray) -> bool:
    """Whether all values are the same, NaN and the signs of zeros included."""
    return np.array_equal(x, y, equal_nan=True) and np.array_equal(np.signbit(x), np.signbit(y))


@pytest.mark.parametrize("name", ["float64", "float32", "float16"])
@examples(150)
@given(st.lists(st.floats(), min_size=1, max_size=4))
def test_rounding_is_numpys(name: str, values: list[float]) -> None:
    x = np.array(values)
    assert same(FORMATS[name].round(x), cast(x, FORMATS[name]))


@examples(300)
@given(ANY_FLOAT32)
def test_rounding_is_that_of_ml_dtypes(x: float) -> None:
    """On float32 values: from float64 ml_dtypes rounds twice, by way of float32."""
    assert same(FORMATS["bfloat16"].round(x), cast(x, FORMATS["bfloat16"]))


def from_bits(patterns: Any, form: Format) -> FloatArray:
    """Read bit patterns as numbers of a format."""
    dtype = DTYPES[form.name]
    return np.asarray(patterns, dtype=f"uint{8 * dtype.itemsize}").view(dtype).astype(np.float64)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_rounding_between_neighbours(name: str) -> None:
    """To the nearer of two neighbours, on a tie to the even one; of a 16-bit format, this is all of it."""
    form = FORMATS[name]
    infinity = int(np.array(np.inf, dtype=DTYPES[name]).view(f"uint{8 * DTYPES[name].itemsize}"))
    patterns = np.unique(np.linspace(0, infinity - 2, 40_000).astype(np.int64))
    low, high = from_bits(patterns, form), from_bits(patterns + 1, form)
    middle = low + (high - low) / 2
    assert np.array_equal(form.round(middle), np.where(patterns % 2 == 0, low, high))
    assert np.array_equal(form.round(np.nextafter(middle, 0.0)), low)
    assert np.array_equal(form.round(-np.nextafter(middle, np.inf)), -high)
    assert form.represents(low)
    assert not np.any(form.round(middle) == middle)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_ties_go_to_even(name: str) -> None:
    form = FORMATS[name]
    ulp = 2 * form.unit_roundoff
    assert form.round(1 + ulp / 2) == 1.0
    assert form.round(1 + 3 * ulp / 2) == 1 + 2 * ulp
    assert form.round(np.nextafter(1 + ulp / 2, 2)) == 1 + ulp
    assert form.round(form.subnormal / 2) == 0.0
    assert form.round(3 * form.subnormal / 2) == 2 * form.subnormal
    assert form.round(np.nextafter(form.subnormal / 2, 1)) == form.subnormal


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_overflow(name: str) -> None:
    form = FORMATS[name]
    halfway = 2.0**form.max_exponent * (1 - form.unit_roundoff / 2)
    assert form.round(np.nextafter(halfway, 0)) == form.largest
    assert form.round(halfway) == np.inf
    assert form.round(-halfway) == -np.inf
    assert form.round(np.finfo(np.float64).max) == np.inf


@every_format
def test_special_values(form: Format) -> None:
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0])
    assert same(form.round(special), special)
    assert form.represents(special)
    assert form.round(0.5).shape == ()
    assert form.round(np.zeros((0, 3))).shape == (0, 3)


@every_format
def test_figures(form: Format) -> None:
    finfo: Any = ml_dtypes.finfo if form.name == "bfloat16" else np.finfo
    info = finfo(DTYPES[form.name])
    assert 2 * form.unit_roundoff == float(info.eps)
    assert form.precision == info.nmant + 1
    assert form.subnormal == float(info.smallest_subnormal)
    assert form.largest == float(info.max)
    assert form.max_exponent == info.maxexp
    assert form.min_exponent == info.minexp
    assert 2.0**form.min_exponent == float(info.smallest_normal)


@every_format
def test_represents(form: Format) -> None:
    assert form.represents(awkward(form))
    assert form.represents(spread(form, 1000, seed=0))
    if form.precision < FORMATS["float64"].precision:
        for stranger in (1 + form.unit_roundoff, form.subnormal / 2, 2 * form.largest, -2 * form.largest):
            assert not form.represents(stranger)
            assert not form.represents(np.array([1.0, stranger]))


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_computing_in_float64_and_rounding_is_the_operation(name: str, operation: Any) -> None:
    """Rounding twice is innocuous where the wide format has 2p + 2 bits (Figueroa, SIGNUM Newsl. 30, 1995).

    float64 has 53, so Format.round of its results is correctly rounded arithmetic in every narrower format.
    """
    form = FORMATS[name]
    assert FORMATS["float64"].precision >= 2 * form.precision + 2
    x, y = pairs(form)
    with np.errstate(all="ignore"):
        own = operation(x.astype(DTYPES[name]), y.astype(DTYPES[name])).astype(np.float64)
        assert np.array_equal(form.round(operation(x, y)), own, equal_nan=True)
        root = np.sqrt(np.abs(x).astype(DTYPES[name])).astype(np.float64)
    assert np.array_equal(form.round(np.sqrt(np.abs(x))), root)
