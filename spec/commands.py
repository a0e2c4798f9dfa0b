"""The commands that read the clauses: `rlspec show`, `rlspec list`."""

import argparse
import difflib
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import pandas as pd

from spec.clauses import Clause
from spec.registry import Registry, current

WIDTH = 100
_CITED = re.compile(
    r"(?:\W*spec: *)?(?P<slug>[^@#\s]+)(?:@(?P<version>\d+\.\d+))?(?:#(?P<hash>[0-9a-f]{8}))?"
)


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add these commands to those of a parser; each sets `run`, which takes the parsed arguments."""
    show = commands.add_parser("show", help="print one clause, with all that is known of it")
    show.add_argument(
        "slug", help="the clause, for example gae.td-error, or a citation of it, gae.td-error@1.0#0123abcd"
    )
    show.set_defaults(run=lambda arguments: _show(current(), arguments.slug))
    listing = commands.add_parser("list", help="print a table of the clauses")
    listing.add_argument(
        "chapter",
        nargs="?",
        help="a chapter's prefix or page, for example ppo or policy_loss (default: all)",
    )
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
    """A clause as a Markdown quotation, with its page and citation below."""
    return (
        f"> **{clause.slug}** ({clause.kind}, version {clause.version}): {clause.normative}\n>\n"
        f"> {clause.page}, `{clause.citation}`"
    )


def currency(clause: Clause, version: str | None, digest: str | None) -> str:
    """Say whether a citation of a clause has its version and hash of today, and what changed if not."""
    if version is None and digest is None:
        return ""
    cited = f"{clause.slug}{f'@{version}' if version else ''}{f'#{digest}' if digest else ''}"
    if version in (None, clause.version) and digest in (None, clause.hash):
        return f"You cited {cited}, which is current."
    told = f"You cited {cited}, which is stale: it is {clause.citation.removeprefix('spec: ')} now."
    places = [
        k for k, v in enumerate(clause.versions) if version in (None, v.number) and digest in (None, v.hash)
    ]
    if not places:
        return f"{told} It never had that version and hash."
    since = [f"  {v.number} ({v.date}): {v.change}" for v in clause.versions[: places[0]]]
    return "\n".join([f"{told} Since then:", *since])


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
            if chapter in (None, clause.prefix, PurePosixPath(clause.page).stem)
        ]
    )


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """Say that nothing of a kind has this name, and which names are near; all of them where none is."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=3)
    hint = f"near: {', '.join(near)}" if near else f"the {kind}s are {', '.join(names)}"
    return f"there is no {kind} {word}; {hint}"


def fail(message: str) -> int:
    """Say why a command cannot be done, and return its exit status."""
    print(f"rlspec: {message}", file=sys.stderr)
    return 1


def _show(registry: Registry, words: str) -> int:
    cited = _CITED.fullmatch(words.strip())
    slug, version, digest = cited.group("slug", "version", "hash") if cited else (words, None, None)
    if (clause := registry.clauses.get(slug)) is None:
        return fail(f"you asked for {registry.unknown(slug)}")
    if told := currency(clause, version, digest):
        print(f"{told}\n")
    print(describe(clause, registry))
    return 0


def _list(registry: Registry, chapter: str | None) -> int:
    found = table(registry, chapter)
    if chapter is not None and found.empty:
        names = [name for page in registry.pages for name in (page.prefix, PurePosixPath(page.path).stem)]
        return fail(unknown("chapter", chapter, dict.fromkeys(names)))
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
