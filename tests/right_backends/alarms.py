"""Hold the suite against every right backend: `python -m tests.right_backends.alarms --help`.

A right backend follows the spec in a style of its own: loops, other associations, another library, a wider
dtype inside. Each is run in each dtype that its style can serve, with each seed; a test that fails is a
false alarm. All of one dtype and seed are run side by side (`tests.harness.together`). Seeds come one
after the other: what is stopped early, by the clock or by hand, has run the first of them and tells of these.
"""

import argparse
import ast
import datetime
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd

from conformance.backend import Backend
from tests.campaigns import PACKAGES, ROOT, Record, behaviour, digest, page
from tests.harness import together
from tests.right_backends.styles import ALL, STYLES, Style

PAGE = "right-backends.md"
UNDECIDED = "Tests that no input decided, and under how many seeds: no alarm, they count as not run"
Found = dict[str, tuple[int, list[str], list[str]]]
JUDGES = digest(
    behaviour(ROOT / "conformance", ROOT / "reference"), *(f"{name} {version(name)}" for name in PACKAGES)
)

PASSED: together.Passed = {}
"""What backends have passed in this process that no seed changes."""


@dataclass(frozen=True)
class Trial:
    """One right backend in one dtype under one seed."""

    style: Style
    dtype: str
    seed: int
    tests: int
    alarms: tuple[str, ...]
    """The tests that failed, and how."""
    undecided: tuple[str, ...]
    """The tests that no input decided: the suite says of them that they were not run."""
    day: str
    """When it was run, in ISO 8601."""


def side_by_side(names: tuple[str, ...], dtype: str, profile: str, seed: int) -> Found:
    """Run the suite on some styles: how many tests judged each, which it failed, which nothing decided."""
    backends = {name: _backend(name) for name in names}
    found: Found = {name: (0, [], []) for name in names}
    for verdict in together.verdicts(backends, dtype, profile, seed, passed=PASSED):
        count, alarms, undecided = found[verdict.backend]
        if verdict.failure:
            alarms.append(f"{verdict.test}: {verdict.story}")
        if verdict.undecided:
            undecided.append(verdict.test)
        found[verdict.backend] = count + (not verdict.undecided), alarms, undecided
    _forget_programs()
    return found


def _forget_programs() -> None:
    """Let go of what XLA has compiled: each program maps memory, and Linux grants a process 65,530 maps."""
    if jax := sys.modules.get("jax"):
        jax.clear_caches()


def trials(
    styles: tuple[Style, ...],
    dtypes: list[str],
    profile: str,
    seeds: Iterable[int],
    processes: int,
    until: float = math.inf,
    record: Record | None = None,
) -> Iterator[Trial]:
    """Run all of them, so many processes at a time; none is started after a moment of the monotonic clock."""
    record, missing = record or Record(None), {}
    for dtype, seed in [(dtype, seed) for seed in seeds for dtype in ALL if dtype in dtypes]:
        keys = {style: _key(style, dtype, profile, seed) for style in styles if dtype in style.dtypes}
        for style, key in keys.items():
            if known := record.get(key):
                yield _trial(style, dtype, seed, known)
        if left := {style: key for style, key in keys.items() if not record.get(key)}:
            missing[dtype, seed] = left
    yield from _run(missing, profile, processes, until, record)


def _run(
    missing: dict[tuple[str, int], dict[Style, str]],
    profile: str,
    processes: int,
    until: float,
    record: Record,
) -> Iterator[Trial]:
    """Run the styles that are missing of each dtype and seed, side by side, and record them by their keys."""
    with together.pool(processes) as pool:
        runs = {}
        for (dtype, seed), keys in missing.items():
            names = tuple(style.module for style in keys)
            runs[pool.submit(_in_time, until, names, dtype, profile, seed)] = dtype, seed
        for run in as_completed(runs):
            (dtype, seed), found = runs[run], run.result() or {}
            for style, key in missing[dtype, seed].items() if found else ():
                known = (*found[style.module], datetime.date.today().isoformat())
                record.put(key, known)
                yield _trial(style, dtype, seed, known)


def _trial(style: Style, dtype: str, seed: int, known: Sequence[Any]) -> Trial:
    tests, alarms, undecided, day = known
    return Trial(style, dtype, seed, tests, tuple(alarms), tuple(undecided), day)


