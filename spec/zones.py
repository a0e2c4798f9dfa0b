"""Pieces of an expression: a zone says where some symbols lie, and so which side of every condition holds."""

from typing import Any

import numpy as np
import sympy
from sympy.core.relational import Relational

Zone = dict[sympy.Expr, Any]
"""Symbols, each with an expression in positive symbols that places it in the zone."""


def decided(expression: Any, zone: Zone) -> Any:
    """The piece of an expression, or of an array of them, that holds in a zone; its own symbols stay.

    Inside the zone the piece equals the expression, and so do their derivatives. No condition that matters
    may stay open.
    """
    if isinstance(expression, np.ndarray):
        return np.frompyfunc(lambda x: decided(x, zone), 1, 1)(expression)
    piece = sympy.sympify(expression).replace(
        lambda part: isinstance(part, Relational), lambda relation: _truth(relation, zone)
    )
    assert not piece.has(Relational), f"the zone leaves {piece.atoms(Relational)} open"
    return piece


def gradient(expression: Any, symbols: Any) -> Any:
    """The derivatives of an expression in an array of symbols."""
    return np.frompyfunc(lambda symbol: sympy.diff(expression, symbol), 1, 1)(symbols)


def _truth(relation: Any, zone: Zone) -> Any:
    """Decide a relation by the sign of the difference, expanded over the zone's positive symbols."""
    left, right = (side.subs(zone, simultaneous=True) for side in (relation.lhs, relation.rhs))
    truth = relation.func(sympy.expand(left - right), 0)
    return truth if truth in (sympy.true, sympy.false) else relation
