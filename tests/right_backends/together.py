"""The suite on many backends at once: an input is drawn once, and its permitted set found once, for all.

What a test draws depends on its seed and on the options that a backend takes, not on what the backend
answers, as long as nothing fails. So the first backend's inputs are those of the others, in their order.
What only tells how good an answer is (the grade) is left out.
"""

import inspect
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import Phase, settings

import conformance
from conformance import backend as served
from conformance import oracle, worker
from conformance.backend import Backend, OutOfService
from conformance.cases import Case
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted
from conformance.run import NonConformance, Run

FOLDER = Path(conformance.__path__[0])
SMOKE = "test_smoke"


@dataclass(frozen=True)
class Test:
    """One test of the suite and the operations that it is run for."""

    __test__ = False

    name: str
    check: Callable[[Run], None]
    operations: tuple[str, ...]


def tests() -> list[Test]:
    """All that `pytest conformance/` runs, smoke checks first."""
    found = []
    for path in sorted(FOLDER.glob("test_*.py"), key=lambda path: (path.stem != SMOKE, path.stem)):
        module = import_module(f"conformance.{path.stem}")
        for name, function in vars(module).items():
            if name.startswith("test_") and "run" in inspect.signature(function).parameters:
                marks = {mark.name: mark.args for mark in getattr(function, "pytestmark", ())}
                names = marks.get("operations", tuple(OPERATIONS))
                found.append(Test(f"conformance/{path.name}::{name}", function, names))
    return found


@dataclass
class Memory:
    """What one test has drawn and found out, for the backends that come after."""

    drawn: dict[Any, list[Case]] = field(default_factory=dict)
    permitted: dict[Any, Any] = field(default_factory=dict)
    judged: dict[Any, tuple[Permitted, bool]] = field(default_factory=dict)
    """Answers that were permitted, and whether that decided anything, by their bytes and permitted set."""

    def once(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of a case, called once for each."""

        def found(case: Case, *rest: Any) -> Any:
            numbers = tuple(x.tobytes() if isinstance(x, np.ndarray) else x for x in rest)
            call = case.operation, case.arguments, case.options, case.dtype, case.exact
            key = function.__name__, pickle.dumps(call), numbers
            if key not in self.permitted:
                self.permitted[key] = function(case, *rest)
            return self.permitted[key]

        return found

    def forget(self) -> None:
        """Begin another test."""
        self.drawn.clear()
        self.permitted.clear()
        self.judged.clear()


MEMORY = Memory()


class Shared(Run):
    """One test of one operation in one dtype, of a backend among others."""

    def judge(
        self,
        case: Case,
        got: np.ndarray,
        allowed: Permitted,
        gradient: str = "",
        upstream: np.ndarray | None = None,
    ) -> None:
        """As the suite does, once for equal answers."""
        key = id(allowed), got.shape, got.tobytes()
        before, self.decided = self.decided, False
        if key not in MEMORY.judged:
            super().judge(case, got, allowed, gradient, upstream)
            MEMORY.judged[key] = allowed, self.decided
        self.decided = before or MEMORY.judged[key][1]

    def _hypothesis(self, region: str, strategy: Any, check: Callable[[Case], None], count: int) -> None:
        limits = self.backend.limits(self.operation)
        key = region, count, pickle.dumps(limits)
        if key in MEMORY.drawn:
            for case in MEMORY.drawn[key]:
                self.count(check, case)
            return
        drawn: list[Case] = []

        def drawing(case: Case) -> None:
            drawn.append(case)
            check(case)

        super()._hypothesis(region, strategy, drawing, count)
        MEMORY.drawn[key] = drawn


class Here(Backend):
    """A backend that is called in this process."""

    def _start(self) -> None:
        launched = served.Process
        served.Process = _InProcess  # type: ignore[assignment, misc]
        try:
            super()._start()
        finally:
            served.Process = launched  # type: ignore[misc]


class _InProcess:
    """What a process of its own would be to a backend."""

    def __init__(self) -> None:
        self.server = worker.Server()

    def ask(self, method: str, limit: float, **arguments: Any) -> dict[str, Any]:
        """The reply, without a limit of time; what the backend gets is its own, as if it had been sent."""
        return worker.answer(getattr(self.server, method), {k: _copied(x) for k, x in arguments.items()})

    def stop(self) -> None:
        """There is nothing to end."""


def _copied(x: Any) -> Any:
    if isinstance(x, dict):
        return {name: _copied(value) for name, value in x.items()}
    return x.copy() if isinstance(x, np.ndarray) else x


def prepare() -> None:
    """Let this process find out what is permitted once for each case; failures are not made smaller."""
    for name in ("permitted", "permitted_gradients"):
        original = getattr(oracle, name)
        _everywhere(name, original, MEMORY.once(original))
    _everywhere("grade", oracle.grade, lambda case, got: 0.0)
    settings.register_profile("unshrunk", phases=[Phase.generate])
    settings.load_profile("unshrunk")


def _everywhere(name: str, original: Any, replacement: Any) -> None:
    for module in [m for key, m in sys.modules.items() if key.startswith("conformance.")]:
        if getattr(module, name, None) is original:
            setattr(module, name, replacement)


def verdicts(
    backends: Mapping[str, Backend], dtype: str, profile: str, seed: int, only: Iterable[str] = OPERATIONS
) -> Iterator[tuple[str, str, str]]:
    """Run the suite: for each test of each backend its name, the test, and what failed, "" if nothing did.

    Tests in which a backend declined every call are left out.
    """
    for operation in only:
        for test in [test for test in tests() if operation in test.operations]:
            MEMORY.forget()
            for name, backend in backends.items():
                if operation not in backend.provided:
                    continue
                identity = f"{test.name}[{operation}-{dtype}]"
                run = Shared(backend, operation, dtype, profile, seed, identity)
                failed = _failure(test, run)
                if failed or run.tally.executed:
                    yield name, identity, failed


def _failure(test: Test, run: Run) -> str:
    try:
        test.check(run)
    except NonConformance as error:
        return "\n".join(error.tell())
    except OutOfService as error:
        return str(error)
    undecided = not run.tally.executed and not run.tally.limited and not run.tally.unclear
    return "nothing was decided" if undecided else ""
