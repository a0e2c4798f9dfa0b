"""Run the conformance suite in a process of its own, as `pytest conformance/` does, without its start-up.

A server process imports once what every run needs, our modules and the backends' libraries among it, and
forks for each of them; the process of the backend is a fork of the run's.
"""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, settings

from tests.harness.forked import fork_workers

ROOT = Path(__file__).parents[2]

PRELOADED = ["tests.harness.warm"]

# Nobody rewrites the assertions of a module that was there before pytest.
QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:logging")
OPTIONS = ("-p", "no:cacheprovider", *QUIET, "--replay", "off")


@dataclass(frozen=True)
class Outcome:
    """What one run of the suite left behind."""

    status: int
    output: str
    """Standard output and standard error, in the order they were written."""
    files: dict[str, str]
    """What the run wrote for --report: text by name."""

    @property
    def verdict(self) -> dict[str, Any]:
        """What is in verdict.json; empty when the run never came so far."""
        found: dict[str, Any] = json.loads(self.files.get("verdict.json", "{}"))
        return found

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The results of the tests that failed, in the order of the protocol."""
        return [result for result in self.verdict.get("results", ()) if result["outcome"] == "failed"]

    def tests(self, operation: str) -> dict[str, str]:
        """The outcome of each test that was run for an operation."""
        results = self.verdict["results"]
        return {r["test"]: r["outcome"] for r in results if r["operation"] == operation}


def run_suite(*arguments: object, shrink: bool = True, tests: Sequence[str] = ("conformance/",)) -> Outcome:
    """Run `pytest conformance/`, or some tests of it by their ids, with more arguments.

    Without shrinking, which takes most of the time where much fails, the verdict is the same and a failure
    shows the first input that fails.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with TemporaryDirectory() as name:
        output, report = Path(name) / "output", Path(name) / "report"
        words = [*tests, *OPTIONS, *map(str, arguments), "--report", str(report)]
        process = context.Process(target=_run, args=(words, output, shrink))
        process.start()
        process.join()
        assert process.exitcode is not None
        files = {path.name: path.read_text() for path in report.glob("*")}
        return Outcome(process.exitcode, output.read_text(), files)


def run_pytest(*words: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run pytest in a folder, as somebody would who has installed the project."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
        capture_output=True,
        text=True,
        check=False,
    )


def _run(arguments: list[str], output: Path, shrink: bool) -> None:
    os.chdir(ROOT)
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    fork_workers()
    if not shrink:
        settings.register_profile("unshrunk", phases=[Phase.generate])
        settings.load_profile("unshrunk")
    status = pytest.main(arguments)
    sys.stdout.flush()
    sys.exit(int(status))
