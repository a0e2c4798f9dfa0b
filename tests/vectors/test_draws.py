"""Choices read off a text: the same everywhere, evenly spread, and good for a case of every region."""

import hashlib
from collections import Counter

import pytest

from conformance.cases import MASK_REGIONS, REGIONS, draw_case
from conformance.draws import ByText


def test_bytes_are_digests_of_the_text_and_a_counter() -> None:
    draw = ByText("a text")
    digests = b"".join(hashlib.sha256(f"a text {k}".encode()).digest() for k in range(3))
    assert draw.octets(5) + draw.octets(91) == digests


def test_every_value_is_drawn_about_as_often() -> None:
    draw = ByText("")
    one_of, between = (Counter(x) for x in zip(*_pairs(draw, 3000), strict=True))
    assert set(one_of) == {"a", "b", "c"}
    assert set(between) == {-1, 0, 1}
    assert min(*one_of.values(), *between.values()) > 3000 / 4


def _pairs(draw: ByText, count: int) -> list[tuple[str, int]]:
    return [(draw.one_of("a", "b", "c"), draw.between(-1, 1)) for _ in range(count)]


@pytest.mark.parametrize("region", REGIONS)
def test_cases_are_of_their_region(region: str) -> None:
    for k in range(20):
        case = draw_case(ByText(f"{k}"), "gae", region, "float32")
        mask, bootstrap = case.arguments["mask"], case.arguments["bootstrap_value"]
        assert case.region == region
        holds = {
            "holes": lambda mask=mask: (~mask[:, :-1]).any(axis=1).all() and mask[:, -1].all(),
            "empty-rows": lambda mask=mask: mask.any() and not mask.any(axis=1).all(),
            "nothing-active": lambda mask=mask: not mask.any(),
            "one-active": lambda mask=mask: mask.sum() == 1,
            "one-token": lambda mask=mask: mask.shape[1] == 1,
            "one-row": lambda mask=mask: len(mask) == 1,
            "square": lambda mask=mask: mask.shape[0] == mask.shape[1],
            "terminated": lambda bootstrap=bootstrap: not bootstrap.any(),
            "truncated": lambda bootstrap=bootstrap: bootstrap.all(),
        }
        assert set(MASK_REGIONS) < set(holds)
        assert region not in holds or holds[region]()  # type: ignore[no-untyped-call]
