"""What tests of relations between calls begin with: groups of operations, and gradients that are right."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from conformance.backend import Limited
from conformance.cases import Case, ordinary
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, judged, permitted_gradients
from conformance.run import Run, Unclear
from conformance.values import consistent, option_values, reads

FEW_TOKENS = 7
"""Rows of a relation between calls, where length adds nothing."""


def having(*wanted: str) -> tuple[str, ...]:
    """The operations that have arguments of these kinds or shapes in the protocol."""
    traits = {
        name: {a.kind for a in operation.arguments} | {"".join(a.shape) for a in operation.arguments}
        for name, operation in OPERATIONS.items()
    }
    return tuple(name for name, found in traits.items() if found.intersection(wanted))


BATCHED = having("BT", "B", "N", "BTV")
"""The operations that take a batch."""
BOUNDED = {"conjugate_gradient": {"max_iters": 1}, "trust_region_step": {"cg_iters": 1}}
"""Options with which the answers of few bits are decided."""
IN_ORDER = ("train_step",)
"""The operations in which the order of rows says what belongs together."""


def conforms_and_differentiates_there(
    run: Run,
    changed: Callable[[Case], Case] = lambda case: case,
    with_slopes: Callable[[Case], Case] = lambda case: case,
) -> Callable[[Case], None]:
    """As `conforms_there`, gradients included, where the backend offers them and ordinary ones are right."""
    plain = ordinary(run.operation, run.dtype, run.backend.limits(run.operation))
    differentiable = bool(right_gradients(run, plain, run.upstream(plain)))

    def check(case: Case) -> None:
        case = changed(case)
        run.conforms_there(case)
        if differentiable:
            run.differentiates(with_slopes(case))

    return check


def with_each_value(run: Run, case: Case) -> Iterator[Case]:
    """The call with one option at each of its values, the others as they are; as it is, where it has none."""
    limits, operation = run.backend.limits(run.operation), run.operation
    tables = {
        name: limits.get(name, option_values(operation, name))
        for name in case.options
        if reads(operation, case.options, name)
    }
    options = [case.options | {name: value} for name, values in tables.items() for value in values]
    for given in {repr(one): one for one in [case.options, *options]}.values():
        yield replace(case, options=consistent(operation, given, case.arguments))


def right_gradients(run: Run, case: Case, upstream: np.ndarray) -> dict[str, Permitted]:
    """The permitted gradients of a call, of the arguments where the backend's are right by themselves."""
    got = gradients(run, case, list(OPERATIONS[case.operation].differentiable), upstream)
    allowed = permitted_gradients(case, upstream) if got else {}
    return {name: slopes for name, slopes in allowed.items() if is_right(case, got[name], slopes)}


def is_right(case: Case, got: np.ndarray, allowed: Permitted) -> bool:
    """Whether an answer is permitted, so that another way to it can be judged."""
    return not any(allowed.distance(i, float(got[i])) > 1.0 for i in judged(case, got))


def base_gradients(run: Run, case: Case, upstream: np.ndarray) -> dict[str, Permitted]:
    """As `right_gradients`, of one at least: Limited where the backend offers none, else Unclear."""
    if slopes := right_gradients(run, case, upstream):
        return slopes
    run.gradients(case, list(OPERATIONS[case.operation].differentiable), upstream)
    raise Unclear


def gradients(run: Run, case: Case, names: list[str], upstream: np.ndarray) -> dict[str, np.ndarray]:
    """The backend's gradients; none where it offers none."""
    with contextlib.suppress(Limited):
        return run.gradients(case, names, upstream) if names else {}
    return {}


def same_bits(x: float, y: float) -> bool:
    """Whether two numbers are equal, or both NaN."""
    return bool(x == y or (x != x and y != y))
