"""Arithmetic on answers: what several calls give together, held against what they may give together.

A batch and its parts, or the mean over every outcome, are formulas in several answers of a backend. Each
answer is carried with its permitted interval: the answers are put together as rationals, so that nothing of
the suite's own is rounded, and the intervals in the same way.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from flint import arb, fmpq

from conformance.messages import away
from conformance.oracle import Permitted
from conformance.reproduction import Call
from conformance.run import NonConformance, Run

Weight = Fraction | int


@dataclass(frozen=True)
class Answer:
    """A number that a backend gave, or that was made of such, and the numbers that it may be."""

    got: Fraction | None
    """None where it is not finite."""
    interval: arb
    exact: Fraction | None = None
    """The one right number, where there is only one."""

    @classmethod
    def of(cls, x: "Answer | Weight") -> "Answer":
        """A number that nobody rounds, as an answer; an answer is one."""
        return x if isinstance(x, Answer) else cls(Fraction(x), _interval(Fraction(x)), Fraction(x))

    def __add__(self, other: "Answer | int") -> "Answer":
        x = Answer.of(other)
        return Answer(
            None if self.got is None or x.got is None else self.got + x.got,
            self.interval + x.interval,
            None if self.exact is None or x.exact is None else self.exact + x.exact,
        )

    def __mul__(self, other: "Answer | Weight") -> "Answer":
        x = Answer.of(other)
        return Answer(
            None if self.got is None or x.got is None else self.got * x.got,
            self.interval * x.interval,
            None if self.exact is None or x.exact is None else self.exact * x.exact,
        )

    __radd__ = __add__
    __rmul__ = __mul__

    def distance(self) -> float:
        """Distance from the interval's middle, in half widths: above 1 is outside; NaN decides nothing."""
        if self.exact is not None:
            return 0.0 if self.got == self.exact else np.inf
        if not self.interval.is_finite():
            return np.nan
        if self.got is None:
            return np.inf
        gap = float(abs(_interval(self.got) - self.interval.mid()).upper())
        width = float(self.interval.rad())
        return gap / width if width else (0.0 if gap == 0.0 else np.inf)

    def allows(self, truth: arb) -> bool:
        """Whether the exact number that the mathematics gives may be right: it always is, or we are wrong."""
        return not self.interval.is_finite() or bool(self.interval.overlaps(truth))


def answers(got: np.ndarray, allowed: Permitted) -> np.ndarray:
    """The elements of a result, or of a gradient, each with its permitted interval; an object array."""
    balls: Any = allowed.balls
    exact: Any = allowed.exact
    found = np.empty(got.shape, dtype=object)
    for index in np.ndindex(got.shape):
        value, ball = float(got[index]), balls[index].value
        if np.isfinite(value):
            found[index] = Answer(Fraction(value), ball, exact[index])
        else:
            right = not allowed.distance(index, value) > 1.0
            found[index] = Answer(None, arb.nan() if right else ball)
    return found


def hold(run: Run, call: Call, made: dict[str, Answer], *story: str) -> None:
    """Demand that numbers made of answers lie in their intervals; the names say what they are.

    `call` is what is shown of the calls that gave the answers.
    """
    for name, answer in made.items():
        distance = answer.distance()
        if np.isnan(distance):
            continue
        if distance > 1.0:
            lines = _mismatch(name, answer, distance)
            raise NonConformance(call, lambda lines=lines: [*lines, *story])  # type: ignore[misc]
        run.tally.worst_distance = max(run.tally.worst_distance, distance)
        run.decided = True


def _mismatch(name: str, answer: Answer, distance: float) -> list[str]:
    got = "no finite number" if answer.got is None else repr(float(answer.got))
    if answer.exact is not None:
        return [f"got        {name} = {got}", f"permitted  exactly {float(answer.exact)!r}"]
    low, high = float(answer.interval.lower()), float(answer.interval.upper())
    return [
        f"got        {name} = {got}",
        f"permitted  between {low!r} and {high!r}{away(distance)}",
    ]


def _interval(x: Fraction) -> arb:
    return arb(fmpq(x.numerator, x.denominator))
