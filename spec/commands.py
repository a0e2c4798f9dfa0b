"""The commands that read the clauses: `rlspec show`, `rlspec list`."""

import argparse
import sys
import textwrap
from collections.abc import Iterator

import pandas as pd

from spec.clauses import Clause
from spec.registry import Registry, current

WIDTH = 100


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add these commands to those of a parser; each sets `run`, which takes the parsed arguments."""
    show = commands.add_parser("show", help="print one clause, with all that is known of it")
    show.add_argument("slug", help="the clause, for example gae.td-error")
    show.set_defaults(run=lambda arguments: _show(current(), arguments.slug))
    listing = commands.add_parser("list", help="print a table of the clauses")
    listing.add_argument("chapter", nargs="?", help="a chapter's prefix, for example gae (default: all)")
    listing.set_defaults(run=lambda arguments: _list(current(), arguments.chapter))


def describe(clause: Clause, registry: Registry) -> str:
    """A clause as text for a terminal."""
    derivations = [f"{name} ({status})" for name, status in clause.derivations]
    fields = {
        "Source": clause.source,
        "Reference": clause.reference,
        "Derivation": derivations,
        "Conventions": clause.conventions,
        "Bugs": clause.bugs,
        "Untestable": [clause.untestable] if clause.untestable else [],
        "Tests": [test.name for test in registry.tests_of(clause.slug)],
        "Permalink": [clause.permalink],
        "Citation": [f"# {clause.citation}"],
    }
    paragraphs = [
        f"{clause.slug}: {clause.title}\n{clause.kind}, version {clause.version}, hash {clause.hash}",
        textwrap.fill(clause.normative, WIDTH),
        textwrap.fill(f"Assumptions: {clause.assumptions}", WIDTH) if clause.assumptions else "",
        *(
            textwrap.fill(formula, WIDTH, initial_indent="    ", subsequent_indent="    ")
            for formula in clause.formulas
        ),
        "\n".join(line for name, entries in fields.items() for line in _field(name, list(entries))),
        f"To quote it in a review:\n\n{quotation(clause)}",
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def quotation(clause: Clause) -> str:
    """A clause as a Markdown quotation, with its citation below."""
    return (
        f"> **{clause.slug}** ({clause.kind}, version {clause.version}): {clause.normative}\n>\n"
        f"> [{clause.permalink}]({clause.permalink}), `{clause.citation}`"
    )


def table(registry: Registry, chapter: str | None = None) -> pd.DataFrame:
    """The clauses, of one chapter or of all, a row each."""
    return pd.DataFrame(
        [
            {
                "slug": clause.slug,
                "kind": clause.kind,
                "version": clause.version,
                "hash": clause.hash,
                "must": "MUST" if clause.binds else "",
                "derivation": "; ".join(dict.fromkeys(status for _, status in clause.derivations)),
                "tests": len(registry.tests_of(clause.slug)),
            }
            for clause in registry.clauses.values()
            if chapter in (None, clause.prefix)
        ]
    )


def _show(registry: Registry, slug: str) -> int:
    if (clause := registry.clauses.get(slug)) is None:
        return _fail(f"you asked for {registry.unknown(slug)}")
    print(describe(clause, registry))
    return 0


def _list(registry: Registry, chapter: str | None) -> int:
    found = table(registry, chapter)
    if found.empty:
        prefixes = ", ".join(page.prefix for page in registry.pages)
        return _fail(f"there is no chapter {chapter}; the chapters are {prefixes}")
    print(found.to_markdown(index=False, tablefmt="simple", disable_numparse=True))
    return 0


def _field(name: str, entries: list[str]) -> Iterator[str]:
    """The lines of a field, its name in front of the first."""
    for k, entry in enumerate(entries):
        label = f"{name:<12} " if k == 0 else " " * 13
        yield textwrap.fill(
            entry,
            WIDTH,
            initial_indent=label,
            subsequent_indent=" " * 15,
            break_long_words=False,
            break_on_hyphens=False,
        )


def _fail(message: str) -> int:
    print(f"rlspec: {message}", file=sys.stderr)
    return 1
