"""The gates: what must hold between pages, reference, derivations and tests, both ways.

Each gate yields the place of a problem and what is wrong and to be done there.
"""

import itertools
import re
from collections.abc import Iterator
from datetime import date
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from spec.clauses import KINDS, Version, anchor

if TYPE_CHECKING:
    from spec.registry import Registry

NEEDS_DERIVATION = ("identity", "limit", "bound")
STATUS = re.compile(r"proved|witnessed|verified for [a-zA-Z]+ <= \d+")

Problems = Iterator[tuple[str, str]]


def problems(registry: "Registry") -> Problems:
    """Every problem of every gate."""
    pages = (slugs, histories, derivations, registered_derivations, references, links)
    sources = (tests, mentions, citations)
    return itertools.chain.from_iterable(gate(registry) for gate in (*pages, *sources))


def slugs(registry: "Registry") -> Problems:
    """A slug has its page's prefix, names one clause, and is never used again; kinds are known."""
    owners: dict[str, str] = {}
    for page in registry.pages:
        if (owner := owners.setdefault(page.prefix, page.path)) != page.path:
            yield f"{page.path}:1", f"the prefix {page.prefix} is that of {owner}: take another"
    for page in registry.pages:
        for clause in page.clauses:
            first = registry.clauses[clause.slug]
            if clause.prefix != page.prefix:
                yield clause.place, f"{clause.slug} must begin with the prefix of its page, {page.prefix}"
            if clause is not first:
                yield clause.place, f"{clause.slug} is at {first.place} already: a slug names one clause"
            if clause.slug in registry.retired:
                where = registry.retired[clause.slug]
                yield clause.place, f"{clause.slug} is retired ({where}): take a new slug"
            if clause.kind not in KINDS:
                yield clause.place, f"{clause.slug}: the kind {clause.kind} is none of {', '.join(KINDS)}"


def histories(registry: "Registry") -> Problems:
    """The newest version entry is the clause's version and has the hash of its text."""
    for clause in registry.all_clauses():
        newest = clause.versions[0]
        if newest.number != clause.version:
            yield (
                clause.place,
                f"{clause.slug} is at version {clause.version}, its newest entry under Versions at "
                f"{newest.number}: put the entry of {clause.version} first",
            )
        elif newest.hash != clause.hash:
            yield (
                clause.place,
                f"{clause.slug}: the text hashes to `{clause.hash}`, that of version {newest.number} to "
                f"`{newest.hash}`: a new text takes a new version, with an entry that has its hash",
            )
        if not _falls(clause.versions):
            yield clause.place, f"{clause.slug}: under Versions, numbers and dates must fall, newest first"


def derivations(registry: "Registry") -> Problems:
    """Identities, limits and bounds are derived, and a derivation is what its page says it is."""
    known = {derivation.name: derivation for derivation in registry.derivations}
    for clause in registry.all_clauses():
        if clause.kind in NEEDS_DERIVATION and not clause.derivations:
            yield (
                clause.place,
                f"{clause.slug} is of kind {clause.kind} and has no derivation: write a function under "
                f'@derivation("{clause.slug}", status=...) in spec/ and name it in the field Derivation',
            )
        for name, status in clause.derivations:
            if (found := known.get(name)) is None:
                yield clause.place, f"{clause.slug} names the derivation {name}, which is not registered"
            elif (found.slug, found.status) != (clause.slug, status):
                there = f"{found.place} has it for {found.slug} as {found.status}"
                yield clause.place, f"{clause.slug} names {name} as {status}; {there}"


def registered_derivations(registry: "Registry") -> Problems:
    """Every registered derivation has a status that means something, and is named by its clause."""
    for found in registry.derivations:
        clause = registry.clauses.get(found.slug)
        if not STATUS.fullmatch(found.status):
            yield found.place, f"{found.name}: the status {found.status!r} is none of those in spec/proofs.py"
        if clause is None:
            yield found.place, f"{found.name} derives {registry.unknown(found.slug)}"
        elif found.name not in dict(clause.derivations):
            yield clause.place, f"{clause.slug} must name its derivation {found.name} in the field Derivation"


def references(registry: "Registry") -> Problems:
    """The reference has the functions that a page names."""
    for clause in registry.all_clauses():
        for name in clause.reference:
            if name not in registry.reference_functions:
                yield clause.place, f"{clause.slug} names {name}, which is no public function"


def tests(registry: "Registry") -> Problems:
    """Every conformance test shows a clause, and every clause that says MUST has a test or a reason."""
    for test in registry.tests:
        if not test.slugs:
            fault = (
                "names no clause" if test.slugs == () else "names its clauses by something else than strings"
            )
            yield test.place, f'{test.name} {fault}: put @clauses("chapter.name") over it'
        for slug in test.slugs or ():
            if slug not in registry.clauses:
                yield test.place, f"{test.name} names {registry.unknown(slug)}"
    for clause in registry.all_clauses():
        tested = bool(registry.tests_of(clause.slug))
        if clause.binds and not tested and not clause.untestable:
            yield (
                clause.place,
                f"{clause.slug} says MUST, and no conformance test names it: write one, or say in the field "
                "Untestable why there can be none",
            )
        if clause.untestable and (tested or not clause.binds):
            reason = "has a test" if tested else "binds nobody"
            yield clause.place, f"{clause.slug} {reason}: remove the field Untestable"


def mentions(registry: "Registry") -> Problems:
    """Docstrings and pages name no clause that never was."""
    for mention in registry.mentions:
        if mention.slug not in registry.clauses and mention.slug not in registry.retired:
            yield mention.place, f"this names {registry.unknown(mention.slug)}"


def citations(registry: "Registry") -> Problems:
    """Citations in the project's own sources have the version and hash of today."""
    for cited in registry.citations:
        clause = registry.clauses.get(cited.slug)
        if clause is None:
            yield cited.place, f"this cites {registry.unknown(cited.slug)}"
        elif (cited.version, cited.hash) != (clause.version, clause.hash):
            stale = f"{cited.slug}@{cited.version}#{cited.hash}"
            yield cited.place, f"{stale} is stale: read the clause again, then cite {clause.citation}"


def links(registry: "Registry") -> Problems:
    """Links between pages lead to clauses."""
    anchors = {page.path: {anchor(clause.slug) for clause in page.clauses} for page in registry.pages}
    for page in registry.pages:
        for line, target in page.links:
            file, _, fragment = target.partition("#")
            path = str(PurePosixPath(page.path).parent / file) if file else page.path
            if fragment and path in anchors and fragment not in anchors[path]:
                yield f"{page.path}:{line}", f"the link {target} leads to no clause of {path}"


def _falls(versions: tuple[Version, ...]) -> bool:
    """Whether version numbers fall, and dates are real and do not rise."""
    try:
        days = [date.fromisoformat(version.date) for version in versions]
    except ValueError:
        return False
    numbers = [tuple(map(int, version.number.split("."))) for version in versions]
    return all(new > old for new, old in itertools.pairwise(numbers)) and days == sorted(days, reverse=True)
