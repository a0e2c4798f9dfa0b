"""What a test holds in its hands: calls of the backend, judged by the oracle and counted."""

import math
import pickle
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import hypothesis
import numpy as np

from conformance.backend import Backend, BadCall, Limited
from conformance.cases import MAX_TOKENS, Case, cases, ordinary
from conformance.messages import as_code, mismatch
from conformance.oracle import Permitted, grade, judged, permitted
from conformance.protocol import OPERATIONS

EXAMPLES = {"quick": 5, "default": 10, "thorough": 120}
"""Inputs tried in each region, by profile."""

ORDINARY_CALLS = 3
"""Plain calls by which a fault of the whole operation is told from one of a region."""

SHRINK_SECONDS = 1.5
"""Time spent on making a failing input smaller; it decides how short a message gets, never a verdict."""


class NonConformance(AssertionError):
    """The backend breaks a clause. The story is told at the end: shrinking raises this many times."""

    def __init__(self, case: Case, tell: Callable[[], list[str]]) -> None:
        super().__init__(f"{case.operation} in {case.dtype}, region {case.region}")
        self.case = case
        self.tell = tell

    def story(self) -> str:
        """The region, the case as code, and what is wrong with it."""
        return "\n".join([f"region     {self.case.region}", *as_code(self.case), *self.tell()])


@dataclass
class Tally:
    """What one test did: how many inputs were asked for, judged, or refused by the backend."""

    expected: int = 0
    executed: int = 0
    limited: int = 0
    limitations: set[str] = field(default_factory=set)
    """The backend's own words for what it refused."""
    beyond: set[str] = field(default_factory=set)
    """Options that the test holds at values which the backend declares it cannot take."""
    unclear: int = 0
    """Relations between two calls that were left alone because the first call is wrong by itself."""
    worst_distance: float = 0.0
    grade: float = 0.0


class Unclear(Exception):
    """A relation between two calls says nothing, because the first is wrong by itself."""


