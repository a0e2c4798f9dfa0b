"""Where a mean over tokens has to be exact: where it is so as a mean of the rows' weighted means too.

A sum over tokens does not divide by a row's length.
"""

from typing import Any

import numpy as np
import pytest

from reference import policy_loss
from reference.numbers import dyadics
from reference.numbers.formats import FORMATS

TINY = 2.0**-24
"""The smallest number of float16, whose numbers are below 2¹⁶."""

EXACT = {
    "rows of two lengths": [[3, 5, None, None], [6, 4, None, None]],
    "an empty row": [[3, 5], [None, None]],
    "one token": [[TINY]],
    "halves that are just there": [[4 * TINY, 4 * TINY]],
    "sums that are just there": [[2.0**13, 2.0**13]],
}
NOT_EXACT = {
    "a third on the way": [[1, 1, 2], [4, None, None]],
    "a third at the end": [[1, 5, None], [2, None, None]],
    "halves that are not there": [[TINY, TINY]],
}


@pytest.mark.parametrize(
    ("mode", "mean"), [("seq-mean-token-sum", 3.5), ("seq-mean-token-sum-norm", 3.5 / 4)]
)
def test_sums_over_three_tokens(mode: str, mean: float) -> None:
    mask = np.array([[True, True, True, False], [True, True, True, False]])
    x: Any = np.frompyfunc(dyadics.number, 1, 1)(np.array([[1.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 0.0]]))
    found: Any = policy_loss.aggregate(x, mask, mode=mode)
    assert FORMATS["float16"].holds(found)
    assert found.value == mean


@pytest.mark.parametrize(
    ("rows", "exact"),
    [(rows, True) for rows in EXACT.values()] + [(rows, False) for rows in NOT_EXACT.values()],
    ids=[*EXACT, *NOT_EXACT],
)
def test_token_mean(rows: list[list[float | None]], exact: bool) -> None:
    mask = np.array([[entry is not None for entry in row] for row in rows])
    entries = np.array([[entry or 0.0 for entry in row] for row in rows])
    x: Any = np.frompyfunc(dyadics.number, 1, 1)(entries)
    mean: Any = policy_loss.aggregate(x, mask, mode="token-mean")
    assert FORMATS["float16"].holds(mean) == exact
    if exact:
        assert mean.value == entries.sum() / mask.sum()
