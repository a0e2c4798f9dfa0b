"""One text on four number systems: which system a call takes, and that each has every function."""

import doctest
import inspect
import pkgutil
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import sympy

import reference
from reference import gae, numbers
from reference.numbers import balls, dyadics, floats, symbols

SYSTEMS: dict[str, tuple[ModuleType, type]] = {
    "floats": (floats, np.floating),
    "balls": (balls, balls.Ball),
    "dyadics": (dyadics, dyadics.Dyadic),
    "symbols": (symbols, sympy.Expr),
}
"""Each number system with the type of its elements."""

every_system = pytest.mark.parametrize("name", SYSTEMS)

ELEMENTARY = {
    name: function
    for name, function in inspect.getmembers(numbers, inspect.isfunction)
    if not name.startswith("_") and "_elementwise(" in inspect.getsource(function)
}
"""The public functions that hand their elements to the number system."""

MODULES = [module.name for module in pkgutil.walk_packages(reference.__path__, "reference.")]


def in_system(x: Any, name: str) -> Any:
    """Put plain numbers, one or an array of them, into a number system."""
    element: Any = balls.array if name == "balls" else SYSTEMS[name][0].number
    if np.ndim(x) == 0:
        return np.float64(x) if name == "floats" else element(x, None)
    values = np.asarray(x, dtype=np.float64)
    return values if name == "floats" else np.frompyfunc(lambda v: element(float(v), None), 1, 1)(values)


def is_exactly(result: Any, expected: Any, name: str) -> bool:
    """Whether a result is of a number system throughout, and exactly what is expected."""
    elements = np.asarray(result, dtype=None if name == "floats" else object)
    if elements.shape != np.shape(expected):
        return False
    kind = all(isinstance(element, SYSTEMS[name][1]) for element in elements.flat)
    pairs = zip(elements.flat, np.ravel(expected), strict=True)
    return kind and all(_value(element) == value for element, value in pairs)


def _value(element: Any) -> Any:
    if isinstance(element, balls.Ball):
        return float(element.value) if element.value.is_exact() else None
    return element.value if isinstance(element, dyadics.Dyadic) else float(element)


@every_system
def test_system_is_that_of_the_elements(name: str) -> None:
    system, _ = SYSTEMS[name]
    number = in_system(0.5, name)
    for operand in (number, in_system([0.5, 2.0], name), in_system([[0.5]], name)):
        assert numbers.system_of(operand) is system
        assert numbers.system_of(1.0, np.zeros(3), operand) is system
        assert numbers.system_of(operand, 1, np.array([True])) is system


def test_what_is_nothing_else_is_floats() -> None:
    for operand in (1, 1.0, True, None, "x", np.float32(1), np.ones((2, 2)), [balls.array(1.0)]):
        assert numbers.system_of(operand) is floats
    assert numbers.system_of() is floats
    assert numbers.system_of(np.empty((0, 3), dtype=object)) is floats
    assert numbers.system_of(sympy.Symbol("x") < 1) is symbols
    assert numbers.system_of(balls.array(1.0), sympy.Symbol("x")) is balls


@pytest.mark.parametrize("function", ELEMENTARY)
@every_system
def test_every_function_in_every_system(name: str, function: str) -> None:
    system, element_type = SYSTEMS[name]
    assert callable(getattr(system, function))
    count = len(inspect.signature(ELEMENTARY[function]).parameters)
    operands = [in_system([1.0, 0.25], name) for _ in range(count)]
    if function == "where":
        operands[0] = np.array([True, False], dtype=object if name != "floats" else bool)
    result = np.asarray(ELEMENTARY[function](*operands))
    assert result.shape == (2,)
    truths = (bool, np.bool_, dyadics.Decision, sympy.logic.boolalg.Boolean)
    expected = truths if function.startswith("less") else element_type
    assert all(isinstance(element, expected) for element in result)


