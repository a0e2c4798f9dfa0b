"""Read off the suite's own tests which calls they make, and which answers each may have.

A test is run with a recorder in place of a backend: the reference answers, and each call is kept with the
answers that are permitted. Of the clauses that hold of every operation, most are relations between the
answers of several calls, padded, permuted or repeated: no file of single answers can say that.
"""

import math
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
from conformance.callables import bind
from conformance.cases import MAX_TOKENS, Case, draw_case
from conformance.draws import ByText
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, permitted, permitted_gradients
from conformance.run import NonConformance, Run, Unclear
from reference.numbers.formats import FORMATS

SUITE = Path(__file__).parent.parent
ANYTHING = cast(
    Backend, SimpleNamespace(limits=lambda operation: {}, provided=dict.fromkeys(OPERATIONS), device="cpu")
)
"""A backend that takes every value of every option; the recorder asks it for no answer."""

SHORT = 7
"""Tokens of a row, at most, to keep the files small; the first generic input of each test is not cut."""

SINGLE_CALLS = {
    "contract.extremes", "contract.mask-holes", "contract.masked-garbage", "contract.masked-nonfinite",
    "contract.shapes",
}  # fmt: skip
"""Clauses of the contract that show in the answer to one call."""


FILLED = {"contract.masked-garbage", "contract.masked-nonfinite"}
"""Clauses whose tests call three or four times with each input: a third of the inputs will do."""


@dataclass
class Demand:
    """One call and the clauses that it shows, and what is asked of it: a result, gradients, or both."""

    case: Case
    clauses: tuple[str, ...]
    result: Permitted | None = None
    upstream: np.ndarray | None = None
    gradients: dict[str, Permitted] = field(default_factory=dict)


@dataclass
class Recorder(Run):
    """A run that keeps what a test asks of a backend, and gives it the reference's answers."""

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
        """Draw cases from each region and keep what the check asks of them."""
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

    def conforms(self, case: Case, *also: Callable[..., Any]) -> None:
        """Keep the call, with the answers that any of the formulas permits."""
        self._latest(case).result = permitted(case, *also)

    def differentiates(self, case: Case) -> None:
        """Keep the call, with an upstream gradient and the gradients that are permitted."""
        self.gradients(case, list(OPERATIONS[case.operation].differentiable), self.upstream(case))

    def upstream(self, case: Case, seed: int | None = None) -> np.ndarray:
        """An upstream gradient: a function of the test and of how much it has recorded."""
        return super().upstream(case, crc32(f"{self.test} {self.dtype} {len(self.demands)}".encode()))

    def call(self, case: Case, layout: str = "plain") -> np.ndarray:
        """Keep the call, and answer with the reference."""
        demand, operation = self._latest(case), OPERATIONS[case.operation]
        if demand.result is None:
            demand.result = permitted(case)
        with np.errstate(all="ignore"):
            answer = operation.reference(*bind(case.operation, _positional(case)), **case.options)
        return _rounded(case, [answer[key] for key in operation.keys] if operation.keys else answer)

    def gradients(self, case: Case, names: list[str], upstream: np.ndarray) -> dict[str, np.ndarray]:
        """Keep the call, and answer with the reference."""
        demand, operation = self._latest(case), OPERATIONS[case.operation]
        demand.upstream, demand.gradients = upstream, permitted_gradients(case, upstream)
        assert operation.gradient is not None
        with np.errstate(all="ignore"):
            slopes = operation.gradient(upstream, *bind(case.operation, _positional(case)), **case.options)
        each = slopes if isinstance(slopes, tuple) else (slopes,)
        return {
            name: _rounded(case, x)
            for name, x in zip(operation.differentiable, each, strict=True)
            if name in names
        }

    def judge(self, *_: Any) -> None:
        """Judge nothing: what is permitted is kept with the call."""

    def seen(self, *_: Any) -> None:
        """As `judge`."""

    def _latest(self, case: Case) -> Demand:
        """The demand on this call: one for its result and its gradients."""
        if not self.demands or self.demands[-1].case is not case:
            self.demands.append(Demand(case, self.clauses))
        return self.demands[-1]


def demands(operation: str, dtype: str, inputs: int, seed: int) -> Iterator[Demand]:
    """What the suite demands of single calls of an operation."""
    for name, test in suite().items():
        slugs = named_clauses(test)
        if operation in named_operations(test) and _of_single_calls(slugs):
            fewer = math.ceil(inputs / 3) if FILLED.issuperset(slugs) else inputs
            recorder = Recorder(
                ANYTHING, operation, dtype, "default", seed, name, clauses=slugs, inputs=fewer
            )
            test(recorder)
            yield from (demand for demand in recorder.demands if demand.case.region != "ordinary")


@cache
def suite() -> dict[str, Any]:
    """The suite's tests, in the order of their sources."""
    found = {}
    for path in sorted(SUITE.glob("test_*.py")):
        for name, value in vars(import_module(f"conformance.{path.stem}")).items():
            if name.startswith("test_"):
                found[f"{path.stem}::{name}"] = value
    return found


def named_clauses(test: Any) -> tuple[str, ...]:
    """The clauses that a test shows."""
    return tuple(slug for mark in test.pytestmark if mark.name == "clauses" for slug in mark.args)


def named_operations(test: Any) -> tuple[str, ...]:
    """The operations that a test is run for; all of them where it names none."""
    return next((mark.args for mark in test.pytestmark if mark.name == "operations"), tuple(OPERATIONS))


def _of_single_calls(slugs: tuple[str, ...]) -> bool:
    return SINGLE_CALLS.issuperset(slug for slug in slugs if slug.startswith("contract."))


def _positional(case: Case) -> tuple[Any, ...]:
    return tuple(case.arguments.values())


def _rounded(case: Case, answer: Any) -> np.ndarray:
    return FORMATS[case.dtype].round(np.asarray(answer, dtype=np.float64))