def _in_time(until: float, *run: Any) -> Found | None:
    return side_by_side(*run) if time.monotonic() < until else None


@cache
def _backend(name: str) -> Backend:
    [style] = [style for style in STYLES if style.module == name]
    return together.Here(style.backend)


@cache
def _made_of(module: str) -> str:
    """A digest of what a module of ours does, and all of ours that it imports, directly or not."""
    files: dict[str, Path] = {}
    left, seen = {module}, set[str]()
    while left:
        name = left.pop()
        seen.add(name)
        path = ROOT.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path.exists():
            files[name] = path
            left |= _imported(path.read_text(encoding="utf-8")) - seen
    return behaviour(*(path for _, path in sorted(files.items())))


def _imported(text: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(text)))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _key(style: Style, dtype: str, profile: str, seed: int) -> str:
    folder = "tests.right_backends" if Path(style.backend).exists() else "conformance.adapters"
    made_of = digest(JUDGES, _made_of(f"{folder}.{style.module}"))
    return f"{style.module} {dtype} {profile} {seed} {made_of[:16]}"


def until_stopped(running: Iterator[Trial]) -> list[Trial]:
    """Those that are done when all are, or when a signal comes; what is under way then is ended, and lost."""
    done = []
    try:
        for one in running:
            done.append(one)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return sorted(done, key=lambda one: (STYLES.index(one.style), ALL.index(one.dtype), one.seed))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, once: a second signal must not disturb what is done about the first."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.default_int_handler(number, frame)


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


def by_test(done: list[Trial]) -> pd.DataFrame:
    """Tests that no input decided, a line for each backend, and under how many seeds."""
    lines = [(trial.style.module, test) for trial in done for test in trial.undecided]
    return pd.DataFrame(lines, columns=["backend", "test"]).value_counts(sort=False).to_frame("seeds")


def _days(done: list[Trial]) -> str:
    """From when to when they were run."""
    days = sorted({one.day for one in done})
    return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "none run"


def main(argv: list[str] | None = None) -> int:
    """Run the right backends and print the false alarms; the status is 1 when there was one."""
    words = sys.argv[1:] if argv is None else argv
    arguments = _arguments(words)
    styles = tuple(style for style in STYLES if not arguments.style or style.module in arguments.style)
    dtypes = arguments.dtype or list(ALL)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    until = time.monotonic() + 60 * arguments.minutes
    signal.signal(signal.SIGTERM, _interrupt)
    record = Record(Path(arguments.record) if arguments.record else None)
    done = until_stopped(trials(styles, dtypes, arguments.profile, seeds, arguments.processes, until, record))
    _tell(done)
    if arguments.write:
        text = _page(done, shlex.join(["python3", "dev.py", "alarms", *words]))
        (Path(arguments.write) / PAGE).write_text(text, encoding="utf-8")
    return 1 if any(one.alarms for one in done) else 0


def _tell(done: list[Trial]) -> None:
    """Print what was run, each false alarm, and what nothing decided."""
    print("false alarms / runs")
    print(by_style(done).to_string())
    for one in done:
        for alarm in one.alarms:
            print(f"false alarm: {one.style.module} in {one.dtype}, seed {one.seed}: {alarm}")
    if any(one.undecided for one in done):
        print(UNDECIDED, by_test(done).to_string(), sep="\n")


def _page(done: list[Trial], how: str) -> str:
    """The page that --write makes."""
    title = f"Right backends that the suite accuses (false alarms / runs with a seed each, {_days(done)})"
    parts: list[str | pd.DataFrame] = [by_style(done)]
    if any(one.undecided for one in done):
        parts += [UNDECIDED, by_test(done)]
    return page(title, how, *parts)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py alarms", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="run with so many seeds (default: 1)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--profile", default="default", choices=("quick", "default", "thorough"))
    parser.add_argument("--dtype", action="append", help="only this dtype; may be repeated")
    parser.add_argument("--style", action="append", help="only this backend; may be repeated")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no run after so many minutes")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--record", metavar="FILE", help="keep results here, and go on from what it holds")
    parser.add_argument("--write", metavar="DIR", help="write the table into this folder")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
