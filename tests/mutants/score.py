"""What became of mutants: the share of the mistakes that tests see, and tables of it."""

import pandas as pd

from tests.mutants.campaign import Trial
from tests.mutants.equivalents import Equivalent

ENOUGH = 0.95
"""The share of the mutants that are mistakes, which has to be seen."""


def excused(one: Trial, entries: tuple[Equivalent, ...]) -> bool:
    """Whether a survivor is one that the list of equivalents has."""
    return not one.seen_by and any(entry.covers(one.mutant) for entry in entries)


def survivors(done: list[Trial], entries: tuple[Equivalent, ...]) -> list[Trial]:
    """The mutants that no test sees, though they are mistakes."""
    return [one for one in done if not one.seen_by and not excused(one, entries)]


def refuted(done: list[Trial], entries: tuple[Equivalent, ...]) -> list[Trial]:
    """The mutants that the list calls equivalent, and a test sees."""
    return [one for one in done if one.seen_by and any(entry.covers(one.mutant) for entry in entries)]


def score(done: list[Trial], entries: tuple[Equivalent, ...]) -> float:
    """The share of the mutants that are mistakes, which a test sees; 1 where there are none."""
    mistakes = sum(not excused(one, entries) for one in done)
    return sum(bool(one.seen_by) for one in done) / mistakes if mistakes else 1.0


def by_module(done: list[Trial], entries: tuple[Equivalent, ...]) -> pd.DataFrame:
    """A line a module and one for all: mutants, how they ended, score, mean seconds."""
    modules = dict.fromkeys(f"{one.mutant.package}.{one.mutant.module}" for one in done)
    parts = {m: [one for one in done if f"{one.mutant.package}.{one.mutant.module}" == m] for m in modules}
    lines = [
        {
            "module": name,
            "mutants": len(part),
            "killed": sum(bool(one.seen_by) for one in part),
            "equivalent": sum(excused(one, entries) for one in part),
            "score": f"{score(part, entries):.1%}",
            "seconds each": f"{sum(one.seconds for one in part) / len(part):.1f}",
        }
        for name, part in [*parts.items(), ("all", done)]
        if part
    ]
    return pd.DataFrame(lines).set_index("module")


def table(left: list[Trial]) -> pd.DataFrame:
    """What survived: name, what stood there and what stands there now."""
    lines = [[f"`{_cell(x)}`" for x in (one.mutant.id, one.mutant.old, one.mutant.new)] for one in left]
    return pd.DataFrame(lines, columns=["mutant", "of", "is"]).set_index("mutant")


def reasons(done: list[Trial], entries: tuple[Equivalent, ...]) -> pd.DataFrame:
    """What survived and is no mistake: the edits, how many mutants, and why."""
    left = [one.mutant for one in done if excused(one, entries)]
    lines = [
        [f"`{_cell(entry.old)}` → `{_cell(entry.new)}`", count, ", ".join(entry.functions), entry.reason]
        for entry in entries
        if (count := sum(map(entry.covers, left)))
    ]
    return pd.DataFrame(lines, columns=["edit", "mutants", "in", "reason"]).set_index("edit")


def _cell(text: str) -> str:
    """On one line, and without what would end a cell of a table."""
    return " ".join(text.split()).replace("|", r"\|")