def test_the_functions_that_every_system_needs() -> None:
    assert {"exp", "log", "sqrt", "maximum", "minimum", "less", "less_equal", "where"} <= set(ELEMENTARY)
    for name, (system, _) in SYSTEMS.items():
        assert callable(system.number)
        assert name == "floats" or callable(system.total)


@every_system
@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (0, 3)])
def test_full_and_zeros(name: str, shape: tuple[int, ...]) -> None:
    for like in (in_system(2.0, name), in_system([2.0, 3.0], name)):
        assert is_exactly(numbers.full(shape, -1.5, like), np.full(shape, -1.5), name)
        assert is_exactly(numbers.zeros(shape, like), np.zeros(shape), name)


@every_system
def test_powers(name: str) -> None:
    assert is_exactly(numbers.powers(in_system(-0.5, name), 4), [1.0, -0.5, 0.25, -0.125], name)
    assert is_exactly(numbers.powers(in_system(0.0, name), 3), [1.0, 0.0, 0.0], name)
    assert numbers.powers(in_system(0.5, name), 0).shape == (0,)


@every_system
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -3])
def test_total(name: str, axis: int | None) -> None:
    x = np.arange(24.0).reshape(2, 3, 4) - 5.5
    assert is_exactly(numbers.total(in_system(x, name), axis=axis), x.sum(axis=axis), name)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_total_of_nothing_is_zero(shape: tuple[int, ...]) -> None:
    for dtype in (float, object):
        nothing = np.empty(shape, dtype=dtype)
        assert numbers.total(nothing) == 0
        for axis in range(len(shape)):
            assert np.array_equal(numbers.total(nothing, axis=axis), np.empty(shape).sum(axis=axis))


@every_system
def test_plain_numbers_join_the_system_of_the_others(name: str) -> None:
    x = in_system([-1.0, 2.0], name)
    assert is_exactly(numbers.maximum(x, 0.5), [0.5, 2.0], name)
    assert is_exactly(numbers.minimum(np.array([1.0, 1.0]), x), [-1.0, 1.0], name)
    assert is_exactly(numbers.clip(x, in_system(-0.5, name), in_system(0.5, name)), [-0.5, 0.5], name)
    assert is_exactly(numbers.clip(x, in_system([-2.0, 4.0], name), 8.0), [-1.0, 4.0], name)


@every_system
def test_masks_select_and_broadcast(name: str) -> None:
    x = in_system([[1.0, 2.0], [3.0, 4.0]], name)
    mask = np.array([[True], [False]])
    assert is_exactly(numbers.where(mask, x, -x), [[1.0, 2.0], [-3.0, -4.0]], name)
    decided = numbers.less(x, in_system(2.5, name))
    assert is_exactly(numbers.where(decided, x, -x), [[1.0, 2.0], [-3.0, -4.0]], name)


def test_floats_are_stable_in_the_tails() -> None:
    x = np.array([-np.inf, -800.0, 0.0, 800.0, np.inf])
    assert np.array_equal(numbers.sigmoid(x), [0.0, 0.0, 0.5, 1.0, 1.0])
    assert np.array_equal(numbers.log_sigmoid(x), [-np.inf, -800.0, -np.log(2.0), 0.0, 0.0])
    assert numbers.logsumexp(np.array([-np.inf, 1000.0, 1000.0])) == 1000.0 + np.log(2.0)


def test_logsumexp_along_an_axis() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    certified: Any = numbers.logsumexp(balls.array(x), axis=1)
    assert certified.shape == (2, 4)
    for i, j in np.ndindex(2, 4):
        alone: Any = numbers.logsumexp(balls.array(x[i, :, j]))
        assert alone.value.overlaps(certified[i, j].value)


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module: str) -> None:
    assert doctest.testmod(import_module(module)).failed == 0


def test_every_formula_has_an_example() -> None:
    found = {test.name: test for test in doctest.DocTestFinder().find(gae)}
    for name, function in vars(gae).items():
        if inspect.isfunction(function) and not name.startswith("_"):
            assert found[f"reference.gae.{name}"].examples, name
