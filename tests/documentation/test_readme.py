"""README.md shows verdicts as they came out, names files that exist, and commands that are there."""

import re

import pytest

from spec.registry import Registry
from tests.documentation.verdicts import README, ROOT, shown, verdict

TEXT = README.read_text(encoding="utf-8")


def test_shows_our_own_and_a_real_library() -> None:
    assert set(shown(TEXT)) == {"torch_impl", "verl"}


@pytest.mark.parametrize("backend", shown(TEXT))
def test_verdict_stands_as_it_came_out(backend: str) -> None:
    assert shown(TEXT)[backend] == verdict(backend)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", TEXT))
def test_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_citations_are_current() -> None:
    cited = re.findall(r"# (spec: ([a-z.-]+)@\S+)", TEXT)
    assert cited
    assert all(Registry.load().clauses[slug].citation == citation for citation, slug in cited)
