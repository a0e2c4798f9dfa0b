"""The frame of a failure message: which clause, which operation, and the command that runs it again."""

import shlex
import textwrap

import pytest

from spec.registry import current

WIDTH = 110
SENTENCE_LINES = 3
LINES = 25
"""Of a message, at most: a clause's sentence is cut, down to one line, where there is more to tell."""

NOT_CALLED, NOT_FINITE = "could not be called", "is not finite in an ordinary call"
"""What is said of an ordinary call that breaks no clause by itself: it gave nothing to judge."""

ABOUT_CALLS = {
    "contract.shapes": "note       shape and dtype are right; it is a number that is wrong, at this size",
    "contract.options-used": "note       the option is taken; the result is wrong at this value of it",
}
"""What to add under clauses that seem to be about something else than numbers."""


def story(item: pytest.Item, slugs: tuple[str, ...], body: str, backend: str, fault: str = "") -> str:
    """Put a test's own message between the clauses that are broken and the command to run it again."""
    operation, dtype = item.callspec.params["run"]  # type: ignore[attr-defined]
    what = f"breaks {slugs[0]}" if slugs else NOT_CALLED if fault else NOT_FINITE
    headline = ": ".join(filter(None, [f"{backend}: {operation} in {dtype} {what}", fault]))
    below = [f"shows also {', '.join(slugs[1:])}"] if slugs[1:] else []
    if slugs and slugs[0] in ABOUT_CALLS and "\ngot  " in body:
        below += [ABOUT_CALLS[slugs[0]]]
    below += ["", *body.splitlines(), "", f"again      {command(item)}"]
    room = LINES - len(below) - len(headline.splitlines()) - 1
    cited = clause_lines(slugs[0], max(1, min(room, SENTENCE_LINES))) if slugs else []
    return "\n".join([headline, *cited, *below])


def clause_lines(slug: str, most: int = SENTENCE_LINES) -> list[str]:
    """The citation of a clause, and its sentence in so many lines at most."""
    clause = current().clauses[slug]
    sentence = textwrap.wrap(f"{clause.normative}", WIDTH - 11)
    if len(sentence) > most:
        sentence = [*sentence[: most - 1], f"{sentence[most - 1]} ..."]
    citation = clause.citation.removeprefix("spec: ")
    return [f"clause     {citation}  {clause.permalink}", *(f"           {line}" for line in sentence)]


def command(item: pytest.Item) -> str:
    """The command line that runs this test alone, with the options of this run."""
    here = item.config.invocation_params.dir
    file = item.path.relative_to(here) if item.path.is_relative_to(here) else item.path
    words = ["pytest", f"{file.as_posix()}::{item.name}"]
    defaults = {"backend": None, "device": "cpu", "profile": "default", "seed": 0, "time-limit": 60.0}
    for name, default in defaults.items():
        value = item.config.getoption(f"--{name}")
        if value != default:
            words += [f"--{name}", str(value)]
    words += ["--dtype", item.callspec.params["run"][1]]  # type: ignore[attr-defined]
    return " ".join(map(shlex.quote, words))
