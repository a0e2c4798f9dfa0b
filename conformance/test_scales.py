"""Numbers of any size: no clause bounds what a formula is given, or takes what is small for 0."""

from functools import partial

import numpy as np

from conformance.cases import Case
from conformance.marks import clauses, operations
from conformance.operations import OPERATIONS
from conformance.relations import BOUNDED
from conformance.run import Run
from reference.numbers.formats import FORMATS

OF_ANY_SIZE = tuple(
    name for name, operation in OPERATIONS.items() if any(a.is_of_any_size for a in operation.arguments)
)
OF_LOGARITHMS = tuple(
    name for name, operation in OPERATIONS.items() if any(a.domain == "logprob" for a in operation.arguments)
)
SCALES = {"float16": (2.0**4, 2.0**-4)}
"""Factors by which ordinary numbers become large or small, where a dtype has no room for the usual ones."""
USUAL_SCALES = (2.0**27, 2.0**-40)


@clauses("contract.scale")
@operations(*OF_ANY_SIZE)
def test_numbers_of_any_size(run: Run) -> None:
    """Rewards, values, advantages and scores of 1e8 and 1e-12, all alike, in value and gradient."""
    plain = run.ordinary().with_options(**BOUNDED.get(run.operation, {}))
    run.at(
        partial(_holds_of, run), *(_scaled(plain, factor) for factor in SCALES.get(run.dtype, USUAL_SCALES))
    )


@clauses("contract.scale")
@operations(*OF_LOGARITHMS)
def test_logarithms_of_densities(run: Run) -> None:
    """Log-probabilities above 0, as of continuous actions, and far below: their differences count."""
    run.at(partial(_holds_of, run), *(_moved(run.ordinary(), distance) for distance in (3.0, -2500.0)))


@clauses("contract.scale")
@operations("sequence_logprobs", "implicit_rewards")
def test_logarithms_of_nothing(run: Run) -> None:
    """A token, or a response, that the policy can not produce: -∞, and so is what is added up with it."""
    plain = run.ordinary()
    name, logarithms = next(iter(plain.arguments.items()))
    impossible = logarithms.copy()
    impossible[0, ...] = -np.inf
    run.at(run.conforms_there, plain.with_arguments(**{name: impossible}))


def _holds_of(run: Run, case: Case) -> None:
    """A call is right there, and so are its gradients, where it has any."""
    run.conforms_there(case)
    if OPERATIONS[case.operation].differentiable:
        run.differentiates(case)


def _moved(case: Case, distance: float) -> Case:
    """The call with all log-probabilities further up, or down."""
    logarithms = [a.name for a in OPERATIONS[case.operation].arguments if a.domain == "logprob"]
    round_to = FORMATS[case.dtype].round
    return case.with_arguments(**{name: round_to(case.arguments[name] + distance) for name in logarithms})


def _scaled(case: Case, factor: float) -> Case:
    """The call with all such numbers times a factor, a power of two."""
    numbers = (a.name for a in OPERATIONS[case.operation].arguments if a.is_of_any_size)
    return case.with_arguments(**{name: factor * case.arguments[name] for name in numbers})
