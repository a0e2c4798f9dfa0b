"""Rows of symbols, and the two devices by which a derivation speaks of every length."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import sympy

from reference import gae
from reference.numbers import symbols

GAMMA, LAM = sympy.symbols("gamma lambda", real=True)
K = sympy.Symbol("k", integer=True, nonnegative=True)
REWARD, VALUE = sympy.Function("r"), sympy.Function("V")
LONGEST = 5
"""Rows of symbols are tried up to this length."""

ZERO, ONE, HALF = sympy.Integer(0), sympy.Integer(1), sympy.Rational(1, 2)


class Rows(NamedTuple):
    """What the functions of :mod:`reference.gae` take, in their order."""

    rewards: Any
    values: Any
    mask: Any
    bootstrap_value: Any


OPERATIONS: dict[str, Callable[[Rows], Any]] = {
    "td_errors": lambda x: gae.td_errors(*x, gamma=GAMMA),
    "n_step_advantages": lambda x: gae.n_step_advantages(*x, gamma=GAMMA, n=2),
    "gae": lambda x: gae.gae(*x, gamma=GAMMA, lam=LAM),
    "lambda_returns": lambda x: gae.lambda_returns(*x, gamma=GAMMA, lam=LAM),
    "discounted_returns": lambda x: gae.discounted_returns(x.rewards, x.mask, x.bootstrap_value, gamma=GAMMA),
    "whiten": lambda x: gae.whiten(x.rewards, x.mask),
}
"""Every operation that takes a mask, on the arguments of all of them."""

ZEROING: dict[str, Callable[[Rows], Any]] = {
    "gae": lambda x: gae.gae(*x, gamma=GAMMA, lam=LAM, masked="zero"),
    "lambda_returns": lambda x: gae.lambda_returns(*x, gamma=GAMMA, lam=LAM, masked="zero"),
}
"""The operations that can also leave the holes of a mask in place."""


def row(length: int, mask: Any = None) -> Rows:
    """One row of symbols; every token is active unless a mask says otherwise."""
    mask = np.ones((1, length), dtype=bool) if mask is None else np.array([mask], dtype=bool)
    rewards, values = (symbols.array(name, (1, length)) for name in ("r", "V"))
    return Rows(rewards, values, mask, symbols.array("b", (1,)))


def first_step_and_tail() -> tuple[Rows, sympy.Symbol]:
    """A step, and one token that stands for all that follows: its reward is G, so its return is G too."""
    steps, target = row(2), sympy.Symbol("G", real=True)
    steps.rewards[0, 1], steps.bootstrap_value[0] = target, ZERO
    return steps, target


def td_error_at(time: Any) -> Any:
    """The reference's TD error at a symbolic time."""
    arrays = ([[REWARD(time)]], [[VALUE(time)]], [VALUE(time + 1)])
    rewards, values, bootstrap = (np.array(x, dtype=object) for x in arrays)
    return gae.td_errors(rewards, values, np.array([[True]]), bootstrap, gamma=GAMMA)[0, 0]


def discounted(terms: Any, discount: Any) -> Any:
    """Σ_l discount^l terms_l, written out."""
    return sum((discount**k * term for k, term in enumerate(terms)), ZERO)


def renamed(x: Any) -> Any:
    """The same array with other symbols; masks and constants stay."""
    if x.dtype == bool:
        return x
    rename = np.frompyfunc(lambda s: sympy.Symbol(f"{s}'", real=True) if s.is_Symbol else s, 1, 1)
    return rename(x)
