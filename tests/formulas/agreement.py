"""Whether reference and second definition agree on a call: decided by enclosure, without a tolerance.

The reference runs on certified balls, so that its result is an interval that holds the formula's exact
value. The second definition runs on single numbers, in rationals and in mpmath at 80 digits, and what it
gives has to lie in that interval. So have its derivatives, in what the reference's gradient gives on the
same balls. And what the reference gives on floats has to lie in balls whose every operation rounds as
float64 does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np

from conformance.callables import bind
from conformance.cases import Case
from conformance.operations import OPERATIONS
from conformance.oracle import FACTOR
from conformance.protocol import Operation
from reference.numbers import balls
from reference.numbers.formats import FORMATS
from tests.formulas import (
    scalar_gae,
    scalar_group,
    scalar_importance_sampling,
    scalar_kl,
    scalar_policy_loss,
    scalar_preference,
    scalar_reward,
    scalar_training,
    scalar_trust_region,
    scalar_value_loss,
)
from tests.formulas.drawing import Call
from tests.formulas.scalars import Number, Slopes, sides, total
from tests.numbers.enclosure import DIGITS, encloses, is_bounded

CHAPTERS = {
    "gae": scalar_gae,
    "importance_sampling": scalar_importance_sampling,
    "kl": scalar_kl,
    "policy_loss": scalar_policy_loss,
    "value_loss": scalar_value_loss,
    "reward": scalar_reward,
    "preference": scalar_preference,
    "group": scalar_group,
    "trust_region": scalar_trust_region,
    "training": scalar_training,
}
"""The second definitions by chapter."""

FLOAT64 = FORMATS["float64"]
ROUNDING = balls.Rounding(FLOAT64, FACTOR)


@dataclass(frozen=True)
class Second:
    """What the second definition says of a call."""

    result: np.ndarray
    """Numbers, infinities as floats, None at positions that mean nothing."""
    slopes: list[Slopes]
    """The derivatives of Σ upstream · result; two sets where the sides of a bound meet."""

    def in_input(self, name: str, index: tuple[int, ...]) -> list[Any]:
        """The derivatives in one input: none where the finite results do not depend on it."""
        return [
            slopes.get((name, index), Fraction(0))
            for slopes in self.slopes
            if any((name, index) in side for side in self.slopes)
        ]

    def unsettled(self, index: tuple[int, ...]) -> bool:
        """Whether a position of an argument belongs to an infinite result, which has no derivative."""
        place = index[: self.result.ndim]
        return len(place) == self.result.ndim and isinstance(self.result[place], float)


def second(operation: Operation, definition: Callable[..., Any], call: Call) -> Second:
    """Run a second definition on a call."""
    arguments, mask = call.case.arguments, call.case.arguments.get("mask")
    options = {name: Fraction(x) if type(x) is float else x for name, x in call.case.options.items()}
    masks = {a.name: mask if a.shape == ("B", "T") else None for a in operation.arguments}
    lists = [
        _as_list(x, name if name in operation.differentiable else "", masks[name])
        for name, x in arguments.items()
    ]

    with mpmath.workdps(DIGITS):
        shape = operation.result_shape(arguments)
        found = sides(lambda: _as_array(definition(*lists, **options), shape))
        slopes = [_slopes(result, call.upstream) for result in found if operation.differentiable]
    values = [x.value if isinstance(x, Number) else x for x in found[0].flat]
    result = np.empty(shape, dtype=object)
    result.flat[:] = values
    return Second(result, slopes)


def _slopes(result: np.ndarray, upstream: np.ndarray) -> Slopes:
    """The derivatives of Σ upstream · result, infinite results left out."""
    finite = [(i, x) for i, x in np.ndenumerate(result) if not isinstance(x, float)]
    return total(x * Fraction(float(upstream[i])) for i, x in finite).slopes


def agrees(operation: Operation, definition: Callable[..., Any], call: Call) -> bool:
    """Whether all formulas of an operation give what the second definition says, and so does its gradient."""
    said = second(operation, definition, call)
    formulas = (operation.reference, *operation.forms)
    return all(_holds(call, formula, said) for formula in formulas) and _gradients_hold(operation, call, said)


def _holds(call: Call, formula: Callable[..., Any], said: Second) -> bool:
    """Whether certified balls hold what was said, and rounding balls what floats give.

    Positions that mean nothing are to be 0; where the result is infinite, balls are unbounded.
    """
    [certified] = _run(call.case, formula, balls.array)
    return all(
        _is_said(certified[index], said.result[index]) for index in np.ndindex(certified.shape)
    ) and _floats_hold(call, formula)


def _is_said(ball: Any, expected: Any) -> bool:
    if expected is None:
        return bool(ball.value.is_zero())
    return not is_bounded(ball) if isinstance(expected, float) else encloses(ball, expected)


def _gradients_hold(operation: Operation, call: Call, said: Second) -> bool:
    if operation.gradient is None:
        return True
    found = _run(call.case, operation.gradient, balls.array, call.upstream)
    return all(
        _is_derivative(certified[index], said.in_input(name, index))
        for name, certified in zip(operation.differentiable, found, strict=True)
        for index in np.ndindex(certified.shape)
        if not said.unsettled(index)
    ) and _floats_hold(call, operation.gradient, call.upstream)


def _is_derivative(ball: Any, slopes: list[Any]) -> bool:
    return all(encloses(ball, x) for x in slopes) if slopes else bool(ball.value.is_zero())


def _floats_hold(call: Call, formula: Callable[..., Any], *before: np.ndarray) -> bool:
    """Whether balls whose every operation rounds hold what floats give; an unbounded one decides nothing."""
    if not call.in_floats:
        return True
    permitted = _run(call.case, formula, _rounded, *before)
    with np.errstate(invalid="ignore"):  # 0 · ∞ where a divergence is infinite
        got = _run(call.case, formula, lambda x: x, *before)
    return all(
        not is_bounded(ball) or encloses(ball, float(x))
        for permitted_one, got_one in zip(permitted, got, strict=True)
        for ball, x in zip(permitted_one.flat, got_one.flat, strict=True)
    )


def _rounded(x: Any) -> Any:
    return balls.array(x, ROUNDING, 2 * FLOAT64.unit_roundoff)


def _run(case: Case, formula: Callable[..., Any], convert: Callable[[Any], Any], *before: Any) -> list[Any]:
    """Each result of a formula, its numbers converted."""
    held = [convert(x) if _is_real(x) else x for x in case.arguments.values()]
    options = {name: convert(x) if type(x) is float else x for name, x in case.options.items()}
    result = formula(*map(convert, before), *bind(case.operation, tuple(held)), **options)
    if isinstance(result, dict):
        result = [[result[key] for key in OPERATIONS[case.operation].keys]]
    return [np.asarray(x) for x in (result if isinstance(result, list | tuple) else [result])]


def _is_real(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype == np.float64


def _as_list(x: Any, name: str, mask: Any, index: tuple[int, ...] = ()) -> Any:
    """An array as nested lists of exact numbers, with derivatives under a name; None where it is masked."""
    if x is None:
        return None
    if index and x.ndim == len(index):
        return _exact(x, name, mask, index)
    return [_as_list(x, name, mask, (*index, k)) for k in range(x.shape[len(index)])]


def _exact(x: np.ndarray, name: str, mask: Any, index: tuple[int, ...]) -> Any:
    if not _is_real(x):
        return x[index].item()
    if mask is not None and not mask[index]:
        return None
    if np.isinf(x[index]):
        return float(x[index])
    value = Fraction(float(x[index]))
    return Number(value, {(name, index): Fraction(1)}) if name else value


def _as_array(drawn: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Nested lists as an array of numbers."""
    result = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        x = drawn
        for k in index:
            x = x[k]
        result[index] = x
    return result
