"""Hold the suite against every wrong backend: `python -m tests.wrong_backends.museum --help`.

Each wrong backend is run with each seed at the default profile. It is caught when a test of a clause that
its entry names fails, in the operation that is wrong. With the first seed every test is run, so that the
table of clauses tells which of them see which mistakes; with the others the tests that failed then are run
until one fails again, and every test when none does.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from conformance.operations import CHAPTERS
from spec.registry import current
from tests.campaigns import ROOT, Record, digest, page
from tests.harness.suite import run_suite
from tests.wrong_backends.edits import Edit, source
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


def trial(edit: Edit, seed: int, *options: str, tests: Sequence[str] = ("conformance/",)) -> Trial:
    """Run the suite, or some tests of it, on a wrong backend."""
    with TemporaryDirectory() as folder:
        backend = Path(folder) / "wrong.py"
        backend.write_text(source(edit), encoding="utf-8")
        words = ("--backend", backend, "--dtype", edit.dtype, "--seed", seed, *options)
        outcome = run_suite(*words, shrink=False, tests=tests)
    failed = [result for result in outcome.failed if result["operation"] == edit.operation]
    clauses = frozenset(slug for result in failed for slug in result["clauses"])
    seen = outcome.status == 1 and any(slug.startswith(edit.clause) for slug in clauses)
    return Trial(edit, seed, tuple(result["test"] for result in failed), clauses, seen)


def trials(edits: tuple[Edit, ...], seeds: int, processes: int, record: Record) -> list[Trial]:
    """Run all of them, so many at a time, one seed after the other, less what is on record."""
    code = digest(*(ROOT / name for name in ("conformance", "reference", "spec")))
    done: list[Trial] = []
    with ThreadPoolExecutor(processes) as pool:
        for seed in range(seeds):
            firsts = done[: len(edits)] if seed else [None] * len(edits)
            done += pool.map(partial(_recorded, record, code, seed), edits, firsts)
    return done


def _recorded(record: Record, code: str, seed: int, edit: Edit, first: Trial | None) -> Trial:
    key = digest(code, edit.operation, edit.name, edit.clause, edit.dtype, str(seed), source(edit))
    if (found := record.get(key)) is None:
        one = _again(first, seed) if first is not None else trial(edit, seed)
        found = [one.tests, sorted(one.clauses), one.caught]
        record.put(key, found)
    tests, clauses, caught = found
    return Trial(edit, seed, tuple(tests), frozenset(clauses), caught)


def _again(first: Trial, seed: int) -> Trial:
    """Run the tests that failed with the first seed until one fails, and every test when none does."""
    if first.caught and (again := trial(first.edit, seed, "-x", tests=first.tests)).caught:
        return again
    return trial(first.edit, seed)


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
        for slug in one.clauses & seen.keys():
            seen[slug].append(f"{one.edit.operation}: {one.edit.name}")
    lines = [
        {"clause": slug, "wrong backends": len(set(names)), "for example": names[0] if names else ""}
        for slug, names in seen.items()
    ]
    return pd.DataFrame(lines).set_index("clause")


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
