"""The backend protocol: the operations, their arguments, options and results.

Names, positions and meanings are fixed. B is the batch, T the response length. Every array argument of
kind "real" may hold anything at masked positions, and outputs there are unspecified.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reference import gae

REQUIRED = object()
"""Default of an option that every call gives."""


@dataclass(frozen=True)
class Argument:
    """One array argument: its shape in the letters of the protocol, and what it holds."""

    name: str
    shape: tuple[str, ...]
    kind: str = "real"
    """"real", or "mask" (boolean, True at tokens that take part)."""


@dataclass(frozen=True)
class Operation:
    """One operation of the protocol, with the reference function that says what it means."""

    name: str
    arguments: tuple[Argument, ...]
    options: dict[str, Any]
    """Keyword-only options with their defaults; REQUIRED where there is none."""
    reference: Callable[..., Any]
    forms: tuple[Callable[..., Any], ...] = ()
    """Other formulas of the reference that the spec proves equal: a backend may follow any of them."""
    result: tuple[str, ...] = ("B", "T")
    constant: bool = False
    """True when no gradient may flow through the result."""
    row_wise: bool = field(default=True)
    """True when each row's result depends on that row alone."""

    def dimensions(self, arguments: dict[str, np.ndarray]) -> dict[str, int]:
        """Read B, T ... off the arguments of a call."""
        sizes: dict[str, int] = {}
        for argument in self.arguments:
            sizes.update(zip(argument.shape, arguments[argument.name].shape, strict=True))
        return sizes

    def result_shape(self, arguments: dict[str, np.ndarray]) -> tuple[int, ...]:
        """Tell the shape of the result of a call."""
        sizes = self.dimensions(arguments)
        return tuple(sizes[letter] for letter in self.result)


_MASK = Argument("mask", ("B", "T"), "mask")
_BOOTSTRAP = Argument("bootstrap_value", ("B",))
_ROWS = (Argument("rewards", ("B", "T")), Argument("values", ("B", "T")), _MASK, _BOOTSTRAP)
_GAE_OPTIONS = {"gamma": REQUIRED, "lam": REQUIRED, "masked": "skip"}

OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("td_errors", _ROWS, {"gamma": REQUIRED}, gae.td_errors),
        Operation(
            "n_step_advantages",
            _ROWS,
            {"gamma": REQUIRED, "n": REQUIRED},
            gae.n_step_advantages,
            forms=(gae.telescoped_advantages,),
        ),
        Operation("gae", _ROWS, _GAE_OPTIONS, gae.gae, constant=True),
        Operation("lambda_returns", _ROWS, _GAE_OPTIONS, gae.lambda_returns, constant=True),
        Operation(
            "discounted_returns",
            (Argument("rewards", ("B", "T")), _MASK, _BOOTSTRAP),
            {"gamma": REQUIRED},
            gae.discounted_returns,
        ),
        Operation(
            "whiten",
            (Argument("x", ("B", "T")), _MASK),
            {"shift_mean": True, "ddof": 1, "eps": 1e-8},
            gae.whiten,
            row_wise=False,
        ),
    )
}
