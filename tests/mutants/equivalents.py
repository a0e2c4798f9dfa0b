"""The mutants that are no mistakes, by what they change, and why."""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.operators import Mutant

LIST = Path(__file__).parent / "equivalent.toml"


@dataclass(frozen=True)
class Equivalent:
    """One entry of the list."""

    functions: tuple[str, ...]
    """As in a mutant's name, `reference.gae:whiten`. Here and in what follows, … stands for anything."""
    operator: str
    old: str
    new: str
    reason: str
    line: str = "…"
    """How its line reads with the edit, where a function has more of the same."""

    def covers(self, mutant: Mutant) -> bool:
        """Whether a mutant is meant, wherever in its function it stands."""
        function = f"{mutant.package}.{mutant.module}:{mutant.function}"
        fits = _fits(self.old, mutant.old) and _fits(self.new, mutant.new)
        line = mutant.text.splitlines()[mutant.line - 1].strip()
        there = any(_fits(pattern, function) for pattern in self.functions) and _fits(self.line, line)
        return there and fits and self.operator == mutant.operator


def _fits(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("…"))), text, re.DOTALL) is not None


def read(path: Path = LIST) -> tuple[Equivalent, ...]:
    """Read the list."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", [])
    return tuple(Equivalent(**{**entry, "functions": tuple(entry["functions"])}) for entry in entries)


def idle(entries: Iterable[Equivalent], mutants: Iterable[Mutant]) -> list[Equivalent]:
    """The entries that match no mutant at all."""
    every = tuple(mutants)
    return [entry for entry in entries if not any(map(entry.covers, every))]
