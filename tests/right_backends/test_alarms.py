"""A campaign that is stopped tells what it has done."""

import math
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest

from tests.campaigns import Record
from tests.right_backends import alarms
from tests.right_backends.styles import STYLES, Style

TWO = STYLES[:2]
DTYPES = ["float64", "float32"]
[SMALL] = [style for style in STYLES if style.module == "torch_reward"]


@pytest.fixture
def _signal() -> Iterator[None]:
    """What a signal does to this process is as before again."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def ran(style: Style, dtype: str, profile: str, seed: int) -> alarms.Trial:
    return alarms.Trial(style, dtype, seed, 1, ("a test",) if seed == 1 else (), (), "2026-11-29")


def run(seeds: range, record: Record | None, until: float = math.inf) -> list[alarms.Trial]:
    return list(alarms.trials((SMALL,), DTYPES, "quick", seeds, 1, until, record))


def test_what_was_found_is_not_looked_for_again(tmp_path: Path) -> None:
    """The second time, everything is in the record: there is no time for more."""
    record = Record(tmp_path / "record")
    done = run(range(2), record)
    assert [(one.dtype, one.seed) for one in done] == [(d, s) for s in (0, 1) for d in DTYPES]
    assert all(one.tests > 20 and not one.alarms for one in done)
    late = time.monotonic() - 1.0
    assert run(range(3), Record(tmp_path / "record"), until=late) == done


def test_none_is_started_late() -> None:
    assert run(range(1), None, until=time.monotonic() - 1.0) == []


def test_stopped_by_hand() -> None:
    def running() -> Iterator[alarms.Trial]:
        yield ran(TWO[1], "float32", "quick", 0)
        yield ran(TWO[0], "float32", "quick", 0)
        raise KeyboardInterrupt

    assert [one.style for one in alarms.until_stopped(running())] == [*TWO]


@pytest.mark.usefixtures("_signal")
def test_stopped_by_a_signal_and_another_one() -> None:
    signal.signal(signal.SIGTERM, alarms._interrupt)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)


def test_what_xla_has_compiled_is_forgotten() -> None:
    compiled: Any = jax.jit(lambda x: x + 1)
    compiled(1.0)
    assert compiled._cache_size() == 1
    alarms._forget_programs()
    assert compiled._cache_size() == 0


def test_what_was_run_on_two_days_says_so() -> None:
    done = [replace(ran(TWO[0], "float64", "quick", 0), day=f"2026-12-0{n}") for n in (3, 1, 2)]
    assert alarms._days(done) == "2026-12-01 to 2026-12-03"
    assert alarms._days(done[:1]) == "2026-12-03"


def test_every_cell_says_how_many_seeds_it_had() -> None:
    done = [ran(TWO[0], "float64", "quick", seed) for seed in range(3)] + [ran(TWO[1], "float32", "quick", 0)]
    table = alarms.by_style(done)
    assert table.loc[TWO[0].module, "float64"] == "1 / 3"
    assert table.loc[TWO[1].module, "float32"] == "0 / 1"
    assert list(table.loc["all", DTYPES]) == ["1 / 3", "0 / 1"]


@pytest.mark.usefixtures("_signal")
def test_the_page_has_what_was_undecided(tmp_path: Path) -> None:
    """What is on record is written out; the section is there where it says something."""
    file = tmp_path / "record"
    words = ["--profile", "quick", "--style", SMALL.module, "--dtype", "float32", "--minutes", "0"]
    key = alarms._key(SMALL, "float32", "quick", 0)
    for number, undecided in enumerate([[], ["a test"]]):
        record = Record(file.with_suffix(f".{number}"))
        record.put(key, (20, [], undecided, "2026-11-30"))
        assert alarms.main([*words, "--record", str(record.path), "--write", str(tmp_path)]) == 0
        text = (tmp_path / alarms.PAGE).read_text(encoding="utf-8")
        assert "0 / 1" in text
        assert (alarms.UNDECIDED in text) == ("a test" in text) == bool(undecided)


def test_what_nothing_decided_is_counted_by_test() -> None:
    once, never = ran(TWO[0], "float16", "quick", 0), ran(TWO[1], "float16", "quick", 0)
    done = [replace(once, undecided=("a", "b")), replace(once, undecided=("b",), seed=2), never]
    table = alarms.by_test(done)
    assert table.to_dict()["seeds"] == {(TWO[0].module, "a"): 1, (TWO[0].module, "b"): 2}
