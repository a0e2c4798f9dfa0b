"""The frame of a failure message: which clause, which operation, and the command that runs it again."""

import shlex
import textwrap

import pytest

from spec.registry import current

WIDTH = 110
SENTENCE_LINES = 3


def story(item: pytest.Item, body: str, backend: str) -> str:
    """Put a test's own message, if any, between the clauses that it shows and the command to run it again."""
    operation, dtype = item.callspec.params["run"]  # type: ignore[attr-defined]
    slugs = item.get_closest_marker("clauses").args  # type: ignore[union-attr]
    lines = [f"{backend}: {operation} in {dtype} breaks {slugs[0]}", *clause_lines(slugs[0])]
    if slugs[1:]:
        lines.append(f"shows also {', '.join(slugs[1:])}")
    told = ["", *body.splitlines(), ""] if body else []
    return "\n".join([*lines, *told, f"again      {command(item)}"])


def clause_lines(slug: str) -> list[str]:
    """The citation and the sentence of a clause."""
    clause = current().clauses[slug]
    sentence = textwrap.wrap(f"{clause.normative}", WIDTH - 11)
    if len(sentence) > SENTENCE_LINES:
        sentence = [*sentence[: SENTENCE_LINES - 1], f"{sentence[SENTENCE_LINES - 1]} ..."]
    citation = clause.citation.removeprefix("spec: ")
    return [f"clause     {citation}  {clause.permalink}", *(f"           {line}" for line in sentence)]


def command(item: pytest.Item) -> str:
    """The command line that runs this test alone, with the options of this run."""
    words = ["pytest", item.nodeid]
    defaults = {"backend": None, "device": "cpu", "profile": "default", "seed": 0, "time-limit": 60.0}
    for name, default in defaults.items():
        value = item.config.getoption(f"--{name}")
        if value != default:
            words += [f"--{name}", str(value)]
    words += ["--dtype", item.callspec.params["run"][1]]  # type: ignore[attr-defined]
    return " ".join(map(shlex.quote, words))
