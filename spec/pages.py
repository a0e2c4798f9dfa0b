"""Read a chapter's page: one block a clause, and what its normative text hashes to.

A page opens with a heading that has the chapter's prefix in a code span. Each heading of level 2 is a
slug and opens a block:

    ## gae.td-error

    **TD error.** definition, version 1.0

    > The normative sentence.

    Assumptions: what it takes for granted.

    $$
    formulas, each a paragraph of its own
    $$

    Free prose.

    - Source: a list of fields, one entry each, or
    - Conventions:
      - several entries

Assumptions, formulas, prose and most fields may be missing. The hash covers kind, sentence, assumptions
and formulas: whatever a backend is held to.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode as Node

from spec.clauses import SLUG, Clause, Version

FIELDS = ("Source", "Reference", "Derivation", "Conventions", "Bugs", "Untestable", "Versions")
_ASSUME = "Assumptions: "
_HEAD = re.compile(r"\*\*(?P<title>[^*]+)\.\*\* (?P<kind>\S+), version (?P<version>\d+\.\d+)")
_VERSION = re.compile(r"(\d+\.\d+) \((\d{4}-\d{2}-\d{2}), `([0-9a-f]{8})`\) (\S.*)")
_FUNCTION = re.compile(r"`(reference(?:\.\w+)+)`")
_DERIVATION = re.compile(r"`(spec\.\w+\.\w+)` \(([^()]+)\)")


def _listed(form: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(rf"{form.pattern}(, {form.pattern})*")


_FORMS = {
    "Reference": (_listed(_FUNCTION), "`reference.module.function`"),
    "Derivation": (_listed(_DERIVATION), "`spec.module.function` (proved)"),
    "Versions": (_VERSION, "1.0 (2026-01-31, `0123abcd`) what changed"),
}


@dataclass(frozen=True)
class Page:
    """A chapter's page: its clauses, and what is wrong with their form."""

    path: str
    prefix: str
    clauses: tuple[Clause, ...]
    problems: tuple[str, ...]
    links: tuple[tuple[int, str], ...]
    """Targets of its links, each with its line."""
    code: tuple[tuple[int, str], ...]
    """Its code spans, each with its line."""


