"""Every work can be done, at a tiny size; tables and verdicts on aims come out of what was measured."""

from typing import Any

import pytest
import torch

from tests.benchmarks import __main__ as bench
from tests.benchmarks.memory import peak
from tests.benchmarks.works import TINY, WORKS, Work


@pytest.mark.filterwarnings("ignore")  # peers, where they are installed
@pytest.mark.parametrize("work", WORKS, ids=[work.name for work in WORKS])
def test_every_call_works(work: Work) -> None:
    contest = work.build(TINY[work.letters], "cpu")
    assert next(iter(contest.calls)) == "ours"
    for call in (contest.calls["ours"], contest.floor):
        call()


def entries(**seconds: float) -> list[dict[str, Any]]:
    """Two sizes of the first work, the larger one four times as long."""
    work = WORKS[0]
    return [
        {"work": work.name, "size": list(size), "name": name, "seconds": times * second, "peak": 10**6}
        for times, size in zip((1, 4), work.sizes, strict=False)
        for name, second in seconds.items()
    ]


@pytest.mark.parametrize(("verl", "met"), [(40e-3, "at every size"), (39e-3, "not at every size")])
def test_aims_are_compared_with_what_was_measured(verl: float, met: str) -> None:
    """The first work aims at 20 times as fast as verl."""
    found = bench.against_aims(entries(floor=1e-3, ours=2e-3, verl=verl))
    assert found.loc[WORKS[0].name, "met"] == met
    assert found.loc[WORKS[0].name, "at the largest size"] == f"{verl / 2e-3:.3g}"


def test_page_shows_ratios() -> None:
    text = bench.page(entries(floor=1e-3, ours=2e-3, verl=50e-3), "a command", "cpu", "a processor")
    assert "2 ms, × 2, 1 MB" in text
    assert "50 ms, 25 ours, 1 MB" in text
    assert "200 ms, 25 ours" in text


def test_a_peak_is_what_is_held_at_once() -> None:
    def call() -> torch.Tensor:
        x = torch.zeros(1000, dtype=torch.float32)
        y = x + 1
        del x
        return y + 1

    assert 8000 <= peak(call) < 8500
