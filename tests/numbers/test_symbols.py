"""Functions on symbols say what the functions on floats and balls compute."""

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import sympy
from hypothesis import given

from reference import numbers
from reference.numbers import balls, symbols
from reference.numbers.formats import FORMATS
from tests.examples import examples
from tests.numbers.enclosure import encloses

FLOAT64_ROUNDOFFS = 3.0 + 3.0 + 1.0
"""What log_sigmoid may lose on floats: exp and log1p 1.5 units in the last place each, the sum a roundoff."""

X, Y, Z = sympy.symbols("x y z", real=True)

FORMULAS: dict[str, tuple[Callable[..., Any], float]] = {
    "exp": (lambda x, y, z: numbers.exp(x), -50.0),
    "expm1": (lambda x, y, z: numbers.expm1(x), -50.0),
    "log": (lambda x, y, z: numbers.log(x), 2.0**-30),
    "log1p": (lambda x, y, z: numbers.log1p(x), 2.0**-20 - 1.0),
    "sqrt": (lambda x, y, z: numbers.sqrt(x), 0.0),
    "square": (lambda x, y, z: numbers.square(x), -50.0),
    "absolute": (lambda x, y, z: numbers.absolute(x), -50.0),
    "sigmoid": (lambda x, y, z: numbers.sigmoid(x), -50.0),
    "log_sigmoid": (lambda x, y, z: numbers.log_sigmoid(x), -50.0),
    "maximum": (lambda x, y, z: numbers.maximum(x, y), -50.0),
    "minimum": (lambda x, y, z: numbers.minimum(x, y), -50.0),
    "clip": (lambda x, y, z: numbers.clip(x, y, z), -50.0),
    "clip to constants": (lambda x, y, z: numbers.clip(x, -1.5, 2.0), -50.0),
    "where less": (lambda x, y, z: numbers.where(numbers.less(x, y), z, x), -50.0),
    "where less or equal": (lambda x, y, z: numbers.where(numbers.less_equal(x, y), z, x), -50.0),
    "total": (lambda x, y, z: numbers.total(array(x, y, z)), -50.0),
    "total of products": (lambda x, y, z: numbers.total(array(x * y, -z / 4, x - 1.5)), -50.0),
    "logsumexp": (lambda x, y, z: numbers.logsumexp(array(x, y, z)), -50.0),
    "powers": (lambda x, y, z: numbers.total(numbers.powers(x, 4)), -50.0),
    "arithmetic": (lambda x, y, z: (x + 2.0 * y - 1) * z / (1 + numbers.square(x)) - (0.5 - y), -50.0),
}
"""Formulas of three numbers with the least x for which they are defined."""


def array(*elements: Any) -> Any:
    return np.array(elements, dtype=float if isinstance(elements[0], float) else object)


def value(expression: Any, *point: float) -> Any:
    """A formula at a point: a rational where it is one, else to 60 digits, 12 more than a ball has."""
    at = dict(zip((X, Y, Z), map(rational, point), strict=True))
    exact = sympy.nsimplify(expression, rational=True).subs(at)
    return exact if exact.is_Rational else exact.evalf(60)


def rational(x: float) -> sympy.Rational:
    return sympy.Rational(*x.as_integer_ratio())


@pytest.mark.parametrize("name", FORMULAS)
def test_symbols_agree_with_floats_and_balls(name: str) -> None:
    formula, lowest = FORMULAS[name]
    expression = formula(X, Y, Z)
    assert isinstance(expression, sympy.Expr)
    rounding = balls.Rounding(FORMATS["float64"], FLOAT64_ROUNDOFFS)

    @examples(30)
    @given(st.tuples(*[st.floats(low, 50.0, width=32) for low in (lowest, -50.0, -50.0)]))
    def check(point: tuple[float, ...]) -> None:
        assert encloses(formula(*balls.array(point)), value(expression, *point))
        assert encloses(formula(*balls.array(point, rounding)), float(formula(*map(np.float64, point))))

    check()


@pytest.mark.parametrize(
    ("formula", "pieces"),
    [
        (numbers.maximum(X, Y), [(1, 0), (0, 1)]),
        (numbers.minimum(X, Y), [(0, 1), (1, 0)]),
        (numbers.maximum(Y, X), [(1, 0), (0, 1)]),
        (numbers.maximum(X * Y, Y**2), [(Y, X), (0, 2 * Y)]),
        (numbers.minimum(X**2, X * Y), [(Y, X), (2 * X, 0)]),
    ],
)
def test_derivatives_on_each_piece(formula: Any, pieces: Any) -> None:
    """At x > y and at x < y, for positive x and y, the derivatives with respect to x and to y."""
    for point, derivatives in zip(({X: 3, Y: 2}, {X: 2, Y: 3}), pieces, strict=True):
        for symbol, derivative in zip((X, Y), derivatives, strict=True):
            assert sympy.diff(formula, symbol).subs(point) == sympy.sympify(derivative).subs(point)


def test_derivative_of_a_clip() -> None:
    clipped = numbers.clip(X, -1, 2)
    slopes = [sympy.diff(clipped, X).subs(X, at) for at in (-3, 0, 3)]
    assert slopes == [0, 1, 0]


@pytest.mark.parametrize(
    ("function", "derivative"),
    [
        (numbers.exp, lambda x: sympy.exp(x)),
        (numbers.expm1, lambda x: sympy.exp(x)),
        (numbers.log1p, lambda x: 1 / (1 + x)),
        (numbers.square, lambda x: 2 * x),
        (numbers.absolute, lambda x: sympy.sign(x)),
        (numbers.sigmoid, lambda x: numbers.sigmoid(x) * (1 - numbers.sigmoid(x))),
        (numbers.log_sigmoid, lambda x: 1 - numbers.sigmoid(x)),
    ],
)
def test_derivatives(function: Any, derivative: Any) -> None:
    assert sympy.simplify(sympy.diff(function(X), X) - derivative(X)) == 0


def test_where_is_a_piecewise_and_a_mask_selects() -> None:
    chosen: Any = numbers.where(numbers.less(X, Y), X, Y)
    assert chosen == sympy.Piecewise((X, X < Y), (Y, True))
    pair = symbols.array("a", (2,))
    assert list(numbers.where(np.array([True, False]), pair, pair[::-1])) == [pair[0], pair[0]]


def test_constants_are_exact() -> None:
    assert list(numbers.full((2,), 0.5, like=X)) == [sympy.Rational(1, 2)] * 2
    assert list(numbers.zeros((1,), like=symbols.array("a", (3,)))) == [sympy.Integer(0)]
    assert list(numbers.powers(X, 3)) == [1, X, X**2]
    assert numbers.powers(sympy.Integer(0), 2)[0] == 1


def test_arrays_of_symbols_are_real_and_named_by_their_indices() -> None:
    matrix = symbols.array("r", (2, 3), positive=True)
    assert matrix.shape == (2, 3)
    assert str(matrix[1, 2]) == "r_1_2"
    assert all(symbol.is_real and symbol.is_positive for symbol in matrix.flat)
    assert len(set(matrix.flat)) == matrix.size


def test_conditions_do_not_branch() -> None:
    with pytest.raises(TypeError):
        bool(numbers.less(X, Y))
