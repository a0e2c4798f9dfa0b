"""What a backend cannot be called with: the option values that it declares, the arguments that it lacks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from conformance.callables import bind
from conformance.cases import Case, ordinary
from conformance.operations import OPERATIONS


def unknown_value(options: Mapping[str, Mapping[str, tuple[Any, ...]]]) -> str:
    """Say which of the declared values of options the protocol does not have; "" if it has them all.

    Each is tried alone, in an ordinary call of the reference: those of two options need not go together.
    """
    for operation, declared in options.items():
        plain = ordinary(operation, "float64", {})
        for name, values in declared.items():
            for value in values:
                if expected := _refusal(plain.with_options(**{name: value})):
                    what = f"its options give {operation}.{name} the value {value!r}"
                    return f"{what}, which the protocol does not have: {expected}"
    return ""


def without_place(places: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Tell the arguments that calls can leave out, and that functions with so many places do not take."""
    found = {}
    for operation, count in places.items():
        lacking = OPERATIONS[operation].arguments[count:]
        if lacking and all(argument.kind == "optional" for argument in lacking):
            found[operation] = tuple(argument.name for argument in lacking)
    return found


def _refusal(case: Case) -> str:
    """What the reference expects in the place of what it refuses; "" if it refuses nothing."""
    arguments = bind(case.operation, tuple(case.arguments.values()))
    try:
        with np.errstate(all="ignore"):
            OPERATIONS[case.operation].reference(*arguments, **case.options)
    except ValueError as error:
        return str(error).rpartition(", got ")[0] or str(error)
    return ""
