"""Derivations: functions that run the reference on symbols and assert what a clause claims.

Every derivation says how far it goes:

===========================  ========================================================================
``proved``                   for every size: algebra or induction on the expressions that the
                             reference returns, and the reference itself checked on small sizes
``verified for n <= N``      the reference, on symbols, at every size up to N
``witnessed``                on numbers: an example, which is all that an existence claim needs
===========================  ========================================================================
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

Numbers = dict[str, Any]
"""The numbers that a page's prose quotes, each under a label that says what it is."""

Proof = Callable[[], Numbers | None]


@dataclass(frozen=True)
class Derivation:
    """One registered derivation."""

    name: str
    slug: str
    status: str
    run: Proof


REGISTERED: dict[str, Derivation] = {}


def derivation(slug: str, *, status: str) -> Callable[[Proof], Proof]:
    """Register a derivation of the clause `slug`; the clause's page has to name it, with this status."""

    def register(proof: Proof) -> Proof:
        name = f"{proof.__module__}.{proof.__qualname__}"
        REGISTERED[name] = Derivation(name, slug, status, proof)
        return proof

    return register


def agree(left: Any, right: Any) -> None:
    """Assert that two expressions, or two arrays of them, are equal for all values of their symbols."""
    left, right = np.asarray(left, dtype=object), np.asarray(right, dtype=object)
    assert left.shape == right.shape, f"shapes {left.shape} and {right.shape}"
    for index in np.ndindex(left.shape):
        difference = sympy.expand(left[index] - right[index])
        if difference != 0:
            difference = sympy.simplify(difference)
        assert difference == 0, f"differ by {difference} at {index}"
