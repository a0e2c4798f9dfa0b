"""A campaign that is stopped tells what it has done, seed by seed."""

import time
from collections.abc import Iterator

import pytest

from tests.right_backends import alarms
from tests.right_backends.styles import STYLES, Style

TWO = STYLES[:2]
DTYPES = ["float64", "float32"]


def ran(style: Style, dtype: str, profile: str, seed: int) -> alarms.Trial:
    return alarms.Trial(style, dtype, seed, 1, ("a test",) if seed == 1 else ())


def test_seeds_come_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def run(style: Style, dtype: str, profile: str, seed: int) -> alarms.Trial:
        started.append(seed)
        return ran(style, dtype, profile, seed)

    monkeypatch.setattr(alarms, "trial", run)
    done = list(alarms.trials(TWO, DTYPES, "quick", range(3), processes=1))
    assert started == [0] * 4 + [1] * 4 + [2] * 4
    assert len(done) == 12


def test_none_is_started_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first takes all the time there is."""
    until = time.monotonic() + 0.2

    def run(style: Style, dtype: str, profile: str, seed: int) -> alarms.Trial:
        time.sleep(max(until - time.monotonic(), 0.0) + 0.01)
        return ran(style, dtype, profile, seed)

    monkeypatch.setattr(alarms, "trial", run)
    assert len(list(alarms.trials(TWO, DTYPES, "quick", range(3), processes=1, until=until))) == 1


def test_stopped_by_hand() -> None:
    def running() -> Iterator[alarms.Trial]:
        yield ran(TWO[1], "float32", "quick", 0)
        yield ran(TWO[0], "float32", "quick", 0)
        raise KeyboardInterrupt

    assert [one.style for one in alarms.until_stopped(running())] == [*TWO]


def test_every_cell_says_how_many_seeds_it_had() -> None:
    done = [ran(TWO[0], "float64", "quick", seed) for seed in range(3)] + [ran(TWO[1], "float32", "quick", 0)]
    table = alarms.by_style(done)
    assert table.loc[TWO[0].module, "float64"] == "1 / 3"
    assert table.loc[TWO[1].module, "float32"] == "0 / 1"
    assert list(table.loc["all", DTYPES]) == ["1 / 3", "0 / 1"]