@dataclass
class Run:
    """One test of one operation in one dtype."""

    backend: Backend
    operation: str
    dtype: str
    profile: str
    seed: int
    test: str
    tally: Tally = field(default_factory=Tally)
    decided: bool = False
    """Whether the case at hand has been judged: an unbounded permitted interval decides nothing."""

    def over(
        self,
        regions: Iterable[str],
        check: Callable[[Case], None],
        max_tokens: int = MAX_TOKENS,
        **fixed: Any,
    ) -> None:
        """Draw cases from each region, options in `fixed` held, and check each; nothing is left to luck."""
        limits = self.backend.limits(self.operation)
        beyond = {name: value for name, value in fixed.items() if value not in limits.get(name, (value,))}
        for region in regions:
            self.tally.expected += EXAMPLES[self.profile]
            if beyond:
                self.tally.limited += EXAMPLES[self.profile]
                self.tally.beyond |= {f"{name}={value!r}" for name, value in beyond.items()}
                continue
            strategy = cases(self.operation, region, self.dtype, limits, fixed, max_tokens)
            self._hypothesis(region, strategy, check)

    def count(self, check: Callable[[Case], None], case: Case) -> None:
        """Check one case, and count it as executed when it was judged, as limited when it was refused."""
        self.decided = False
        try:
            check(case)
        except Limited as error:
            self.tally.limited += 1
            self.tally.limitations.add(str(error))
        except Unclear:
            self.tally.unclear += 1
        self.tally.executed += self.decided

    def conforms(self, case: Case, *also: Callable[..., Any]) -> None:
        """Call the backend and demand that every specified element of the result is permitted.

        `also` is a formula that the spec says is equal: it demands the same answer where both are exact.
        """
        allowed = permitted(case, *also)
        got = self.call(case)
        self.judge(case, got, allowed)
        if case.region == "generic":
            self.tally.grade = max(self.tally.grade, grade(case, got))

    def permitted_base(self, case: Case) -> Permitted:
        """The permitted set of a call that others are compared with; Unclear when it is wrong by itself."""
        allowed, got = permitted(case), self.call(case)
        if any(allowed.distance(i, float(got[i])) > 1.0 for i in judged(case, got)):
            raise Unclear
        return allowed

    def conforms_there(self, case: Case) -> None:
        """As `conforms`, where the region is the point: Unclear when ordinary calls are wrong as well."""
        limits = self.backend.limits(self.operation)
        for seed in range(ORDINARY_CALLS):
            self.permitted_base(ordinary(self.operation, self.dtype, limits, seed))
        self.conforms(case)

    def judge(self, case: Case, got: np.ndarray, allowed: Permitted) -> None:
        """Demand that every specified element of a result is permitted."""
        distances = {i: allowed.distance(i, float(got[i])) for i in judged(case, got)}
        decided = {i: d for i, d in distances.items() if not np.isnan(d)}
        if decided:
            worst = max(decided, key=lambda i: decided[i])
            if decided[worst] > 1.0:
                raise NonConformance(case, lambda: mismatch(case, got, allowed, worst))
            self.tally.worst_distance = max(self.tally.worst_distance, decided[worst])
        self.decided |= bool(decided) or not distances

    def call(self, case: Case, layout: str = "plain") -> np.ndarray:
        """Call the backend; what is wrong with the call itself fails the test."""
        try:
            output = self.backend.call(case.operation, case.arguments, case.options, case.dtype, layout)
        except BadCall as error:
            self.fail(case, str(error))
        if output.changed:
            self.fail(case, f"{case.operation} changed its own input: {', '.join(output.changed)}")
        return output.values

    def gradients(self, case: Case, names: list[str]) -> dict[str, np.ndarray]:
        """Differentiate Σ g · result for an upstream gradient g that is never all ones."""
        shape = OPERATIONS[case.operation].result_shape(case.arguments)
        upstream = 1.0 + np.arange(np.prod(shape, dtype=int)).reshape(shape) % 3
        try:
            return self.backend.gradients(
                case.operation, case.arguments, case.options, case.dtype, names, upstream
            )
        except BadCall as error:
            return dict(self.fail(case, str(error)))

    def seen(self, case: Case, holds: bool, *story: str) -> None:
        """Count a property that was looked at, and fail with the story where it does not hold."""
        if not holds:
            self.fail(case, *story)
        self.decided = True

    def fail(self, case: Case, *story: str) -> Any:
        """Fail with the case as code and what is wrong."""
        raise NonConformance(case, lambda: list(story))

    def _hypothesis(self, region: str, strategy: Any, check: Callable[[Case], None]) -> None:
        settings = hypothesis.settings(
            max_examples=EXAMPLES[self.profile],
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck),
            verbosity=hypothesis.Verbosity.quiet,
        )

        seed = crc32(f"{self.seed} {self.test} {region}".encode())
        example = Remembered(lambda case: self.count(check, case))
        hypothesis.seed(seed)(settings(hypothesis.given(case=strategy)(example.run)))()


class Remembered:
    """A check that stops looking for smaller failures after a while, and never forgets one it has seen.

    Past the time, new inputs pass unseen, so that shrinking comes to its end; an input that has failed
    fails again, as Hypothesis expects of it.
    """

    def __init__(self, check: Callable[[Case], None]) -> None:
        self.check = check
        self.failures: dict[bytes, NonConformance] = {}
        self.until = math.inf

    def run(self, case: Case) -> None:
        """Check a case, or recall what became of it."""
        key = pickle.dumps((case.arguments, case.options))
        if key in self.failures:
            raise self.failures[key]
        if time.monotonic() > self.until:
            return
        try:
            self.check(case)
        except NonConformance as error:
            self.until = min(self.until, time.monotonic() + SHRINK_SECONDS)
            self.failures[key] = error
            raise
