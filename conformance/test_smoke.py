"""Is the adapter sound? One ordinary call of each operation, before the suite goes into depth."""

import numpy as np

from conformance.cases import Case, ordinary
from conformance.marks import clauses
from conformance.run import Run


@clauses("contract.shapes", "contract.pure")
def test_ordinary_call(run: Run) -> None:
    """An array of the right shape, dtype and device comes back, finite, and the inputs are as they were."""
    case = ordinary(run.operation, run.dtype, run.backend.limits(run.operation))
    run.tally.expected = 1

    def check(case: Case) -> None:
        got = run.call(case)
        run.seen(case, bool(np.isfinite(got).all()), f"got {got.tolist()}, expected finite numbers")

    run.count(check, case)
