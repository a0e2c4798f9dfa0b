"""Values of options that are far out, next to nothing, or whole numbers: each is taken as it is."""

from conformance.marks import clauses, operations
from conformance.operations import OPERATIONS
from conformance.run import Run
from conformance.telling import of_option, telling
from conformance.values import FAR, option_values

WITH_FAR = tuple(
    name for name, op in OPERATIONS.items() if any(of_option(FAR, name, option, ()) for option in op.options)
)


@clauses("contract.options-used")
@operations(*WITH_FAR)
def test_far_options(run: Run) -> None:
    """No bound on an option that no clause has, none taken for another, no matter for its Python type."""
    limits = run.backend.limits(run.operation)
    for name in OPERATIONS[run.operation].options:
        for value in of_option(FAR, run.operation, name, ()):
            others = option_values(run.operation, name)
            told, _ = telling(run.operation, run.dtype, name, value, others, limits)
            run.at(run.conforms_there, *told)
