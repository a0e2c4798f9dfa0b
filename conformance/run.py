"""What a test holds in its hands: calls of the backend, judged by the oracle and counted."""

import math
import pickle
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NoReturn
from zlib import crc32

import hypothesis
import numpy as np
from hypothesis.database import ExampleDatabase

from conformance.backend import Backend, BadCall, Limited, Slopes, of_before, own_inputs
from conformance.cases import MAX_TOKENS, Case, cases, ordinary
from conformance.messages import mismatch
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, grade, judged, permitted, permitted_gradients
from conformance.reproduction import Call, Source, script
from reference.numbers.formats import FORMATS

EXAMPLES = {"quick": 3, "default": 10, "thorough": 30}
"""Inputs tried in each region, by profile."""

ORDINARY_CALLS = 3
"""Plain calls by which a fault of the whole operation is told from one of a region."""

PURE = "contract.pure"
"""The clause that a call breaks which changes what is not its own."""

SHRINK_SECONDS = 1.5
"""Time spent on making a failing input smaller; it decides how short a message gets, never a verdict."""


class NonConformance(AssertionError):
    """The backend breaks a clause. The story is told at the end: shrinking raises this many times."""

    def __init__(self, call: Call, tell: Callable[[], list[str]], fault: str = "", clause: str = "") -> None:
        case = call.case
        super().__init__(f"{case.operation} in {case.dtype}, region {case.region}")
        self.call, self.case, self.gradient = call, case, call.gradient
        self.tell = tell
        self.fault = fault
        """What is wrong with the call itself, where it gave no answer that could be judged."""
        self.clause = clause
        """The clause that the call breaks whatever it was made for; empty if that is for the test to say."""

    def script(self, source: Source, whole: bool = True) -> list[str]:
        """The call as code."""
        return script(self.call, source, whole)

    def story(self, source: Source) -> str:
        """The region, the call as code, and what is wrong with its answer."""
        code = self.script(source, whole=False)
        told = [line for line in self.tell() if line != self.fault]  # a headline already
        return "\n".join([f"region     {self.case.region}", *code, *told])


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
    database: ExampleDatabase | None = None
    """Where failing inputs are kept, to be tried first the next time."""
    tally: Tally = field(default_factory=Tally)
    decided: bool = False
    """Whether the case at hand has been judged: an unbounded permitted interval decides nothing."""
    failed: bool = False
    """Whether an input has failed; from then on it is made smaller, and inputs are not counted."""
    sound: bool | None = None
    """Whether ordinary calls are right, once that was asked."""

    def over(
        self,
        regions: Iterable[str],
        check: Callable[[Case], None],
        max_tokens: int = MAX_TOKENS,
        inputs: int | None = None,
        **fixed: Any,
    ) -> None:
        """Draw cases from each region, options in `fixed` held, and check each; nothing is left to luck.

        `inputs` is how many at most, where more of them would show nothing new.
        """
        most = math.ceil(EXAMPLES[self.profile] * OPERATIONS[self.operation].share)
        count = min(most, inputs or most)
        limits = self.backend.limits(self.operation)
        beyond = {name: value for name, value in fixed.items() if value not in limits.get(name, (value,))}
        for region in regions:
            self.tally.expected += count
            if beyond:
                self.tally.limited += count
                self.tally.beyond |= {f"{name}={value!r}" for name, value in beyond.items()}
                continue
            strategy = cases(self.operation, region, self.dtype, limits, fixed, max_tokens)
            self._hypothesis(region, strategy, check, count)

    def at(self, check: Callable[[Case], None], *given: Case) -> None:
        """Check cases that are given, not drawn, where the backend takes their options."""
        limits = self.backend.limits(self.operation)
        for case in given:
            self.tally.expected += 1
            beyond = {k: x for k, x in case.options.items() if x not in limits.get(k, (x,))}
            if beyond:
                self.tally.limited += 1
                self.tally.beyond |= {f"{name}={value!r}" for name, value in beyond.items()}
            else:
                self.count(check, case)

    def ordinary(self, seed: int = 0, **sizes: int) -> Case:
        """A plain call of these sizes, another one for another seed."""
        return ordinary(self.operation, self.dtype, self.backend.limits(self.operation), seed, sizes=sizes)

    def count(self, check: Callable[[Any], None], case: Any) -> None:
        """Check one case, and count it as executed when it was judged, as limited when it was refused."""
        self.decided = False
        tally = Tally() if self.failed else self.tally
        try:
            check(case)
        except Limited as error:
            tally.limited += 1
            tally.limitations.add(str(error))
        except Unclear:
            tally.unclear += 1
        except NonConformance:
            self.decided = self.failed = True
            raise
        finally:
            tally.executed += self.decided

    def conforms(self, case: Case, *also: Callable[..., Any]) -> None:
        """Call the backend and demand that every specified element of the result is permitted.

        `also` is a formula that the spec says is equal: it demands the same answer where both are exact.
        """
        allowed = permitted(case, *also)
        got = self.call(case)
        self.judge(case, got, allowed)
        if case.region == "generic":
            self.tally.grade = max(self.tally.grade, grade(case, got))

    def at_default(self, case: Case, option: str) -> None:
        """Leave an option out that has its default; a function that has none for it says so."""
        given = {name: value for name, value in case.options.items() if name != option}
        left_out = replace(case, options=given)
        try:
            self.backend.call(case.operation, case.arguments, given, case.dtype)
        except BadCall as error:
            if "missing 1 required keyword-only argument" in str(error):
                raise Limited(f"{option} has no default") from error
        self.conforms(left_out)

    def permitted_base(self, case: Case) -> Permitted:
        """The permitted set of a call that others are compared with; Unclear when it is wrong by itself."""
        allowed, got = permitted(case), self.call(case)
        if any(allowed.distance(i, float(got[i])) > 1.0 for i in judged(case, got)):
            raise Unclear
        return allowed

    def conforms_there(self, case: Case) -> None:
        """As `conforms`, where the region is the point: Unclear when ordinary calls are wrong as well."""
        if not self._ordinary_calls_are_right():
            raise Unclear
        self.conforms(case)

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
        """Demand that every specified element of a result, or of an argument's gradient, is permitted.

        `note` says what is special about the call; `made` is the one that was made, where it is judged as
        another.
        """
        distances = {i: allowed.distance(i, float(got[i])) for i in judged(case, got)}
        decided = {i: d for i, d in distances.items() if not np.isnan(d)}
        if decided:
            worst = max(decided, key=lambda i: decided[i])
            if decided[worst] > 1.0:
                raise NonConformance(
                    made or Call(case, gradient, upstream),
                    lambda: [
                        *mismatch(case, got, allowed, worst, gradient, upstream),
                        *([f"note       {note}"] if note else []),
                    ],
                )
            self.tally.worst_distance = max(self.tally.worst_distance, decided[worst])
        self.decided |= bool(decided) or not distances

    def call(self, case: Case, way: str = "plain") -> np.ndarray:
        """Call the backend; what is wrong with the call itself fails the test."""
        try:
            output = self.backend.call(case.operation, case.arguments, case.options, case.dtype, way)
        except BadCall as error:
            self.fail(Call(case, unread=True), fault=str(error), clause=error.clause)
        if output.changed:
            names = own_inputs(output.changed)
            call = Call(case, changed=names, overwritten=not names and of_before(output.changed))
            what = f"{case.operation} changed {' and '.join(output.changed)}"
            self.fail(call, fault=what, clause=PURE)
        return output.values

    def differentiates(self, case: Case) -> None:
        """Ask for the gradient of a random upstream gradient, and demand that it is permitted."""
        upstream = self.upstream(case)
        allowed = permitted_gradients(case, upstream)
        got = self.gradients(case, list(allowed), upstream)
        for name, permitted_set in allowed.items():
            self.judge(case, got[name], permitted_set, name, upstream)

    def upstream(self, case: Case, seed: int | None = None) -> np.ndarray:
        """An upstream gradient that is never all ones, a function of the case (or of the seed) alone."""
        shape = OPERATIONS[case.operation].result_shape(case.arguments)
        rng = np.random.default_rng(crc32(pickle.dumps(case.arguments)) if seed is None else seed)
        if case.exact:
            return rng.choice([-2.0, 0.5, 2.0, 4.0], shape)
        return FORMATS[case.dtype].round(rng.standard_normal(shape))

    def gradients(self, case: Case, names: list[str], upstream: np.ndarray) -> dict[str, np.ndarray]:
        """Differentiate Σ upstream · result with respect to the named arguments."""
        return self.slopes(case, names, upstream).gradients

    def slopes(self, case: Case, names: list[str], upstream: np.ndarray, way: str = "plain") -> Slopes:
        """As `gradients`, with the result that the call returns on the way; what is wrong with it fails."""
        given = case.operation, case.arguments, case.options, case.dtype, names, upstream, way
        try:
            found = self.backend.gradients(*given)
        except BadCall as error:
            self.fail(Call(case, names[0], upstream, unread=True), fault=str(error))
        if found.changed:
            what = f"{case.operation}, differentiated, changed {' and '.join(found.changed)}"
            self.fail(Call(case, names[0], upstream, changed=own_inputs(found.changed)), fault=what)
        return found

    def seen(self, made: Case | Call, holds: bool, *story: str) -> None:
        """Count a property that was looked at, and fail with the story where it does not hold."""
        if not holds:
            self.fail(made, *story)
        self.decided = True

    def fail(self, made: Case | Call, *story: str, fault: str = "", clause: str = "") -> NoReturn:
        """Fail with the call as code and what is wrong."""
        call, told = made if isinstance(made, Call) else Call(made), [*story, *filter(None, [fault])]
        raise NonConformance(call, lambda: told, fault, clause)

    def _ordinary_calls_are_right(self) -> bool:
        """Whether plain calls are right; looked at once, because it does not depend on the case."""
        if self.sound is None:
            limits = self.backend.limits(self.operation)
            try:
                for seed in range(ORDINARY_CALLS):
                    self.permitted_base(ordinary(self.operation, self.dtype, limits, seed))
                self.sound = True
            except Unclear:
                self.sound = False
        return self.sound

    def _hypothesis(self, region: str, strategy: Any, check: Callable[[Case], None], count: int) -> None:
        seed = crc32(f"{self.seed} {self.test} {region}".encode())
        example = Remembered(lambda case: self.count(check, case))
        kept = Kept(self.database, f"{self.backend.what} {self.test} {region}")
        kept.replay(example.run)
        try:
            test = _settings(count)(hypothesis.given(case=strategy)(example.run))
            # Without a database there is nothing to look up, and no key to make of the source text.
            vars(test)["_hypothesis_internal_database_key"] = None
            hypothesis.seed(seed)(test)()
        except NonConformance:
            kept.add(example.failed)
            raise


