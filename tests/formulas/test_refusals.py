"""Every operation refuses a bad argument by its name, in each of its formulas and in `torch_impl`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from conformance.adapters import torch_impl
from conformance.callables import BINDINGS, bind
from conformance.cases import ordinary
from conformance.operations import OPERATIONS
from conformance.protocol import Operation
from tests.formulas.drawing import values_of
from tests.formulas.refusals import (
    OPTIONS,
    Convert,
    assert_options_refused,
    assert_shape_refused,
    strangers,
    wrong_shapes,
)

Formula = tuple[Callable[..., Any], Convert]
DTYPES = {"mask": bool, "ids": int, "tokens": int, "states": int}
"""The dtypes of arguments that are no floats, by their kind."""


def formulas(operation: Operation) -> dict[str, Formula]:
    """All that an operation is written in, each with what makes its arrays of NumPy's."""
    shape = operation.result_shape(ordinary(operation.name, "float64", {}).arguments)
    upstream = np.ones(shape)
    found: dict[str, Formula] = {"torch_impl": (getattr(torch_impl, operation.name), torch.from_numpy)}
    for function in (operation.reference, *operation.forms):
        found[function.__name__] = (function, np.asarray)
    if operation.gradient is not None:
        gradient = operation.gradient
        found[gradient.__name__] = (lambda *a, **o: gradient(upstream, *a, **o), np.asarray)
    return found


FORMULAS = [
    pytest.param(operation, *formula, id=f"{operation.name}-{name}")
    for operation in OPERATIONS.values()
    for name, formula in formulas(operation).items()
]
every_formula = pytest.mark.parametrize(("operation", "function", "convert"), FORMULAS)
every_formula_of_arrays = pytest.mark.parametrize(
    ("operation", "function", "convert"),
    [p for p in FORMULAS if isinstance(p.values[0], Operation) and p.values[0].name not in BINDINGS],
)


def call(operation: Operation, function: Any, convert: Convert, change: Any = None, **options: Any) -> Any:
    """Call a formula with good arguments, but for what is changed."""
    case = ordinary(operation.name, "float64", {})
    arrays = {name: x if x is None else convert(x) for name, x in case.arguments.items()}
    given = bind(operation.name, tuple({**arrays, **(change or {})}.values()))
    return function(*given, **{**case.options, **options})


@every_formula
def test_good_arguments_are_accepted(operation: Operation, function: Any, convert: Convert) -> None:
    """Without this, refusing everything would pass."""
    call(operation, function, convert)
    for name in operation.options:
        for value in (*values_of(operation.name, name), *OPTIONS[name].edges):
            call(operation, function, convert, **{name: value})


@every_formula_of_arrays
def test_lists_are_arrays_to_the_reference(operation: Operation, function: Any, convert: Convert) -> None:
    if convert is np.asarray:
        listed = call(operation, function, lambda x: x.tolist())
        assert np.array_equal(_all(listed), _all(call(operation, function, convert)))


def _all(result: Any) -> np.ndarray:
    """All numbers of a result, or of several."""
    parts = result.values() if isinstance(result, dict) else result if isinstance(result, tuple) else [result]
    return np.concatenate([np.ravel(part) for part in parts])


@every_formula
def test_bad_options(operation: Operation, function: Any, convert: Convert) -> None:
    for name in operation.options:

        def given(value: Any, name: str = name) -> Any:
            return call(operation, function, convert, **{name: value})

        optional = None in values_of(operation.name, name)
        assert_options_refused(name, given, OPTIONS[name], optional=optional)


@every_formula_of_arrays
def test_arrays_of_another_shape(operation: Operation, function: Any, convert: Convert) -> None:
    """Nothing is broadcast; of two arrays that disagree, either may be thought the right one."""
    sizes = operation.dimensions(ordinary(operation.name, "float64", {}).arguments)
    dtypes = {argument.name: DTYPES.get(argument.kind, float) for argument in operation.arguments}
    for name, shape in wrong_shapes({a.name: a.shape for a in operation.arguments}, sizes):
        wrong = convert(np.ones(shape, dtype=dtypes[name]))
        assert_shape_refused(name, partial(call, operation, function, convert, {name: wrong}))


@every_formula_of_arrays
def test_arrays_of_something_else(operation: Operation, function: Any, convert: Convert) -> None:
    sizes = operation.dimensions(ordinary(operation.name, "float64", {}).arguments)
    for argument in operation.arguments:
        shape = tuple(sizes[letter] for letter in argument.shape)
        none = [] if argument.kind == "optional" else [None]
        for stranger in [*strangers(DTYPES.get(argument.kind, float), shape, convert), *none]:
            with pytest.raises(ValueError, match=f"^{argument.name} must be "):
                call(operation, function, convert, {argument.name: stranger})
