"""What small distributions are given to a backend as: the means over all outcomes rest on it."""

from types import SimpleNamespace
from typing import Any

import pytest
from flint import arb

from conformance.enumeration import LARGEST_SHARE, exactly, logs, probabilities
from reference.numbers.formats import FORMATS


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_log_probabilities_are_the_nearest_numbers(dtype: str) -> None:
    """Of probabilities near 1 too, whose logarithms lie much nearer to 0 than the probabilities to 1."""
    run: Any = SimpleNamespace(dtype=dtype)
    roundoff = FORMATS[dtype].unit_roundoff * (1 + 2.0**-20)  # narrow ones are rounded to float64 first
    for share in range(1, LARGEST_SHARE):
        for others in ((1,), (7,), (LARGEST_SHARE - 1,), (1, 1), (3, 58)):
            shares = (share, *others)
            for x, p in zip(logs(run, shares)[0], probabilities(shares), strict=True):
                exact = exactly(p).log()
                assert abs(arb(float(x)) - exact) <= abs(exact) * roundoff
