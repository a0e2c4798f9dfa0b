"""The piece of a piecewise expression that holds at a point, with its symbols left in it.

What a derivation shows of a piece holds in the whole cell around the point: wherever the conditions come
out as they do there.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy
from sympy.core.relational import Relational

Point = Mapping[sympy.Symbol, Any]
"""A number for each symbol that a condition may hold."""


def piece(x: Any, point: Point) -> Any:
    """Decide every condition and absolute value of an expression, or of an array of them, at a point."""
    return np.frompyfunc(lambda expression: _piece(sympy.sympify(expression), point), 1, 1)(x)


def _piece(expression: sympy.Expr, point: Point) -> sympy.Expr:
    while decided := {x: _decided(x, point) for x in expression.atoms(Relational, sympy.Abs)}:
        expression = expression.xreplace(decided)
    return expression


def _decided(x: Any, point: Point) -> Any:
    if isinstance(x, sympy.Abs):
        return x.args[0] if x.args[0].subs(point) >= 0 else -x.args[0]
    truth = x.subs(point)
    assert truth in (sympy.true, sympy.false), f"{x} is left open at {point}"
    return truth
