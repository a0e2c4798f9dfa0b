"""README.md shows verdicts as they came out, names files that exist, and commands that are there."""

import re

import pytest

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
