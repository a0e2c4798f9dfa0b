"""Run the conformance suite in a process of its own, as `pytest conformance/` does, without its start-up.

A server process imports once what every run needs and forks for each of them.
"""

import json
import multiprocessing
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

PRELOADED = ["hypothesis", "pandas", "pytest", "reference.gae", "reference.numbers.balls"]

# Nobody rewrites the assertions of a module that was there before pytest.
OPTIONS = ("-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")


@dataclass(frozen=True)
class Outcome:
    """What one run of the suite left behind."""

    status: int
    output: str
    """Standard output and standard error, in the order they were written."""
    verdict: dict[str, Any] = field(default_factory=dict)
    """What is in verdict.json; empty when the run never came so far."""

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The results of the tests that failed, in the order they ran."""
        return [result for result in self.verdict.get("results", ()) if result["outcome"] == "failed"]

    def tests(self, operation: str) -> dict[str, str]:
        """The outcome of each test that was run for an operation."""
        results = self.verdict["results"]
        return {r["test"]: r["outcome"] for r in results if r["operation"] == operation}


def run_suite(*arguments: str | Path) -> Outcome:
    """Run `pytest conformance/` with more arguments, one run at a time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with TemporaryDirectory() as name:
        folder = Path(name)
        words = [*map(str, arguments), "--report", name]
        process = context.Process(target=_run, args=(words, folder / "output"))
        process.start()
        process.join()
        assert process.exitcode is not None
        report = folder / "verdict.json"
        verdict = json.loads(report.read_text()) if report.exists() else {}
        return Outcome(process.exitcode, (folder / "output").read_text(), verdict)


def _run(arguments: list[str], output: Path) -> None:
    os.chdir(ROOT)
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    status = pytest.main(["conformance/", *OPTIONS, *arguments])
    sys.stdout.flush()
    sys.exit(int(status))
