"""Make mutants, and hold the tests against them."""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

from tests.campaigns import Record, digest
from tests.harness import together
from tests.mutants import beside
from tests.mutants.operators import Mutant, mutants
from tests.mutants.plans import KERNELS, checks, plan
from tests.mutants.reach import Name, reaching
from tests.mutants.running import FOLDERS, NO_TEST, PASSED, Outcome, Selection, changed, run_tests
from torch_impl.kernels import TRITON

PACKAGES = ("reference", "torch_impl", *([KERNELS] if TRITON else []))
SUITE = (
    *(name for name in FOLDERS if name != "tests"),
    "tests/harness",
    "tests/right_backends",
    "tests/mutants/beside.py",
)
"""What decides on how a round of the suite ends (`tests.mutants.beside`)."""
TOGETHER = 400
"""So many mutants are asked side by side."""


@dataclass(frozen=True)
class Trial:
    """One mutant under the tests."""

    mutant: Mutant
    seen_by: str
    """The test that failed, or what else ended a run; empty if it survived."""
    seconds: float


class Unsound(Exception):
    """Tests fail where nothing was changed, or there are none: no verdict on a mutant follows."""


def every_mutant(project: Path, packages: Iterable[str] = PACKAGES) -> list[Mutant]:
    """All mutants of some packages, module by module."""
    return [
        mutant
        for package in packages
        for module, text in _texts(project, package).items()
        for mutant in mutants(package, module, text)
    ]


def sample(found: list[Mutant], count: int | None, seed: int) -> list[Mutant]:
    """So many of them in an order of chance, the same one for the same seed; all of them without a number.

    A smaller sample is the beginning of a larger one, and other lines of a module leave its order alone.
    """

    def chance(mutant: Mutant) -> str:
        return digest(str(seed), mutant.package, mutant.module, mutant.function, mutant.old, mutant.new)

    return sorted(found, key=chance)[:count]