def read_page(path: Path, root: Path) -> Page:
    """Read a page; what is malformed is left out and reported."""
    page = path.relative_to(root).as_posix()
    tree = Node(MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8")))
    opening, *blocks = _blocks(tree.children)
    problems = [f"{page}:{fault}" for fault in _misread(tree)]
    prefixes = [node.content for node in opening[0].walk() if node.type == "code_inline"] if opening else []
    if len(prefixes) != 1:
        problems.append(
            f"{page}:1: open the page with a heading that has the prefix of its slugs in a code span"
        )
    clauses = []
    for block in blocks:
        try:
            clauses.append(_clause(block, page))
        except _Malformed as fault:
            problems.append(f"{page}:{fault}")
    links = [(_line(node), str(node.attrs["href"])) for node in tree.walk() if node.type == "link"]
    code = [(_line(node), node.content) for node in tree.walk() if node.type == "code_inline"]
    return Page(page, "".join(prefixes[:1]), tuple(clauses), tuple(problems), tuple(links), tuple(code))


def read_retired(path: Path, root: Path) -> dict[str, str]:
    """Read the list of retired slugs: each entry opens with its slug in a code span."""
    tree = Node(MarkdownIt("commonmark").parse(path.read_text(encoding="utf-8")))
    items = (node for node in tree.walk() if node.type == "list_item")
    slugs = (
        (_line(item), next(leaf.content for leaf in item.walk() if leaf.type == "code_inline"))
        for item in items
    )
    return {slug: f"{path.relative_to(root).as_posix()}:{line}" for line, slug in slugs}


class _Malformed(Exception):
    """A block that is not of the form above; the message opens with its line."""


def _clause(block: list[Node], page: str) -> Clause:
    heading, *body = block
    head = _checked_head(heading, body)
    fields = _fields(body[-1])
    paragraphs = [_text(node) for node in body if node.type == "paragraph"]
    return Clause(
        slug=_text(heading),
        title=head["title"],
        kind=head["kind"],
        version=head["version"],
        normative="".join(_text(node) for node in body if node.type == "blockquote"),
        assumptions=" ".join(text.removeprefix(_ASSUME) for text in paragraphs if text.startswith(_ASSUME)),
        formulas=tuple(_formula(node) for node in body if _is_formula(node)),
        prose=_prose(body),
        source=fields.get("Source", ()),
        reference=tuple(_FUNCTION.findall(" ".join(fields.get("Reference", ())))),
        derivations=tuple(_DERIVATION.findall(" ".join(fields.get("Derivation", ())))),
        conventions=fields.get("Conventions", ()),
        bugs=fields.get("Bugs", ()),
        untestable=" ".join(fields.get("Untestable", ())),
        versions=tuple(Version(*found) for entry in fields["Versions"] for found in _VERSION.findall(entry)),
        page=page,
        line=_line(heading),
    )


def _checked_head(heading: Node, body: list[Node]) -> re.Match[str]:
    """Check the outline of a block and return its first line: title, kind and version."""
    slug, line = _text(heading), _line(heading)
    _require(re.fullmatch(SLUG, slug), line, f"{slug!r} is no slug: chapter.name, lower case, with hyphens")
    head = _HEAD.fullmatch(_text(body[0])) if body else None
    if head is None:
        raise _Malformed(f"{line}: {slug}: begin with '**Title.** kind, version 1.0'")
    quotes = sum(node.type == "blockquote" for node in body)
    _require(quotes == 1, line, f"{slug}: one block quote holds the normative sentence; found {quotes}")
    _require(body[-1].type == "bullet_list", line, f"{slug}: end with the list of fields, Versions at least")
    return head


def _fields(node: Node) -> dict[str, tuple[str, ...]]:
    """The fields of a block: a line each, or a list each; those that are read further in their form."""
    fields: dict[str, tuple[str, ...]] = {}
    for item in node.children:
        first, *nested = item.children
        name, _, text = _text(first).partition(":")
        entries = [text.strip()] if text.strip() else []
        entries += [_text(entry) for inner in nested for entry in inner.children]
        line = _line(item)
        _require(name in FIELDS, line, f"the field {name!r} is none of {', '.join(FIELDS)}")
        _require(name not in fields, line, f"the field {name} is there twice: make it a list")
        _require(entries, line, f"the field {name} is empty: fill it or leave it out")
        form, example = _FORMS.get(name, (re.compile(".*"), ""))
        for entry in entries:
            _require(form.fullmatch(entry), line, f"{name} must look like {example}, not {entry!r}")
        fields[name] = tuple(entries)
    _require("Versions" in fields, _line(node), "the field Versions is missing")
    return fields


def _blocks(nodes: list[Node]) -> Iterator[list[Node]]:
    """What stands before the first clause, then each clause from its heading on."""
    block: list[Node] = []
    for node in nodes:
        if node.type == "heading" and node.tag == "h2":
            yield block
            block = []
        block.append(node)
    yield block


def _misread(tree: Node) -> Iterator[str]:
    """Say where Markdown takes an underscore or an angle bracket of a formula for its own."""
    for node in tree.walk():
        if node.type in ("em", "strong") and node.markup.startswith("_") and not _in_formula(node):
            yield f"{_line(node)}: an underscore is read as emphasis: put it between two letters"
        if node.type in ("html_inline", "html_block"):
            yield f"{_line(node)}: HTML is not read here: write Markdown"


def _is_formula(node: Node) -> bool:
    return node.type == "paragraph" and _text(node).startswith("$$")


def _formula(node: Node) -> str:
    text = _text(node)
    _require(
        len(text) > 4 and text.endswith("$$"),
        _line(node),
        "the formula does not end with $$ in its paragraph",
    )
    return text.removeprefix("$$").removesuffix("$$").strip()


def _in_formula(node: Node) -> bool:
    return any(_is_formula(above) for above in _above(node))


def _prose(body: list[Node]) -> str:
    """The text that binds nobody, without code spans and formulas: where numbers are checked."""
    free = [
        node
        for node in body[1:-1]
        if node.type != "blockquote" and not _is_formula(node) and not _text(node).startswith(_ASSUME)
    ]
    texts = (leaf.content for node in free for leaf in node.walk() if leaf.type == "text")
    return re.sub(r"\$[^$]*\$", " ", " ".join(texts))


def _text(node: Node) -> str:
    """The Markdown source inside a node, white space normalised."""
    return " ".join(" ".join(leaf.content for leaf in node.walk() if leaf.type == "inline").split())


def _line(node: Node) -> int:
    return next((above.map[0] + 1 for above in _above(node) if above.map), 1)


def _above(node: Node | None) -> Iterator[Node]:
    while node is not None and not node.is_root:
        yield node
        node = node.parent


def _require(condition: object, line: int, message: str) -> None:
    if not condition:
        raise _Malformed(f"{line}: {message}")
