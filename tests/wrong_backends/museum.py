"""Hold the suite against every wrong backend: `python -m tests.wrong_backends.museum --help`.

Each wrong backend is run with each seed at the default profile, beside the right ones that those of its
operation were made from (`tests.harness.together`). It is caught when a test of a clause that its entry names
fails, in the operation that is wrong. The table of clauses tells which of them see which mistakes.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from conformance.operations import CHAPTERS, OPERATIONS
from spec.registry import current
from tests.campaigns import ROOT, Record, behaviour, digest, page
from tests.harness import together
from tests.wrong_backends.edits import RIGHT_BACKENDS, Edit, source
from tests.wrong_backends.table import EDITS
from tests.wrong_backends.threads import NOT_EXPRESSIBLE

CAUGHT_PAGE, CLAUSES_PAGE = "wrong-backends.md", "clauses-that-see.md"


@dataclass(frozen=True)
class Trial:
    """One wrong backend under one seed."""

    edit: Edit
    seed: int
    tests: tuple[str, ...]
    """The tests that failed in the operation that is wrong."""
    clauses: frozenset[str]
    """The clauses of those tests."""
    caught: bool


class Accused(Exception):
    """A right backend fails a test: what the wrong ones fail says nothing then."""


def side_by_side(edits: tuple[Edit, ...], seed: int, profile: str = "default") -> list[Trial]:
    """Run the suite on wrong backends of one operation in one dtype."""
    failed: dict[str, list[together.Verdict]] = {}
    [(operation, dtype)] = {(edit.operation, edit.dtype) for edit in edits}
    with TemporaryDirectory() as folder:
        bases = {edit.base: str(RIGHT_BACKENDS / f"{edit.base}.py") for edit in edits}
        wrong = {edit.name: _written(edit, Path(folder) / f"wrong_{n}.py") for n, edit in enumerate(edits)}
        backends = {name: together.Here(file) for name, file in (bases | wrong).items()}
        for verdict in together.verdicts(backends, dtype, profile, seed, [operation]):
            if verdict.failure:
                failed.setdefault(verdict.backend, []).append(verdict)
    for name in failed.keys() & bases.keys():
        [first, *_] = failed[name]
        raise Accused(f"{operation} of {name}, seed {seed}: {first.test}: {first.story}")
    return [_trial(edit, seed, failed.get(edit.name, [])) for edit in edits]


def _written(edit: Edit, file: Path) -> str:
    file.write_text(source(edit), encoding="utf-8")
    return str(file)


def _trial(edit: Edit, seed: int, failed: list[together.Verdict]) -> Trial:
    clauses = frozenset(slug for verdict in failed for slug in verdict.clauses)
    seen = any(slug.startswith(edit.clause) for slug in clauses)
    return Trial(edit, seed, tuple(verdict.test for verdict in failed), clauses, seen)


def trials(edits: Iterable[Edit], seeds: int, processes: int, record: Record) -> list[Trial]:
    """Run all of them, so many processes at a time, one seed after the other, less what is on record."""
    keys = {(edit, seed): _key(edit, seed) for seed in range(seeds) for edit in edits}
    done = [_recalled(*one, record) for one, key in keys.items() if record.get(key)]
    missing, accused = [one for one, key in keys.items() if not record.get(key)], []
    with together.pool(processes) as pool:
        runs = [pool.submit(side_by_side, some, seed) for some, seed in _groups(missing)]
        for run in as_completed(runs):
            if isinstance(error := run.exception(), Accused):
                accused.append(str(error))
                continue
            for one in run.result():
                record.put(keys[one.edit, one.seed], [one.tests, sorted(one.clauses), one.caught])
                done.append(one)
    if accused:
        raise Accused("\n".join(accused))
    order = {one: n for n, one in enumerate(keys)}
    return sorted(done, key=lambda one: order[one.edit, one.seed])


@cache
def _judges(operation: str) -> str:
    """A digest of what judges an operation: the reference, and the suite without what it asks of others."""
    tests = {test.file for test in together.tests() if operation in test.operations}
    files = [path for name in ("conformance", "reference") for path in sorted((ROOT / name).rglob("*.py"))]
    asked = [path for path in files if path.parent != together.FOLDER or not path.match("test_*.py")]
    return behaviour(*asked, *sorted(tests))


def _key(edit: Edit, seed: int) -> str:
    return digest(
        _judges(edit.operation), edit.operation, edit.name, edit.clause, edit.dtype, str(seed), source(edit)
    )


def _recalled(edit: Edit, seed: int, record: Record) -> Trial:
    tests, clauses, caught = record.get(_key(edit, seed))
    return Trial(edit, seed, tuple(tests), frozenset(clauses), caught)


def _groups(missing: list[tuple[Edit, int]]) -> Iterator[tuple[tuple[Edit, ...], int]]:
    """Those of one seed, operation and dtype together."""

    def alike(one: tuple[Edit, int]) -> tuple[int, int, str]:
        edit, seed = one
        return seed, list(OPERATIONS).index(edit.operation), edit.dtype

    for (seed, *_), some in groupby(sorted(missing, key=alike), alike):
        yield tuple(edit for edit, _ in some), seed


def by_chapter(done: list[Trial]) -> pd.DataFrame:
    """Caught and run, a line a chapter and one for all."""
    chapter = {op.name: name for name, operations in CHAPTERS.items() for op in operations}
    rows = [(chapter[t.edit.operation], t.edit.operation, t.edit, t.caught) for t in done]
    frame = pd.DataFrame(rows, columns=["chapter", "operation", "edit", "caught"])
    lines = [_line(name, frame[frame.chapter == name]) for name in CHAPTERS if (frame.chapter == name).any()]
    return pd.DataFrame([*lines, _line("all", frame)]).set_index("chapter")


def _line(name: str, part: pd.DataFrame) -> dict[str, object]:
    return {
        "chapter": name,
        "operations": part.operation.nunique(),
        "wrong backends": part.edit.nunique(),
        "caught / run": f"{int(part.caught.sum())} / {len(part)}",
    }


def by_clause(done: list[Trial]) -> pd.DataFrame:
    """Each clause that binds, and how many wrong backends a test of it sees, with an example."""
    seen: dict[str, list[str]] = {slug: [] for slug, clause in current().clauses.items() if clause.binds}
    for one in done:
        clauses = {slug for test in one.tests for slug in _shown(test.partition("[")[0], one.edit.operation)}
        for slug in clauses & seen.keys():
            seen[slug].append(f"{one.edit.operation}: {one.edit.name}")
    lines = [
        {"clause": slug, "wrong backends": len(set(names)), "for example": names[0] if names else ""}
        for slug, names in seen.items()
    ]
    return pd.DataFrame(lines).set_index("clause")


@cache
def _shown(name: str, operation: str) -> set[str]:
    """The clauses that a test shows of an operation."""
    [test] = [test for test in together.tests() if test.name == name]
    return set(test.clauses(operation))


def idle(clauses: pd.DataFrame) -> list[str]:
    """The clauses that bind, have tests, and see no wrong backend."""
    testable = [slug for slug in clauses.index if not current().clauses[slug].untestable]
    return [slug for slug in testable if not clauses.loc[slug, "wrong backends"]]


def threads() -> pd.DataFrame:
    """The public threads: what each was about, and the wrong backends that show it, or why none can."""
    lines = [
        {"thread": edit.thread, "what was wrong": edit.name, "shown by": f"`{edit.operation}`"}
        for edit in EDITS
        if edit.thread
    ]
    lines += [
        {"thread": thread, "what was wrong": wrong, "shown by": f"nothing here: {reason}"}
        for thread, wrong, reason in NOT_EXPRESSIBLE
    ]
    return pd.DataFrame(lines).set_index("thread").sort_index(key=lambda names: names.str.lower())


def pages(done: list[Trial], seeds: int, folder: str) -> Iterator[tuple[str, str]]:
    """The pages that --write makes: their names and texts."""
    how = f"python3 dev.py museum --seeds {seeds} --write {folder}"
    yield (
        CAUGHT_PAGE,
        page("Wrong backends that the suite catches", how, by_chapter(done), "Public threads", threads()),
    )
    yield CLAUSES_PAGE, page("Clauses, and the wrong backends that they see", how, by_clause(done))


def main(argv: list[str] | None = None) -> int:
    """Run the wrong backends and print what was caught; the status is 1 when something was not."""
    parser = argparse.ArgumentParser(prog="dev.py museum", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="run with so many seeds, from 0 (default: 1)")
    parser.add_argument("--operation", action="append", help="only wrong backends of this operation")
    parser.add_argument(
        "-j",
        dest="processes",
        type=int,
        default=os.cpu_count(),
        help="run so many at a time (default: all cores)",
    )
    parser.add_argument(
        "--record", metavar="FILE", type=Path, help="keep results here, and go on from what it holds"
    )
    parser.add_argument("--write", metavar="DIR", help="write the tables into this folder")
    arguments = parser.parse_args(argv)
    edits = tuple(e for e in EDITS if not arguments.operation or e.operation in arguments.operation)
    done = trials(edits, arguments.seeds, arguments.processes, Record(arguments.record))
    print(by_chapter(done).to_string())
    missed = [t for t in done if not t.caught]
    for one in missed:
        print(f"missed: {one.edit.operation}: {one.edit.name} (seed {one.seed})")
    unseeing = [] if arguments.operation else idle(by_clause(done))
    for slug in unseeing:
        print(f"sees none of them: {slug}")
    if arguments.write:
        for name, text in pages(done, arguments.seeds, arguments.write):
            (Path(arguments.write) / name).write_text(text, encoding="utf-8")
    return 1 if missed or unseeing else 0


if __name__ == "__main__":
    sys.exit(main())
