"""What a clause is, and the hash by which a citation knows that it has not changed."""

import hashlib
import re
from dataclasses import dataclass

KINDS = ("definition", "identity", "limit", "case", "bound", "convention", "warning")
SLUG = r"[a-z][a-z0-9]*\.[a-z0-9]+(?:-[a-z0-9]+)*"
"""A chapter's prefix, a dot, a name: lower case, with hyphens. A regular expression."""


@dataclass(frozen=True)
class Version:
    """One entry of a clause's history."""

    number: str
    date: str
    hash: str
    change: str


@dataclass(frozen=True)
class Clause:
    """One clause, as its block has it; texts are Markdown with the white space normalised."""

    slug: str
    title: str
    kind: str
    version: str
    normative: str
    assumptions: str
    formulas: tuple[str, ...]
    prose: str
    source: tuple[str, ...]
    reference: tuple[str, ...]
    """Functions of the reference, by dotted name."""
    derivations: tuple[tuple[str, str], ...]
    """Derivations, by dotted name, each with its status."""
    conventions: tuple[str, ...]
    bugs: tuple[str, ...]
    untestable: str
    versions: tuple[Version, ...]
    """The history, newest first."""
    page: str
    line: int

    @property
    def hash(self) -> str:
        """Eight hexadecimal digits of what binds a backend."""
        text = "\n".join((self.kind, self.normative, self.assumptions, *self.formulas))
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def binds(self) -> bool:
        """Whether a backend must do something."""
        return bool(re.search(r"\bMUST\b", self.normative))

    @property
    def prefix(self) -> str:
        """The part of the slug that all clauses of its page share."""
        return self.slug.partition(".")[0]

    @property
    def place(self) -> str:
        """Where the block begins."""
        return f"{self.page}:{self.line}"

    @property
    def permalink(self) -> str:
        """The block's address, relative to the project's root."""
        return f"{self.page}#{anchor(self.slug)}"

    @property
    def citation(self) -> str:
        """What a source file writes to cite the clause."""
        return f"spec: {self.slug}@{self.version}#{self.hash}"


def anchor(heading: str) -> str:
    """The anchor that code hosts and Sphinx give a heading that is a slug."""
    return heading.replace(".", "")
