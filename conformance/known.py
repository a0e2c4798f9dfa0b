"""Known failures: a file that says which clauses a backend is known to break, and why.

    [[known]]
    pattern = "contract.masked-nonfinite gae float*"
    reason = "the recursion multiplies by the mask"
    link = "https://github.com/volcengine/verl/pull/2377"
    error = "is nan"

The pattern stands for clause, operation and dtype; an operation that could not be called broke no clause, for
which * stands too. The file is strict: a failure is known only if its text has the error in it, and an entry
that matches no failure of a run fails it, unless only a part of the suite was asked for and none of its tests
is meant.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path


class BadFile(Exception):
    """The file of known failures cannot be read; the message says what is wrong in it."""


@dataclass(frozen=True)
class Known:
    """One known failure."""

    pattern: str
    """Clause, operation and dtype, a space between them; * stands for anything."""
    reason: str
    link: str
    error: str
    """A part of the text of the failure."""

    def covers(self, clauses: Sequence[str], operation: str, dtype: str) -> bool:
        """Whether a test of these clauses is meant; of none, where an operation could not be called."""
        return any(fnmatchcase(f"{clause} {operation} {dtype}", self.pattern) for clause in clauses or ("",))


def read(path: Path) -> tuple[Known, ...]:
    """Read a file of known failures."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadFile(f"{path} is no TOML: {error}") from error
    entries = content.get("known")
    if set(content) != {"known"} or not isinstance(entries, list):
        raise BadFile(f"{path} has {', '.join(content) or 'nothing'}, expected [[known]] entries alone")
    return tuple(_entry(path, number, entry) for number, entry in enumerate(entries, 1))


def _entry(path: Path, number: int, entry: dict[str, object]) -> Known:
    """Make one entry; each field has to be there, as a text that is not empty, and no other."""
    expected = [field.name for field in fields(Known)]
    faults = [f"lacks {name!r}" for name in expected if name not in entry]
    faults += [
        f"has {name!r}, which is none of {', '.join(expected)}" for name in entry if name not in expected
    ]
    faults += [
        f"has {name} = {value!r}, expected a text"
        for name, value in entry.items()
        if name in expected and not (isinstance(value, str) and value)
    ]
    if not faults and len(str(entry["pattern"]).split()) != 3:
        faults = [f"has the pattern {entry['pattern']!r}, expected clause, operation and dtype"]
    if faults:
        raise BadFile(f"{path}: entry {number} {faults[0]}")
    return Known(**{name: str(entry[name]) for name in expected})
