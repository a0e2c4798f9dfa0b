"""Read off the suite's own tests which calls they make, and which answers each may have.

A test is run with a recorder in place of a backend. The calls that it makes are kept, each with the answers
that are permitted. What holds of every operation is mostly a relation between the answers of several calls,
padded, permuted or repeated: no file of single answers can say that, and there the recorder leaves the test.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from zlib import crc32

import numpy as np

from conformance.backend import Backend, Limited
from conformance.cases import MAX_TOKENS, Case, draw_case
from conformance.draws import ByText
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, permitted, permitted_gradients
from conformance.run import NonConformance, Run, Unclear

SUITE = Path(__file__).parent.parent
ANYTHING = cast(
    Backend, SimpleNamespace(limits=lambda operation: {}, provided=dict.fromkeys(OPERATIONS), device="cpu")
)
"""A backend that takes every value of every option; the recorder asks it for no answer."""

SHORT = 7
"""Tokens of a row, at most, to keep the files small; the first generic input of a test is as long as there."""

UNDER_THE_MASK = {"contract.masked-garbage", "contract.masked-nonfinite"}
"""Clauses of the contract of which each call is kept: a number read from under a mask shows in its answer."""

Formula = Callable[..., Any]


@dataclass
class Demand:
    """One call, the clauses that it shows, and what is demanded: a result, gradients, or both."""

    case: Case
    clauses: tuple[str, ...]
    result: Permitted | None = None
    upstream: np.ndarray | None = None
    gradients: dict[str, Permitted] = field(default_factory=dict)


@dataclass
class Recorder(Run):
    """A run that keeps what a test demands instead of asking a backend."""

    clauses: tuple[str, ...] = ()
    inputs: int = 1
    """Inputs from each region."""
    demands: list[Demand] = field(default_factory=list)

    def over(
        self,
        regions: Iterable[str],
        check: Callable[[Case], None],
        max_tokens: int = MAX_TOKENS,
        **fixed: Any,
    ) -> None:
        """Draw cases from each region and keep what the check demands of them."""
        for region in regions:
            for k in range(self.inputs):
                draw = ByText(f"{self.seed} {self.test} {self.operation} {self.dtype} {fixed} {region} {k}")
                longest = max_tokens if (region, k) == ("generic", 0) else min(max_tokens, SHORT)
                case = draw_case(draw, self.operation, region, self.dtype, {}, fixed, longest)
                try:
                    check(case)
                except (Unclear, Limited, NonConformance):
                    continue

    def count(self, check: Callable[[Any], None], case: Any) -> None:
        """Leave out what comes from no region: there, means over every outcome are looked at."""

    def conforms(self, case: Case, *also: Formula) -> None:
        """Keep the call, with the answers that any of the formulas permits."""
        demand = self._latest(case)
        if also or demand.result is None:
            demand.result = permitted(case, *also)

    def conforms_there(self, case: Case) -> None:
        """As `conforms`."""
        self.conforms(case)

    def differentiates(self, case: Case) -> None:
        """Keep the call, with an upstream gradient and the gradients that are permitted."""
        self._differentiates(case, self.upstream(case))

    def upstream(self, case: Case, seed: int | None = None) -> np.ndarray:
        """An upstream gradient: a function of the test and of how much it has recorded."""
        return super().upstream(case, crc32(f"{self.test} {self.dtype} {len(self.demands)}".encode()))

    def call(self, case: Case, layout: str = "plain") -> np.ndarray:
        """Keep the call; the zeros that it gives are looked at by nobody."""
        self._leave_relations()
        self.conforms(case)
        return np.zeros(OPERATIONS[case.operation].result_shape(case.arguments))

    def gradients(self, case: Case, names: list[str], upstream: np.ndarray) -> dict[str, np.ndarray]:
        """As `call`."""
        self._leave_relations()
        self._differentiates(case, upstream)
        return {name: np.zeros(case.arguments[name].shape) for name in names}

    def permitted_base(self, case: Case) -> Permitted:
        """Keep the call that others are compared with."""
        self._leave_relations()
        self.conforms(case)
        return permitted(case)

    def judge(self, *_: Any) -> None:
        """Judge nothing: there is no answer."""

    def seen(self, *_: Any) -> None:
        """As `judge`."""

    def _differentiates(self, case: Case, upstream: np.ndarray) -> None:
        demand = self._latest(case)
        demand.upstream, demand.gradients = upstream, permitted_gradients(case, upstream)

    def _latest(self, case: Case) -> Demand:
        """The demand on this call: one for its result and its gradients."""
        if not self.demands or self.demands[-1].case is not case:
            self.demands.append(Demand(case, self.clauses))
        return self.demands[-1]

    def _leave_relations(self) -> None:
        contract = {slug for slug in self.clauses if slug.startswith("contract.")}
        if contract - UNDER_THE_MASK:
            raise Unclear


def demands(operation: str, dtype: str, inputs: int, seed: int) -> Iterator[Demand]:
    """What the suite demands of single calls of an operation."""
    for name, test in tests().items():
        marks = {mark.name: mark.args for mark in test.pytestmark}
        if operation in marks.get("operations", OPERATIONS):
            recorder = Recorder(
                ANYTHING, operation, dtype, "default", seed, name, clauses=marks["clauses"], inputs=inputs
            )
            test(recorder)
            yield from recorder.demands


@cache
def tests() -> dict[str, Any]:
    """The suite's tests, in the order of their sources."""
    found = {}
    for path in sorted(SUITE.glob("test_*.py")):
        for name, value in vars(import_module(f"conformance.{path.stem}")).items():
            if name.startswith("test_"):
                found[f"{path.stem}::{name}"] = value
    return found
