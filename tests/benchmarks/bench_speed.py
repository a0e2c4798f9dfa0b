"""Times of all works, by pytest-benchmark: `python3 dev.py bench`. Nothing here fails for being slow."""

import os
import time
from functools import lru_cache
from typing import Any

import pytest
import torch

from tests.benchmarks.memory import peak
from tests.benchmarks.profile import operators
from tests.benchmarks.works import TINY, WORKS, Contest, Sizes, Work

SECONDS, FEWEST, MOST = 0.5, 3, 30
"""Rounds of one call go on for so long, but for fewest and most of them."""

FLOOR = "floor"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each call of each size of each work, calls of one size beside each other."""
    cases = []
    for work in WORKS:
        names = [FLOOR, *work.build(TINY[work.letters], "cpu").calls]
        cases += [(work, size, name) for size in work.sizes for name in names]
    ids = [f"{work.name}: {name} {size}" for work, size, name in cases]
    metafunc.parametrize(("work", "size", "name"), cases, ids=ids)


@lru_cache(maxsize=1)
def contest(work: Work, size: Sizes, device: str) -> Contest:
    """What is built once for all calls of a size; one processor, as SciPy's filter has."""
    if device == "cpu":
        torch.set_num_threads(1)
    return work.build(size, device)


def test_speed(work: Work, size: Sizes, name: str, benchmark: Any, request: pytest.FixtureRequest) -> None:
    """One call, at its median over some rounds, and its peak of memory."""
    device = request.config.getoption("--device")
    one = contest(work, size, device)
    call = one.floor if name == FLOOR else one.calls[name]

    def complete() -> None:
        call()
        if device != "cpu":
            torch.cuda.synchronize()

    complete()
    begin = time.perf_counter()
    complete()
    seconds = time.perf_counter() - begin
    most = peak(call, device) if seconds < work.traced else None
    benchmark.extra_info.update(work=work.name, size=size, name=name, device=device, peak=most)
    benchmark.pedantic(complete, rounds=min(max(int(SECONDS / seconds), FEWEST), MOST))
    if name == "ours" and size in {work.sizes[-1], *(aim.size for aim in work.aims)}:
        benchmark.extra_info["operators"] = operators(call, device)


@pytest.fixture(autouse=True)
def one_thread_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a peer starts of itself would share the processor with what is timed."""
    monkeypatch.setitem(os.environ, "TOKENIZERS_PARALLELISM", "false")