@cache
def _settings(count: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
    )


class Kept:
    """The inputs of one test that have failed before, in a database of Hypothesis's that may be missing.

    Hypothesis itself keeps nothing of a run with a seed.
    """

    def __init__(self, database: ExampleDatabase | None, name: str) -> None:
        self.database, self.name = database, name.encode()

    def replay(self, check: Callable[[Case], None]) -> None:
        """Check them again; forget those that pass."""
        if self.database is None:
            return
        for value in list(self.database.fetch(self.name)):
            if (case := _unpickled(value)) is not None:
                check(case)
            self.database.delete(self.name, value)

    def add(self, case: Case | None) -> None:
        """Keep one."""
        if self.database is not None and case is not None:
            self.database.save(self.name, pickle.dumps(case))


def _unpickled(value: bytes) -> Case | None:
    """Read a case that was kept; None if it was one of an older suite."""
    try:
        case = pickle.loads(value)
    except (pickle.UnpicklingError, AttributeError, ImportError, EOFError, TypeError):
        return None
    if not isinstance(case, Case) or vars(case).keys() != Case.__dataclass_fields__.keys():
        return None
    operation = OPERATIONS.get(case.operation)
    known = operation is not None and [a.name for a in operation.arguments] == list(case.arguments)
    return case if known and operation and operation.options.keys() == case.options.keys() else None


class Remembered:
    """A check that stops looking for smaller failures after a while, and never forgets one it has seen.

    Past the time, new inputs pass unseen, so that shrinking comes to its end; an input that has failed
    fails again, as Hypothesis expects of it.
    """

    def __init__(self, check: Callable[[Case], None]) -> None:
        self.check = check
        self.failures: dict[bytes, NonConformance] = {}
        self.failed: Case | None = None
        """The input that failed last: at the end, the smallest."""
        self.until = math.inf

    def run(self, case: Case) -> None:
        """Check a case, or recall what became of it."""
        key = pickle.dumps((case.arguments, case.options))
        if key in self.failures:
            self.failed = case
            raise self.failures[key]
        if time.monotonic() > self.until:
            return
        try:
            self.check(case)
        except NonConformance as error:
            self.until = min(self.until, time.monotonic() + SHRINK_SECONDS)
            self.failures[key] = error
            self.failed = case
            raise
