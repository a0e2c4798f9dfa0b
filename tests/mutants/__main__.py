"""Hold our own tests against small mistakes in the formulas: `python -m tests.mutants --help`.

Each mutant is one edit of a formula in `reference/` or `torch_impl/`, its kernels among them, in a copy of
the project. It is killed when a test fails on it, or does not end; mutants that `equivalent.toml` proves to
be no mistakes do not count. A long run can be made in several sittings, with `--record` and `--minutes`.
"""

import argparse
import math
import os
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from tests.campaigns import Record, page
from tests.mutants import campaign, equivalents, score
from tests.mutants.campaign import PACKAGES, Campaign, Trial
from tests.mutants.equivalents import Equivalent
from tests.mutants.running import snapshot

PAGE = "mutants.md"


def main(argv: list[str] | None = None) -> int:
    """Run the mutants and print what survived; the status is 1 when that is too much."""
    words = sys.argv[1:] if argv is None else argv
    arguments, entries = _arguments(words), equivalents.read()
    with TemporaryDirectory() as name:
        project = snapshot(Path(name) / "project")
        every = campaign.every_mutant(project)
        found = [
            mutant
            for mutant in every
            if mutant.package in (arguments.package or PACKAGES)
            and mutant.module in (arguments.module or [mutant.module])
            and mutant.id.startswith(tuple(arguments.mutant or [""]))
        ]
        chosen = campaign.sample(found, arguments.sample, arguments.seed)
        if arguments.list:
            for mutant in sorted(chosen, key=found.index):
                print(f"{mutant.id}\t{mutant.old!r} -> {mutant.new!r}")
            return 0
        record = Record(arguments.record)
        run = Campaign(project, arguments.time_limit, record=record)
        done = run.trials(chosen, arguments.processes, arguments.minutes)
    done.sort(key=lambda one: found.index(one.mutant))
    idle = equivalents.idle(entries, every)
    for entry in idle:
        print(
            f"matches no mutant: {', '.join(entry.functions)}: {entry.operator}: {entry.old} -> {entry.new}"
        )
    enough = _told(done, entries)
    if arguments.write:
        how = shlex.join(["python3", "dev.py", "mutants", *words])
        title = f"Mutants that the tests kill ({len(done)} run, of {len(every)} drawn at random)"
        (Path(arguments.write) / PAGE).write_text(_page(title, how, done, entries), encoding="utf-8")
    return 0 if enough and not idle else 1


def _page(title: str, how: str, done: list[Trial], entries: tuple[Equivalent, ...]) -> str:
    """The page that --write makes."""
    left = score.table(score.survivors(done, entries))
    proved = score.reasons(done, entries)
    parts: list[str | pd.DataFrame]
    parts = [score.by_module(done, entries), "Survivors", left, "Survivors that are no mistakes", proved]
    return page(title, how, *parts)


def _told(done: list[Trial], entries: tuple[Equivalent, ...]) -> bool:
    """Print what became of the mutants, and tell whether it will do."""
    print(score.by_module(done, entries).to_string())
    for one in score.survivors(done, entries):
        print(f"survived: {one.mutant.id}: {one.mutant.old} -> {one.mutant.new}")
    wrong = score.refuted(done, entries)
    for one in wrong:
        print(f"called equivalent, and a test sees it: {one.mutant.id}")
    return score.score(done, entries) >= score.ENOUGH and not wrong


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--package", action="append", choices=PACKAGES, help="only this one")
    parser.add_argument("--module", action="append", help="only this module; may be repeated")
    parser.add_argument("--mutant", action="append", help="only those whose names begin so")
    parser.add_argument("--sample", type=int, metavar="N", help="only so many, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="another number draws others (default: 0)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin none after so many minutes")
    parser.add_argument(
        "--record", metavar="FILE", type=Path, help="keep results here, and go on from what it holds"
    )
    parser.add_argument("--list", action="store_true", help="print the mutants, and run nothing")
    parser.add_argument(
        "-j",
        dest="processes",
        type=int,
        default=os.cpu_count(),
        help="so many at a time",
    )
    parser.add_argument(
        "--time-limit", type=float, default=600.0, help="seconds for the tests of one mutant (default: 600)"
    )
    parser.add_argument("--write", metavar="DIR", help="write the tables into this folder")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
