"""The oracle: which answers a correct backend may give, derived from the formula and the dtype.

*Permitted* is the reference run on balls in which the inputs and every operation may be off by
:data:`FACTOR` unit roundoffs, an elementary function by :data:`ELEMENTARY_FACTOR`, and by what underflows.
Where the dyadic run shows that no order of evaluation rounds, it is the single exact answer. *Attainable* is
the reference on inputs that are off by one unit roundoff: what the conditioning of the problem alone allows.
No tolerance is set by hand.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
from flint import arb

from conformance.callables import bind
from conformance.cases import Case
from conformance.operations import OPERATIONS
from reference import numbers
from reference.numbers import balls, dyadics
from reference.numbers.formats import FORMATS, Format

FACTOR = 2.0
"""Unit roundoffs that one operation may lose: one is IEEE arithmetic, the other the room for other ways to
associate a formula."""

ELEMENTARY_FACTOR = {"float64": 8.0, "float32": 8.0, "bfloat16": 2.0, "float16": 4.0}
"""Unit roundoffs that exp, log and their like may lose, two to a unit in the last place. NumPy's miss by up
to 4 units in float64 and float32 (numpy/numpy#19478), in float16 by up to 1.88, log1p (numpy/numpy#23351);
in bfloat16 libraries take them in float32 and round once."""

SPARE_BITS = 2
"""Exactness is demanded only where the significand has so many bits to spare for other associations."""


@dataclass(frozen=True)
class Permitted:
    """The answers that a correct backend may give to one case: an interval for each element."""

    balls: np.ndarray
    """Object array of balls."""
    exact: np.ndarray
    """Object array: a Fraction where only that answer is right, None elsewhere."""
    format: Format

    def distance(self, index: tuple[int, ...], got: float) -> float:
        """Distance of an answer from the interval's middle, in half widths: more than 1 is outside.

        NaN stands for an interval that is unbounded, which decides nothing.
        """
        exact = self.exact[index]
        if exact is not None:
            return 0.0 if got - got == 0.0 and Fraction(got) == exact else np.inf
        ball: arb = self.balls[index].value
        if not ball.is_finite():
            certain = _certain_infinity(ball)
            return np.nan if certain is None else 0.0 if got == certain else np.inf
        if np.isinf(got):
            edge = ball.upper() if got > 0 else -ball.lower()
            return 1.0 if edge >= self.format.largest else np.inf
        if np.isnan(got):
            return np.inf
        gap, width = abs(arb(got) - ball.mid()), ball.rad()
        if width == 0:
            return 0.0 if gap == 0 else np.inf
        return float((gap / width).lower())  # divided before it is a float, which neither may fit into

    def bounds(self, index: tuple[int, ...]) -> tuple[float, float]:
        """Lowest and highest permitted answer."""
        exact = self.exact[index]
        if exact is not None:
            return float(exact), float(exact)
        ball: arb = self.balls[index].value
        certain = _certain_infinity(ball)
        return (float(ball.lower()), float(ball.upper())) if certain is None else (certain, certain)

    def excludes(self, other: "Permitted", index: tuple[int, ...]) -> bool:
        """Whether nothing that is permitted here is permitted there, at one element."""
        (low, high), (lowest, highest) = self.bounds(index), other.bounds(index)
        return high < lowest or highest < low


def permitted(case: Case, *also: Callable[..., Any]) -> Permitted:
    """Run the operation's reference on balls that round as the dtype may.

    A backend may follow any formula that the spec proves equal, those of the operation and those in `also`:
    the permitted set is the hull of all, and an answer has to be exact only where each of them is.
    """
    operation = OPERATIONS[case.operation]
    formulas = (operation.reference, *operation.forms, *also)
    return reduce(_either, (permitted_by(case, formula) for formula in formulas))


def _either(first: Permitted, second: Permitted) -> Permitted:
    """What one formula or another may give."""
    both = np.frompyfunc(lambda a, b: a if a is not None and b is not None else None, 2, 1)
    hull = np.frompyfunc(lambda a, b: balls.where(None, a, b), 2, 1)
    exact = np.asarray(both(first.exact, second.exact), dtype=object)
    return Permitted(np.asarray(hull(first.balls, second.balls), dtype=object), exact, first.format)


def permitted_by(case: Case, formula: Callable[..., Any], *before: np.ndarray) -> Permitted:
    """Run any formula on balls, with the arguments of the case; arrays in `before` come first."""
    form = FORMATS[case.dtype]
    rounding = balls.Rounding(form, FACTOR, ELEMENTARY_FACTOR[form.name])

    def as_balls(x: Any) -> Any:
        return balls.array(x, rounding, FACTOR * form.unit_roundoff)

    widened = _run(case, formula, as_balls, *before)
    exact = np.full(widened.shape, None, dtype=object)
    if case.exact:
        rational: Any = _run(case, formula, np.frompyfunc(dyadics.number, 1, 1), *before)
        for index in np.ndindex(widened.shape):
            if form.holds(rational[index], SPARE_BITS):
                exact[index] = rational[index].value
    return Permitted(widened, exact, form)


def computed(case: Case, formula: Callable[..., Any], *before: np.ndarray) -> np.ndarray:
    """Run a formula in float64, with the arguments of the case; arrays in `before` come first."""
    return _run(case, formula, lambda x: x, *before).astype(np.float64)


def permitted_gradients(case: Case, upstream: np.ndarray) -> dict[str, Permitted]:
    """Run the reference's gradient on balls, for an upstream gradient: a permitted set for each argument.

    Of a scalar, a backend may find the gradient first and multiply by upstream last. Where that underflows
    on the way, upstream multiplies what was lost.
    """
    operation = OPERATIONS[case.operation]
    gradient = operation.gradient
    assert gradient is not None
    found = {}
    for k, name in enumerate(operation.differentiable):

        def first(given: Any, *rest: Any, _index: int = k, **options: Any) -> Any:
            result = gradient(given, *bind(case.operation, rest), **options)
            return result[_index] if isinstance(result, tuple) else result

        def last(given: Any, *rest: Any, _first: Callable[..., Any] = first, **options: Any) -> Any:
            return given * _first(numbers.full((), 1.0, like=given), *rest, **options)

        formulas = (first,) if operation.result else (first, last)
        found[name] = reduce(_either, (permitted_by(case, formula, upstream) for formula in formulas))
    return found


def attainable(case: Case) -> np.ndarray:
    """Run the reference on inputs that are off by one unit roundoff each: the balls of what they allow."""
    formula = OPERATIONS[case.operation].reference
    roundoff = FORMATS[case.dtype].unit_roundoff
    return _run(case, formula, lambda x: balls.array(x, None, roundoff))


def grade(case: Case, got: np.ndarray) -> float:
    """Worst distance from the truth, in units of what perturbed inputs and one last rounding allow."""
    truth = _run(case, OPERATIONS[case.operation].reference, balls.array)
    reach = attainable(case)
    form, worst = FORMATS[case.dtype], 0.0
    for index in judged(case, got):
        middle = truth[index].value
        allowed = (
            float(reach[index].value.rad()) + form.unit_roundoff * float(abs(middle).upper()) + form.underflow
        )
        if middle.is_finite() and np.isfinite(allowed) and np.isfinite(got[index]):
            worst = max(worst, float(abs(arb(got[index]) - middle).upper()) / allowed)
    return worst


def judged(case: Case, values: np.ndarray) -> list[tuple[int, ...]]:
    """List the positions of a result that the protocol specifies: those under mask True."""
    mask = case.arguments.get("mask") if OPERATIONS[case.operation].of_tokens else None
    return [i for i in np.ndindex(values.shape) if mask is None or mask.shape != values.shape or mask[i]]


def _run(
    case: Case, formula: Callable[..., Any], convert: Callable[[Any], Any], *before: np.ndarray
) -> np.ndarray:
    """Call a formula with the case's real arguments and float options converted to a number system."""
    arguments = tuple(convert(x) if _is_real(x) else x for x in case.arguments.values())
    given = tuple(convert(x) for x in before) + (arguments if before else bind(case.operation, arguments))
    options = {name: convert(x) if type(x) is float else x for name, x in case.options.items()}
    result = formula(*given, **options)
    if isinstance(result, dict):
        result = [result[key] for key in OPERATIONS[case.operation].keys]
    return np.asarray(result, dtype=object)


def _certain_infinity(ball: arb) -> float | None:
    """The infinity that a ball holds, and nothing else: a finite number less -∞, for one."""
    lone = not ball.mid().is_finite() and not ball.is_nan() and bool(ball.rad().is_finite())
    return float(ball.mid()) if lone else None


def _is_real(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype == np.float64
