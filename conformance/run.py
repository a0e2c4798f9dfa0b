"""What a test holds in its hands: calls of the backend, judged by the oracle and counted."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import hypothesis
import numpy as np

from conformance.backend import Backend, BadCall, Limited
from conformance.cases import Case, cases
from conformance.messages import as_code, mismatch
from conformance.protocol import OPERATIONS
from conformance.oracle import Permitted, grade, judged, permitted

EXAMPLES = {"quick": 5, "default": 15, "thorough": 120}
"""Inputs tried in each region, by profile."""


class NonConformance(AssertionError):
    """The backend breaks a clause; the message is the whole story."""


@dataclass
class Tally:
    """What one test did: how many inputs were asked for, judged, or refused by the backend."""

    expected: int = 0
    executed: int = 0
    limited: int = 0
    limitations: set[str] = field(default_factory=set)
    worst_distance: float = 0.0
    grade: float = 0.0


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

    def over(
        self, regions: Iterable[str], check: Callable[[Case], None], **fixed: Any
    ) -> None:
        """Draw cases from each region, options in `fixed` held, and check each; nothing is left to luck."""
        limits = self.backend.limits(self.operation)
        refused = [name for name, value in fixed.items() if value not in limits.get(name, (value,))]
        for region in regions:
            self.tally.expected += EXAMPLES[self.profile]
            if refused:
                self._refuse(f"cannot be called with {', '.join(f'{n}={fixed[n]!r}' for n in refused)}")
                continue
            strategy = cases(self.operation, region, self.dtype, limits, fixed)
            self._hypothesis(region, strategy, check)

    def conforms(self, case: Case, formula: Callable[..., Any] | None = None) -> None:
        """Call the backend and demand that every specified element of the result is permitted."""
        allowed = permitted(case, formula)
        got = self.call(case)
        self.judge(case, got, allowed)
        if case.region == "generic":
            self.tally.grade = max(self.tally.grade, grade(case, got, formula))

    def judge(self, case: Case, got: np.ndarray, allowed: Permitted) -> None:
        """Demand that every specified element of a result is permitted."""
        distances = {i: allowed.distance(i, float(got[i])) for i in judged(case, got)}
        decided = {i: d for i, d in distances.items() if not np.isnan(d)}
        if decided:
            worst = max(decided, key=lambda i: decided[i])
            if decided[worst] > 1.0:
                self.fail(case, *mismatch(case, got, allowed, worst))
            self.tally.worst_distance = max(self.tally.worst_distance, decided[worst])
        if decided or not distances:
            self.tally.executed += 1

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
        self.tally.executed += 1

    def fail(self, case: Case, *story: str) -> Any:
        """Fail with the case as code and what is wrong."""
        raise NonConformance("\n".join([*as_code(case), *story]))

    def _hypothesis(self, region: str, strategy: Any, check: Callable[[Case], None]) -> None:
        settings = hypothesis.settings(
            max_examples=EXAMPLES[self.profile],
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck),
            verbosity=hypothesis.Verbosity.quiet,
        )

        def example(case: Case) -> None:
            try:
                check(case)
            except Limited as error:
                self._refuse(str(error))

        seed = crc32(f"{self.seed} {self.test} {region}".encode())
        hypothesis.seed(seed)(settings(hypothesis.given(case=strategy)(example)))()

    def _refuse(self, reason: str) -> None:
        self.tally.limited += 1
        self.tally.limitations.add(reason)
