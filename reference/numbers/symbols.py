"""The number system of SymPy expressions: a formula that runs on symbols is its own statement."""

from typing import Any

import numpy as np
import sympy

exp, log, sqrt, absolute = sympy.exp, sympy.log, sympy.sqrt, sympy.Abs
less, less_equal = sympy.Lt, sympy.Le


def number(value: float, _like: Any) -> sympy.Expr:
    """Turn a constant into an exact number of this system."""
    return sympy.nsimplify(value, rational=True)


def expm1(x: sympy.Expr) -> sympy.Expr:
    """exp(x) - 1."""
    return sympy.exp(x) - 1


def log1p(x: sympy.Expr) -> sympy.Expr:
    """log(1 + x)."""
    return sympy.log(1 + x)


def square(x: sympy.Expr) -> sympy.Expr:
    """x squared."""
    return x**2


def sigmoid(x: sympy.Expr) -> sympy.Expr:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + sympy.exp(-x))


def log_sigmoid(x: sympy.Expr) -> sympy.Expr:
    """log(1 / (1 + exp(-x)))."""
    return -sympy.log(1 + sympy.exp(-x))


def maximum(x: sympy.Expr, y: sympy.Expr) -> sympy.Expr:
    """The larger of the two, piece by piece, so that a derivative is taken on each piece."""
    return where(sympy.Ge(x, y), x, y)


def minimum(x: sympy.Expr, y: sympy.Expr) -> sympy.Expr:
    """The smaller of the two, piece by piece, so that a derivative is taken on each piece."""
    return where(sympy.Le(x, y), x, y)


def where(condition: Any, x: sympy.Expr, y: sympy.Expr) -> sympy.Expr:
    """A Piecewise of both sides."""
    return sympy.Piecewise((x, condition), (y, True))


def kink(x: sympy.Expr, y: sympy.Expr, below: sympy.Expr, above: sympy.Expr) -> sympy.Expr:
    """A Piecewise of both sides, with the tie below."""
    return where(sympy.Le(x, y), below, above)


def total(terms: list[sympy.Expr]) -> sympy.Expr:
    """The sum of a list."""
    return sympy.Add(*terms)


def array(name: str, shape: tuple[int, ...], **assumptions: bool) -> Any:
    """An array of real symbols name_i_j (`array("r", (1, 3))[0, 2]` is r_0_2)."""
    result = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        label = "_".join([name, *map(str, index)])
        result[index] = sympy.Symbol(label, real=True, **assumptions)
    return result
