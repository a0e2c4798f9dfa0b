"""The suite on many backends at once: an input is drawn once, and its permitted set found once, for all.

What a test draws depends on its seed and on the options that a backend takes, not on what the backend
answers, as long as nothing fails. So the first backend's inputs are those of the others, in their order.
What only tells how good an answer is (the grade) is left out.
"""

import gc
import inspect
import multiprocessing
import pickle
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, settings

import conformance
from conformance import backend as served
from conformance import oracle, worker
from conformance.backend import Backend, OutOfService
from conformance.cases import Case
from conformance.conftest import ORDER, SMOKE
from conformance.marks import shown
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted
from conformance.reproduction import Call
from conformance.run import NonConformance, Run, Tally

FOLDER = Path(conformance.__path__[0])


@dataclass(frozen=True)
class Test:
    """One test of the suite and the operations that it is run for."""

    __test__ = False

    name: str
    check: Callable[[Run], None]
    operations: tuple[str, ...]
    marks: tuple[pytest.Mark, ...]
    file: Path

    @property
    def is_smoke(self) -> bool:
        """Whether it comes first, and no other is run where it fails."""
        return self.file.name == SMOKE

    def clauses(self, operation: str) -> tuple[str, ...]:
        """The clauses that it shows of an operation."""
        return shown(self.marks, operation)


@dataclass(frozen=True)
class Verdict:
    """What one test of one operation in one dtype says of one of the backends."""

    backend: str
    test: str
    """By its id, as pytest has it."""
    clauses: tuple[str, ...]
    failure: BaseException | None
    undecided: bool = False
    """Whether no input decided anything: the suite says that it was not run."""

    @property
    def story(self) -> str:
        """What failed; "" if nothing did."""
        if isinstance(self.failure, NonConformance):
            return "\n".join(self.failure.tell())
        return str(self.failure or "")


def tests() -> list[Test]:
    """All that `pytest conformance/` runs, in its order."""
    found = []
    for path in sorted(FOLDER.glob("test_*.py"), key=lambda path: (ORDER.get(path.name, 1), path.name)):
        module = import_module(f"conformance.{path.stem}")
        for name, function in vars(module).items():
            if name.startswith("test_") and "run" in inspect.signature(function).parameters:
                marks = tuple(getattr(function, "pytestmark", ()))
                named = [mark.args for mark in marks if mark.name == "operations"]
                names = named[0] if named else tuple(OPERATIONS)
                identity = f"conformance/{path.name}::{name}"
                found.append(Test(identity, function, names, marks, path))
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
            key = function.__name__, pickle.dumps(_call(case)), numbers
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
Passed = dict[Any, Tally]
"""Which cases that are given, not drawn, backends have passed, and how each counts: no seed changes them."""


@dataclass
class Shared(Run):
    """One test of one operation in one dtype, of a backend among others."""

    draws: int = 0
    """How often it has drawn."""
    given: int = 0
    """How many cases it was given."""
    passed: Passed = field(default_factory=dict)

    def judge(
        self,
        case: Case,
        got: np.ndarray,
        allowed: Permitted,
        gradient: str = "",
        upstream: np.ndarray | None = None,
        note: str = "",
        made: Call | None = None,
    ) -> None:
        """As the suite does, once for equal answers."""
        key = id(allowed), got.shape, got.tobytes()
        before, self.decided = self.decided, False
        if key not in MEMORY.judged:
            super().judge(case, got, allowed, gradient, upstream, note, made)
            MEMORY.judged[key] = allowed, self.decided
        self.decided = before or MEMORY.judged[key][1]

    def upstream(self, case: Case, seed: int | None = None) -> np.ndarray:
        """As the suite does, once for each case."""
        found: np.ndarray = MEMORY.once(super().upstream)(case, seed)
        return found

    def at(self, check: Callable[[Case], None], *given: Case) -> None:
        """As the suite does, once for each backend."""
        for case in given:
            self.given += 1
            call = sha256(pickle.dumps(_call(case))).digest()
            key = self.backend, self.test, self.profile, self.given, call
            if key not in self.passed:
                before, self.tally = self.tally, Tally()
                try:
                    super().at(check, case)
                    self.passed[key] = self.tally
                finally:
                    self.tally = _sum(before, self.tally)
            else:
                self.tally = _sum(self.tally, self.passed[key])

    def _hypothesis(self, region: str, strategy: Any, check: Callable[[Case], None], count: int) -> None:
        limits = self.backend.limits(self.operation)
        self.draws += 1
        key = self.draws, region, count, pickle.dumps(limits)
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


def _call(case: Case) -> tuple[Any, ...]:
    """All of a case that a permitted set depends on."""
    return case.operation, case.arguments, case.options, case.dtype, case.exact


def _sum(one: Tally, other: Tally) -> Tally:
    """What two parts of a test did, as far as it decides whether anything was judged."""
    counts = ("expected", "executed", "limited", "unclear")
    return Tally(**{name: getattr(one, name) + getattr(other, name) for name in counts})


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
        return worker.answer(getattr(self.server, method), deepcopy(arguments))

    def stop(self) -> None:
        """There is nothing to end."""


@contextmanager
def pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes in which backends can be put side by side; left early, this ends what they are at."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.harness.warm"])
    with ProcessPoolExecutor(processes, mp_context=context, initializer=prepare) as executor:
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def prepare() -> None:
    """Let this process find out what is permitted once for each case; failures are not made smaller.

    What a backend warns of is its own affair.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("permitted", "permitted_gradients"):
        original = getattr(oracle, name)
        _everywhere(name, original, MEMORY.once(original))
    _everywhere("grade", oracle.grade, lambda case, got: 0.0)
    settings.register_profile("unshrunk", phases=[Phase.generate])
    settings.load_profile("unshrunk")
    gc.freeze()  # what is imported stays, and is not looked through again and again
    gc.set_threshold(50_000, 20, 20)


def _everywhere(name: str, original: Any, replacement: Any) -> None:
    for module in [m for key, m in sys.modules.items() if key.startswith("conformance.")]:
        if getattr(module, name, None) is original:
            setattr(module, name, replacement)


def verdicts(
    backends: Mapping[str, Backend],
    dtype: str,
    profile: str,
    seed: int,
    only: Iterable[str] = OPERATIONS,
    *,
    until_failure: bool = False,
    passed: Passed | None = None,
) -> Iterator[Verdict]:
    """Run the suite, each of its tests on one backend after the other.

    What these backends have passed under other seeds goes into `passed`, and is not asked again.

    Tests in which a backend declined every call are left out, and all others of an operation whose smoke test
    failed, as the suite does; `until_failure` leaves them out after any failure.
    """
    known: Passed = {} if passed is None else passed
    for operation in only:
        asked = {name: backend for name, backend in backends.items() if operation in backend.provided}
        for test in [test for test in tests() if operation in test.operations]:
            MEMORY.forget()
            for name, backend in list(asked.items()):
                identity = f"{test.name}[{operation}-{dtype}]"
                run = Shared(backend, operation, dtype, profile, seed, identity, passed=known)
                failure = _failure(test, run)
                if failure and (until_failure or test.is_smoke or operation in backend.out_of_service):
                    del asked[name]
                judged, declined = failure or run.tally.executed, run.tally.limited or run.tally.unclear
                if judged or not declined:
                    yield Verdict(name, identity, test.clauses(operation), failure, undecided=not judged)


def _failure(test: Test, run: Run) -> BaseException | None:
    try:
        test.check(run)
    except (NonConformance, OutOfService) as error:
        return error
    return None
