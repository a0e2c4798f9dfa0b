"""The published table of the smallest certain error is what the oracle gives today."""

import numpy as np
import pytest

from conformance.cases import ordinary
from conformance.oracle import judged, permitted
from tests.oracle.sensitivity import PAGE, certain, page


def test_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("operation", ["gae", "whiten", "policy_loss", "token_entropy"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_that_error_is_seen_from_either_end_of_the_interval(operation: str, dtype: str) -> None:
    error = certain(operation, dtype, seed=0)
    case = ordinary(operation, dtype, {}, 0)
    allowed = permitted(case)
    for sign in (-1.0, 1.0):
        ends = {i: allowed.bounds(i)[0 if sign > 0 else 1] for i in judged(case, allowed.balls)}
        off = {i: end + sign * 1.001 * error * abs(end) for i, end in ends.items()}
        assert max(allowed.distance(i, x) for i, x in off.items() if np.isfinite(x)) > 1.0
