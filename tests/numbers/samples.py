"""Numbers of each format, the awkward ones among them, and the arrays that compute in it."""

from typing import Any

import ml_dtypes
import numpy as np

from reference.numbers.formats import FloatArray, Format

DTYPES: dict[str, np.dtype[Any]] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
"""Who else implements each format: NumPy, and ml_dtypes for bfloat16."""


def awkward(form: Format) -> FloatArray:
    """Numbers of a format at its corners: both zeros, near 1, near underflow, near overflow, ties."""
    ulp, tiny = 2.0 * form.unit_roundoff, 2.0**form.min_exponent
    positive = [0.0, 1.0, 1 + ulp, 1 - ulp / 2, 1.5, 2.0, 3.0, 7.0, 1 / 3, 0.1, 1 / ulp, 1 / ulp + 1]
    positive += [form.subnormal, 3 * form.subnormal, tiny - form.subnormal, tiny, tiny + form.subnormal]
    positive += [form.largest, form.largest / 2, form.largest**0.5, form.largest**-0.5, tiny**0.5, 5 * tiny]
    values = form.round(np.array(positive))
    return np.concatenate([values, -values])


def spread(form: Format, count: int, seed: int) -> FloatArray:
    """Random numbers of a format with exponents from its whole range."""
    rng = np.random.default_rng(seed)
    exponents = rng.integers(form.min_exponent - form.precision, form.max_exponent, count)
    return form.round(rng.uniform(-1.0, 1.0, count) * 2.0**exponents)


def pairs(form: Format) -> tuple[FloatArray, FloatArray]:
    """All pairs of awkward numbers, pairs from the whole range, and pairs of about the same size."""
    corners, first, second = awkward(form), spread(form, 1000, seed=1), spread(form, 1000, seed=2)
    near = form.round(first * np.random.default_rng(3).uniform(-2.0, 2.0, 1000))
    left = np.concatenate([np.repeat(corners, len(corners)), first, first])
    right = np.concatenate([np.tile(corners, len(corners)), second, near])
    return left, np.where(np.isfinite(right), right, form.largest)
