"""How small an error the suite is certain to see: `python -m tests.oracle.sensitivity` writes the table.

An answer may lie anywhere in its permitted interval. If all elements of a result are off by more than the
width of their intervals, relative to their size, at least one is outside wherever it would have been. The
table has, for each operation and dtype, the smallest and the largest such error over ordinary inputs: all of
them together see what is larger than the smallest, each alone what is larger than the largest.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from conformance.cases import ordinary
from conformance.operations import OPERATIONS
from conformance.oracle import judged, permitted
from reference.numbers.formats import FORMATS

PAGE = Path(__file__).parents[2] / "docs" / "measurements" / "sensitivity.md"
INPUTS = 10
"""Ordinary inputs of each operation and dtype."""

TEXT = f"""\
# The smallest error that is certain to be seen

Computed, not measured, by `python -m tests.oracle.sensitivity`; a test computes it anew and compares.

If every element of a result is off by a relative error larger than the first number, one of {INPUTS} ordinary
inputs shows it (dense numbers of one scale, nothing masked); if it is larger than the second, any of them
does. They differ where results cancel. The suite tries more inputs than these, and on exact ones (γ and λ in
{{0, 1}} and small dyadic numbers, for example) sees every error there is. An answer 4 half widths away from
the middle of its permitted interval fails for each operation and dtype. A dash: rounding alone may use up
the result, so that the interval of such an input contains 0 or is unbounded.

"""


def certain(operation: str, dtype: str, seed: int) -> float:
    """The relative error of all elements that one ordinary input is certain to show."""
    case = ordinary(operation, dtype, {}, seed)
    balls = permitted(case).balls
    errors = [np.inf]
    for index in judged(case, balls):
        ball = balls[index].value
        if ball.is_finite() and ball != 0 and not ball.contains(0):
            errors.append(float((2 * ball.rad() / abs(ball).lower()).upper()))
    return min(errors)


def table() -> pd.DataFrame:
    """Operation × dtype."""
    cells = {
        dtype: [
            _cell([certain(operation, dtype, seed) for seed in range(INPUTS)]) for operation in OPERATIONS
        ]
        for dtype in FORMATS
    }
    return pd.DataFrame(cells, index=pd.Index(OPERATIONS, name="operation"))


def _cell(errors: list[float]) -> str:
    return " / ".join("-" if np.isinf(x) else f"{x:.1e}" for x in (min(errors), max(errors)))


def page() -> str:
    """The page with the table."""
    return TEXT + table().reset_index().to_markdown(index=False) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
