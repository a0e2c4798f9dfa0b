"""Hold the suite against every right backend: `python -m tests.right_backends.alarms --help`.

A right backend follows the spec in a style of its own: loops, other associations, another library, a wider
dtype inside. Each is run in each dtype that its style can serve, with each seed; a test that fails is a
false alarm. Seeds come one after the other: what is stopped early, by the clock or by hand, has run the first
of them, tells of these, and goes on from another first seed.
"""

import argparse
import math
import multiprocessing
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tests.campaigns import page
from tests.harness.suite import run_suite
from tests.right_backends.styles import ALL, STYLES, Style

PAGE = "right-backends.md"


@dataclass(frozen=True)
class Trial:
    """One right backend in one dtype under one seed."""

    style: Style
    dtype: str
    seed: int
    tests: int
    alarms: tuple[str, ...]
    """The tests that failed; the whole output where the run itself went wrong."""


def trial(style: Style, dtype: str, profile: str, seed: int) -> Trial:
    """Run the suite on a right backend."""
    words = ("--dtype", dtype, "--profile", profile, "--seed", seed)
    outcome = run_suite("--backend", style.backend, *words, shrink=False)
    alarms = tuple(result["test"] for result in outcome.failed)
    passed = sum(r["outcome"] == "passed" for r in outcome.verdict.get("results", ()))
    return Trial(
        style, dtype, seed, passed + len(alarms), alarms or ((outcome.output,) if outcome.status else ())
    )


def trials(
    styles: tuple[Style, ...],
    dtypes: list[str],
    profile: str,
    seeds: Iterable[int],
    processes: int,
    until: float = math.inf,
) -> Iterator[Trial]:
    """Run all of them, so many at a time; none is started after a moment of the monotonic clock."""

    def in_time(*run: Any) -> Trial | None:
        return trial(*run) if time.monotonic() < until else None

    with ThreadPoolExecutor(processes) as pool:
        runs = [
            pool.submit(in_time, style, dtype, profile, seed)
            for seed in seeds
            for style in styles
            for dtype in style.dtypes
            if dtype in dtypes
        ]
        try:
            for run in as_completed(runs):
                if done := run.result():
                    yield done
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def until_stopped(running: Iterator[Trial]) -> list[Trial]:
    """Those that are done when all are, or when a signal comes; what is under way then is ended, and lost."""
    done = []
    try:
        for one in running:
            done.append(one)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return sorted(done, key=lambda one: (STYLES.index(one.style), ALL.index(one.dtype), one.seed))


def by_style(done: list[Trial]) -> pd.DataFrame:
    """Runs and false alarms, a line for each style, a column for each dtype, and all together."""
    frame = pd.DataFrame(
        [(t.style.module, t.style.what, t.dtype, bool(t.alarms)) for t in done],
        columns=["backend", "style", "dtype", "alarm"],
    )
    cells = frame.groupby(["backend", "style", "dtype"], sort=False).alarm.agg(["size", "sum"])
    text = cells["sum"].astype(str) + " / " + cells["size"].astype(str)
    table = text.unstack(fill_value="").reset_index(level="style")
    total = {dtype: f"{g.alarm.sum()} / {len(g)}" for dtype, g in frame.groupby("dtype", sort=False)}
    return pd.concat([table, pd.DataFrame([{"style": "", **total}], index=["all"])]).rename_axis("backend")


def main(argv: list[str] | None = None) -> int:
    """Run the right backends and print the false alarms; the status is 1 when there was one."""
    words = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="dev.py alarms", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="run with so many seeds (default: 1)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--profile", default="default", choices=("quick", "default", "thorough"))
    parser.add_argument("--dtype", action="append", help="only this dtype; may be repeated")
    parser.add_argument("--style", action="append", help="only this backend; may be repeated")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no run after so many minutes")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--write", metavar="DIR", help="write the table into this folder")
    arguments = parser.parse_args(words)
    styles = tuple(style for style in STYLES if not arguments.style or style.module in arguments.style)
    dtypes = arguments.dtype or list(ALL)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    until = time.monotonic() + 60 * arguments.minutes
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    done = until_stopped(trials(styles, dtypes, arguments.profile, seeds, arguments.processes, until))
    print("false alarms / runs")
    print(by_style(done).to_string())
    for one in done:
        for alarm in one.alarms:
            print(f"false alarm: {one.style.module} in {one.dtype}, seed {one.seed}: {alarm}")
    if arguments.write:
        how = shlex.join(["python3", "dev.py", "alarms", *words])
        title = "Right backends that the suite accuses (false alarms / runs, each with a seed of its own)"
        (Path(arguments.write) / PAGE).write_text(page(title, how, by_style(done)), encoding="utf-8")
    return 1 if any(one.alarms for one in done) else 0


if __name__ == "__main__":
    sys.exit(main())
