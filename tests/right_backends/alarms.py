"""Hold the suite against every right backend: `python -m tests.right_backends.alarms --help`.

A right backend follows the spec in a style of its own: loops, other associations, another library, a wider
dtype inside. Each is run in each dtype that its style can serve, with each seed; a test that fails is a
false alarm.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tests.campaigns import page
from tests.harness.suite import run_suite
from tests.right_backends.styles import STYLES, Style

HERE = Path(__file__).parent
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
    outcome = run_suite("--backend", HERE / f"{style.module}.py", *words, shrink=False)
    alarms = tuple(result["test"] for result in outcome.failed)
    passed = sum(r["outcome"] == "passed" for r in outcome.verdict.get("results", ()))
    return Trial(
        style, dtype, seed, passed + len(alarms), alarms or ((outcome.output,) if outcome.status else ())
    )


def trials(styles: tuple[Style, ...], dtypes: list[str], profile: str, seeds: range) -> list[Trial]:
    """Run all of them, as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [
            pool.submit(trial, style, dtype, profile, seed)
            for seed in seeds
            for style in styles
            for dtype in style.dtypes
            if dtype in dtypes
        ]
        return [run.result() for run in runs]


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
    parser = argparse.ArgumentParser(prog="dev.py alarms", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="run with so many seeds (default: 1)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--profile", default="default", choices=("quick", "default", "thorough"))
    parser.add_argument("--dtype", action="append", help="only this dtype; may be repeated")
    parser.add_argument("--style", action="append", help="only this backend; may be repeated")
    parser.add_argument("--write", metavar="DIR", help="write the table into this folder")
    arguments = parser.parse_args(argv)
    styles = tuple(style for style in STYLES if not arguments.style or style.module in arguments.style)
    dtypes = arguments.dtype or ["float64", "float32", "bfloat16", "float16"]
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    done = trials(styles, dtypes, arguments.profile, seeds)
    print("false alarms / runs")
    print(by_style(done).to_string())
    for one in done:
        for alarm in one.alarms:
            print(f"false alarm: {one.style.module} in {one.dtype}, seed {one.seed}: {alarm}")
    if arguments.write:
        words = f"--profile {arguments.profile} --seeds {arguments.seeds} --first-seed {arguments.first_seed}"
        how = f"python3 dev.py alarms {words} --write {arguments.write}"
        text = page("Right backends that the suite accuses (false alarms / runs)", how, by_style(done))
        (Path(arguments.write) / PAGE).write_text(text, encoding="utf-8")
    return 1 if any(one.alarms for one in done) else 0


if __name__ == "__main__":
    sys.exit(main())