class Campaign:
    """Runs on one snapshot of the project."""

    def __init__(
        self, project: Path, limit: float, *, trust: bool = False, record: Record | None = None
    ) -> None:
        self.project, self.limit, self.trust = project, limit, trust
        self.record = record or Record(None)
        self.suite = digest(*(project / name for name in SUITE))[:16]
        self.helpers = digest(*_helpers(project))
        self.unchanged: dict[Selection, Future[Outcome]] = {}
        self.lock = Lock()
        self.reaching = cache(lambda package: reaching(package, _texts(project, package)))

    def trial(self, mutant: Mutant) -> Trial:
        """Run the tests that may see a mutant until one does."""
        seconds, selections = 0.0, self.plan(mutant)
        with changed(self.project, {mutant.file: mutant.text}) as tree:
            for selection in selections:
                outcome = run_tests(tree, selection, self.limit)
                seconds += outcome.seconds
                if outcome.status != PASSED:
                    self._require_sound(selection, outcome)
                    return Trial(mutant, outcome.end, seconds)
        return Trial(mutant, "", seconds)

    def plan(self, mutant: Mutant) -> list[Selection]:
        """The tests that may see a mutant."""
        with self.lock:  # threads that parse at once disturb each other (python/cpython#106905)
            users: set[Name] = self.reaching(mutant.package)[mutant.module, mutant.function]
            return plan(self.project, mutant, users)

    def recorded(self, mutant: Mutant) -> Trial | None:
        """What is on record: that a mutant of the module as it is was seen, or that these tests do not."""
        seen_by, seconds, code = self.record.get(_key(mutant)) or ("", 0.0, "")
        known = bool(seen_by) or (bool(code) and code == self.code(mutant))
        return Trial(mutant, seen_by, seconds) if known else None

    def code(self, mutant: Mutant) -> str:
        """A hash of what decides on whether a mutant survives: its tests and all that these are made of."""
        selections = self.plan(mutant)
        files = sorted({self.project / name for selection in selections for name in selection.files})
        return digest(self.suite, self.helpers, repr(selections), *files)[:16]

    def _require_sound(self, selection: Selection, outcome: Outcome) -> None:
        """What fails for a mutant must pass without it."""
        if outcome.status == NO_TEST:
            raise Unsound(outcome.output)
        if self.trust:
            return
        for some in (selection.alone(outcome.end), selection):
            found = self._without(some)
            if found.status == PASSED:
                return
            if found.status != NO_TEST:
                break
        raise Unsound(f"{some} fails without any mutant (status {found.status}):\n{found.output}")

    def _without(self, selection: Selection) -> Outcome:
        """How tests end where nothing was changed; they are run once."""
        with self.lock:
            asked = selection in self.unchanged
            future = self.unchanged.setdefault(selection, Future())
        if not asked:
            try:
                with changed(self.project) as tree:
                    future.set_result(run_tests(tree, selection, self.limit))
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def trials(self, chosen: list[Mutant], processes: int, minutes: float = math.inf) -> list[Trial]:
        """Run the tests on mutants, so many at a time, and say of each how it ended.

        What is on record is not run again, but what other tests did not see is, and first, so that what is
        left out by chance is left out whatever became of it. After so many minutes nothing more is begun.
        """
        known = [self.recorded(mutant) for mutant in chosen]
        done = [one for one in known if one]
        new = [mutant for mutant, one in zip(chosen, known, strict=True) if not one]
        new.sort(key=lambda mutant: self.record.get(_key(mutant)) is None)
        until = monotonic() + 60 * minutes
        for one in self._run(new, processes, until):
            self.record.put(_key(one.mutant), [one.seen_by, one.seconds, self.code(one.mutant)])
            done.append(one)
            how = f"{one.seconds:.1f} s: {one.seen_by or 'SURVIVED'}"
            print(f"{len(done)}/{len(chosen)} {one.mutant.id}: {how}", flush=True)
        place = {mutant.id: number for number, mutant in enumerate(chosen)}
        return sorted(done, key=lambda one: place[one.mutant.id])

    def _run(self, new: list[Mutant], processes: int, until: float) -> Iterator[Trial]:
        """What the suite may see at once goes through it first, what is about refusals after other tests."""
        beside_others = [m for m in new if m.package == beside.PACKAGE and not checks(m)]
        left = [m for m in new if m not in beside_others]
        for one in self._side_by_side(beside_others, processes, until):
            if one.seen_by:
                yield one
            else:
                left.append(one.mutant)
        late = []
        for one in self._one_by_one(left, processes, until):
            if one.seen_by or one.mutant.package != beside.PACKAGE or not checks(one.mutant):
                yield one
            else:
                late.append(one.mutant)
        yield from self._side_by_side(late, processes, until)

    def _side_by_side(self, some: list[Mutant], processes: int, until: float) -> Iterator[Trial]:
        """The suite on mutants, many of them together, round after round, and of each how it ended.

        The rounds that have not seen a mutant are on record too: it does not go through them again.
        """
        seconds, left = dict.fromkeys((m.id for m in some), 0.0), list(some)
        with together.pool(processes) as pool:
            for number, stage in enumerate(beside.ROUNDS):
                through = [m for m in left if self._rounds(m) > number]
                asked = [m for m in left if self._rounds(m) == number]
                for mutant, seen_by, share in self._round(asked, stage, pool, until):
                    seconds[mutant.id] += share
                    if seen_by:
                        yield Trial(mutant, seen_by, seconds[mutant.id])
                    else:
                        self.record.put(_beside(mutant), [self.suite, number + 1])
                        through.append(mutant)
                left = through
        yield from (Trial(m, "", seconds[m.id]) for m in left)

    def _round(
        self, some: list[Mutant], stage: tuple[str, str, str], pool: Executor, until: float
    ) -> Iterator[tuple[Mutant, str, float]]:
        """One round on mutants: what saw each that there was time for, and its share of the seconds."""
        texts, reached, runs = _texts(self.project, beside.PACKAGE), self.reaching(beside.PACKAGE), {}
        for group in _batches(some):
            asked = [beside.asked(m, reached[m.module, m.function]) for m in group]
            runs[pool.submit(_in_time, until, beside.seen, texts, asked, *stage)] = group
        for run in as_completed(runs):
            found = run.result() or {}
            yield from ((m, *found[m.id]) for m in runs[run] if m.id in found)

    def _rounds(self, mutant: Mutant) -> int:
        """How many rounds of the suite as it is have not seen a mutant."""
        code, rounds = self.record.get(_beside(mutant)) or ("", 0)
        return rounds if code == self.suite else 0

    def _one_by_one(self, some: list[Mutant], processes: int, until: float) -> Iterator[Trial]:
        """The tests that may see each mutant, in a process of its own."""
        with ThreadPoolExecutor(processes) as pool:
            runs = [pool.submit(_in_time, until, self.trial, mutant) for mutant in some]
            for run in runs:
                try:
                    one: Trial | None = run.result()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
                if one:
                    yield one


def _helpers(project: Path) -> list[Path]:
    """The files that tests are made of and are none themselves, but for those that make mutants."""
    files = sorted((project / "tests").rglob("*.py"))
    return [one for one in files if not one.name.startswith("test_") and one.parent.name != "mutants"]


def _in_time(until: float, function: Callable[..., Any], *given: Any) -> Any:
    """What a function returns, unless it is too late for it: None."""
    return function(*given) if monotonic() < until else None


def _batches(some: list[Mutant]) -> list[list[Mutant]]:
    return [some[i : i + TOGETHER] for i in range(0, len(some), TOGETHER)]


def _key(mutant: Mutant) -> str:
    return f"{mutant.id} {digest(mutant.text)[:16]}"


def _beside(mutant: Mutant) -> str:
    return f"{_key(mutant)} beside others"


def _texts(project: Path, package: str) -> dict[str, str]:
    paths = sorted((project / package.replace(".", "/")).glob("*.py"))
    return {path.stem: path.read_text(encoding="utf-8") for path in paths}
