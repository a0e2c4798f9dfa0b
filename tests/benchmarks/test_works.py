"""Every work can be done, at a tiny size; tables and verdicts on aims come out of what was measured."""

from typing import Any

import pytest
import torch

from tests.benchmarks import __main__ as bench
from tests.benchmarks.memory import peak
from tests.benchmarks.profile import operators
from tests.benchmarks.works import TINY, WORKS, Aim, Work


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


@pytest.mark.parametrize(("verl", "met"), [(40e-3, bench.MET), (39e-3, bench.MISSED)])
def test_aims_are_compared_with_what_was_measured(verl: float, met: str) -> None:
    """The first work aims at 20 times as fast as verl at every size, and at 50 times at the first."""
    found = bench.against_aims(entries(floor=1e-3, ours=2e-3, verl=verl))
    assert list(found["met"]) == [met, bench.MISSED]
    assert list(found["at"]) == ["every size", "64, 512"]
    assert list(found["aim"]) == ["20 times as fast as verl", "50 times as fast as verl"]
    assert set(found["reached"]) == {f"{verl / 2e-3:.3g}"}


@pytest.mark.parametrize(
    ("aim", "words"),
    [(Aim("scipy", 1.0), "as fast as scipy"), (Aim("floor", 1 / 0.85), "at most 1.18 × the floor")],
)
def test_an_aim_in_words(aim: Aim, words: str) -> None:
    assert aim.words == words


def test_a_missed_aim_has_its_profile() -> None:
    found = entries(floor=1e-3, ours=2e-3, verl=39e-3)
    found[1]["operators"] = [("mul", 0.75, 2.0), ("sub", 0.25, 1.0)]
    text = bench.page(found, "a command", "cpu", "a processor")
    assert "`mul` 75% (2), `sub` 25% (1)" in text
    assert "Where the time goes" not in bench.page(entries(floor=1e-3, ours=1e-3, verl=1.0), "", "cpu", "")


def test_operators_are_named_with_their_calls() -> None:
    x = torch.ones(10**6)
    found = operators(lambda: x.exp_().exp_())
    assert [(name, calls) for name, _, calls in found] == [("exp_", 2.0)]
    assert [share for _, share, _ in found] == [1.0]


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
