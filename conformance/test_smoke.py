"""Is the adapter sound? Two ordinary calls of each operation, before the suite goes into depth."""

import numpy as np

from conformance.cases import Case
from conformance.marks import clauses
from conformance.run import Run

CALLS = 2
"""The second one shows whether it writes into the result of the first."""


@clauses("contract.shapes", "contract.pure")
def test_ordinary_call(run: Run) -> None:
    """A finite array of the right shape, dtype and device comes back; inputs stay, and so does that array."""
    run.tally.expected = CALLS

    def check(case: Case) -> None:
        got = run.call(case)
        run.seen(case, bool(np.isfinite(got).all()), f"got {got.tolist()}, expected finite numbers")

    for seed in range(CALLS):
        run.count(check, _in_groups(run.ordinary(seed)))


def _in_groups(case: Case) -> Case:
    """The same rows in groups of two and three: what a response alone gets is for its own clause to say."""
    if "group_ids" not in case.arguments:
        return case
    rows = len(case.arguments["group_ids"])
    return case.with_arguments(group_ids=np.arange(rows) % (rows // 2))
