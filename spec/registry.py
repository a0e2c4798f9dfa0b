"""The registry: every clause, and all that the project says of it.

Nothing of the project is imported: pages are read as Markdown, Python sources as syntax trees.
"""

import difflib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from spec import gates, sources
from spec.clauses import SLUG, Clause
from spec.pages import Page, read_page, read_retired
from spec.sources import Derivation, Mention, Test

ROOT = Path(__file__).resolve().parent.parent
RETIRED = Path("spec", "retired.md")
CITING_FOLDERS = ("reference", "torch_impl", "conformance")


@dataclass(frozen=True)
class Registry:
    """All that the project says of its clauses."""

    pages: tuple[Page, ...]
    retired: dict[str, str]
    """Slugs that were clauses once, each with where that is written."""
    tests: tuple[Test, ...]
    derivations: tuple[Derivation, ...]
    reference_functions: frozenset[str]
    mentions: tuple[Mention, ...]
    """Clauses named in docstrings and on pages."""
    citations: tuple[Mention, ...]
    """Clauses cited with version and hash."""

    @classmethod
    def load(cls, root: Path = ROOT) -> "Registry":
        """Read the pages and sources under a folder that has `spec/`, `reference/` and `conformance/`."""
        paths = sorted(path for path in (root / "spec").glob("*.md") if path != root / RETIRED)
        pages = tuple(read_page(path, root) for path in paths)
        prefixes = {page.prefix for page in pages}
        docstrings = sources.docstring_mentions(root, CITING_FOLDERS, prefixes)
        return cls(
            pages=pages,
            retired=read_retired(root / RETIRED, root),
            tests=tuple(sources.tests(root)),
            derivations=tuple(sources.derivations(root)),
            reference_functions=frozenset(sources.public_functions(root, "reference")),
            mentions=(*docstrings, *(mention for page in pages for mention in _named_on(page, prefixes))),
            citations=tuple(sources.citations(root, (*CITING_FOLDERS, "spec"))),
        )

    @cached_property
    def clauses(self) -> dict[str, Clause]:
        """The clauses by slug, in reading order; of two with one slug the first."""
        clauses: dict[str, Clause] = {}
        for clause in self.all_clauses():
            clauses.setdefault(clause.slug, clause)
        return clauses

    def tests_of(self, slug: str) -> list[Test]:
        """The conformance tests that name a clause."""
        return [test for test in self.tests if slug in (test.slugs or ())]

    def near(self, slug: str) -> list[str]:
        """The slugs that look most like this one."""
        return difflib.get_close_matches(slug, self.clauses, n=3, cutoff=0.5)

    def unknown(self, slug: str) -> str:
        """Say why a slug is none of a clause, and which it may have been meant for."""
        if slug in self.retired:
            return f"{slug}, a retired clause ({self.retired[slug]})"
        near = ", ".join(self.near(slug))
        return f"{slug}, which is no clause" + (f"; near: {near}" if near else "")

    def problems(self) -> list[str]:
        """What breaks a gate, each with its place and what to do; empty when all is well.

        Pages that cannot be read come alone: what else is wrong would mostly follow from that.
        """
        malformed = [problem for page in self.pages for problem in page.problems]
        return malformed or [f"{place}: {message}" for place, message in gates.problems(self)]

    def all_clauses(self) -> Iterator[Clause]:
        """The clauses in reading order, repeated slugs included."""
        return itertools.chain.from_iterable(page.clauses for page in self.pages)


@cache
def current() -> Registry:
    """The registry of this project, read once in a process."""
    return Registry.load()


def _named_on(page: Page, prefixes: set[str]) -> Iterator[Mention]:
    """The slugs in code spans of a page."""
    for line, code in page.code:
        if re.fullmatch(SLUG, code) and code.partition(".")[0] in prefixes:
            yield Mention(code, f"{page.path}:{line}")
