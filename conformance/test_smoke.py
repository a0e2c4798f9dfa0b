"""Is the adapter sound? One ordinary call of each operation, before the suite goes into depth."""

import numpy as np

from conformance.cases import Case
from conformance.marks import clauses
from conformance.protocol import OPERATIONS, Argument
from conformance.run import Run

ORDINARY = {
    "gamma": 0.5, "lam": 0.5, "masked": "skip", "n": 2, "shift_mean": True, "ddof": 1, "eps": 1e-8,
}  # fmt: skip


@clauses("contract.shapes", "contract.pure")
def test_ordinary_call(run: Run) -> None:
    """An array of the right shape, dtype and device comes back, finite, and the inputs are as they were."""
    operation = OPERATIONS[run.operation]
    limits = run.backend.limits(run.operation)
    options = {name: limits.get(name, (ORDINARY[name],))[0] for name in operation.options}
    case = Case(
        run.operation, {a.name: _ordinary(a) for a in operation.arguments}, options, run.dtype, "ordinary"
    )
    run.tally.expected = 1

    def check(case: Case) -> None:
        got = run.call(case)
        run.seen(case, bool(np.isfinite(got).all()), f"got {got.tolist()}, expected finite numbers")

    run.count(check, case)


def _ordinary(argument: Argument) -> np.ndarray:
    shape = (2, 3)[: len(argument.shape)]
    if argument.kind == "mask":
        return np.ones(shape, dtype=bool)
    if argument.name == "bootstrap_value":
        return np.zeros(shape)
    return np.arange(np.prod(shape), dtype=float).reshape(shape)
