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
from typing import Any, cast
from zlib import crc32

import numpy as np

from conformance.backend import Backend, Limited, Output, Slopes
from conformance.callables import bind
from conformance.cases import MAX_TOKENS, Case, draw_case
from conformance.draws import ByText
from conformance.marks import shown
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, permitted, permitted_gradients
from conformance.run import NonConformance, Run, Unclear
from reference.numbers.formats import FORMATS

SUITE = Path(__file__).parent.parent
SHORT = 7
"""Tokens of a row, at most, to keep the files small; the first generic input of each test is not cut."""

SINGLE_CALLS = {
    "contract.extremes", "contract.mask-holes", "contract.masked-garbage", "contract.masked-nonfinite",
    "contract.shapes",
}  # fmt: skip
"""Clauses of the contract that show in the answer to one call."""


FILLED = {"contract.masked-garbage", "contract.masked-nonfinite"}
"""Clauses whose tests call three or four times with each input: a third of the inputs will do."""


class Reference:
    """A backend that answers with the reference, rounded to the dtype."""

    what, device, provided = "reference", "cpu", dict.fromkeys(OPERATIONS)

    def limits(self, operation: str) -> dict[str, tuple[Any, ...]]:
        """No option is limited."""
        return {}

    def call(
        self,
        operation: str,
        arguments: dict[str, Any],
        options: dict[str, Any],
        dtype: str,
        way: str = "plain",
    ) -> Output:
        """The result of one call."""
        known = OPERATIONS[operation]
        with np.errstate(all="ignore"):
            answer = known.reference(*bind(operation, tuple(arguments.values())), **options)
        values = [answer[key] for key in known.keys] if known.keys else answer
        return Output(FORMATS[dtype].round(np.asarray(values, dtype=np.float64)), dtype)

    def gradients(
        self,
        operation: str,
        arguments: dict[str, Any],
        options: dict[str, Any],
        dtype: str,
        names: list[str],
        upstream: np.ndarray,
        way: str = "plain",
    ) -> Slopes:
        """The gradients in the named arguments."""
        known = OPERATIONS[operation]
        assert known.gradient is not None
        with np.errstate(all="ignore"):
            found = known.gradient(upstream, *bind(operation, tuple(arguments.values())), **options)
        each = found if isinstance(found, tuple) else (found,)
        slopes = {name: FORMATS[dtype].round(x) for name, x in zip(known.differentiable, each, strict=True)}
        return Slopes({name: slopes[name] for name in names})


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
        inputs: int | None = None,
        **fixed: Any,
    ) -> None:
        """Draw cases from each region and keep what the check asks of them."""
        for region in regions:
            for k in range(min(self.inputs, inputs or self.inputs)):
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
        self._keep_gradients(case, self.upstream(case))

    def upstream(self, case: Case, seed: int | None = None) -> np.ndarray:
        """An upstream gradient: a function of the test and of how much it has recorded."""
        return super().upstream(case, crc32(f"{self.test} {self.dtype} {len(self.demands)}".encode()))

    def call(self, case: Case, way: str = "plain") -> np.ndarray:
        """Keep the call, with the answers that are permitted."""
        if self._specified(case) and self._latest(case).result is None:
            self.conforms(case)
        return super().call(case, way)

    def gradients(self, case: Case, names: list[str], upstream: np.ndarray) -> dict[str, np.ndarray]:
        """Keep the call, with the gradients that are permitted."""
        if self._specified(case):
            self._keep_gradients(case, upstream)
        return super().gradients(case, names, upstream)

    def judge(self, *_: Any, **__: Any) -> None:
        """Judge nothing: what is permitted is kept with the call."""

    def seen(self, *_: Any) -> None:
        """As `judge`."""

    def _keep_gradients(self, case: Case, upstream: np.ndarray) -> None:
        demand = self._latest(case)
        demand.upstream, demand.gradients = upstream, permitted_gradients(case, upstream)

    def _specified(self, case: Case) -> bool:
        """Whether each answer is: not where NaN or infinity takes part, and a test looks at others alone."""
        mask = case.arguments.get("mask")
        given = {a: case.arguments[a.name] for a in OPERATIONS[case.operation].arguments}
        real = {a: x for a, x in given.items() if x is not None and x.dtype == np.float64}
        active = [x[mask] if mask is not None and a.shape == ("B", "T") else x for a, x in real.items()]
        return FILLED.issuperset(self.clauses) or all(np.isfinite(x).all() for x in active)

    def _latest(self, case: Case) -> Demand:
        """The demand on this call: one for its result and its gradients."""
        if not self.demands or self.demands[-1].case is not case:
            self.demands.append(Demand(case, self.clauses))
        return self.demands[-1]


def demands(operation: str, dtype: str, inputs: int, seed: int) -> Iterator[Demand]:
    """What the suite demands of single calls of an operation."""
    for name, test in suite().items():
        slugs = shown(test.pytestmark, operation)
        if operation in named_operations(test) and _of_single_calls(slugs):
            fewer = math.ceil(inputs / 3) if FILLED.issuperset(slugs) else inputs
            recorder = Recorder(
                cast(Backend, Reference()),
                operation,
                dtype,
                "default",
                seed,
                name,
                clauses=slugs,
                inputs=fewer,
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


def named_operations(test: Any) -> tuple[str, ...]:
    """The operations that a test is run for; all of them where it names none."""
    return next((mark.args for mark in test.pytestmark if mark.name == "operations"), tuple(OPERATIONS))


def _of_single_calls(slugs: tuple[str, ...]) -> bool:
    return SINGLE_CALLS.issuperset(slug for slug in slugs if slug.startswith("contract."))
