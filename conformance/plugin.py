"""The suite's command line options, known to every `pytest` in this environment.

This module imports nothing of ours, so that a run that has nothing to do with the suite pays nothing.
"""

from pathlib import Path
from tempfile import TemporaryFile

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options of the conformance suite."""
    group = parser.getgroup("rlspec", "conformance to the spec")
    group.addoption(
        "--backend",
        metavar="WHAT",
        default="torch_impl",
        help="what to test: a FILE.py, a package.module, a package.module:Class, or a registered name "
        "(default: torch_impl)",
    )
    group.addoption(
        "--device", default="cpu", help="where the backend's arrays live, as its library names it"
    )
    group.addoption(
        "--dtype",
        action="append",
        choices=("float64", "float32", "bfloat16", "float16"),
        help="floating-point type to test; may be given more than once (default: float32 and float64)",
    )
    group.addoption(
        "--profile",
        choices=("quick", "default", "thorough"),
        default="default",
        help="how many inputs to try in each region",
    )
    group.addoption("--seed", type=int, default=0, help="another number draws other inputs (default: 0)")
    group.addoption(
        "--time-limit",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="longest time that one call of the backend may take (default: 60)",
    )
    group.addoption(
        "--known-failures",
        metavar="FILE",
        help="a TOML file of [[known]] entries with pattern, reason, link and error: these failures do not "
        "fail the run, and an entry that does not come true does",
    )
    group.addoption(
        "--replay",
        metavar="DIR",
        default=".hypothesis/rlspec",
        help="failing inputs are kept in this folder and tried first the next time (default: "
        ".hypothesis/rlspec); 'off' keeps none",
    )
    group.addoption(
        "--report", metavar="DIR", help="write verdict.json, verdict.md and junit.xml into this folder"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the suite's markers."""
    config.addinivalue_line("markers", "clauses(*slugs): the clauses of the spec that a test shows")
    config.addinivalue_line(
        "markers", "operations(*names): the operations that a conformance test is run for"
    )
    for option in ("--report", "--replay"):
        if (folder := config.getoption(option)) and Path(folder).is_file():
            raise pytest.UsageError(f"{option} {folder}: that is a file, expected a folder")
    if report := config.getoption("--report"):
        _refuse_unwritable(report)
        config.option.xmlpath = config.option.xmlpath or f"{report}/junit.xml"


def _refuse_unwritable(report: str) -> None:
    """Make the folder of the report, and stop before the run where nothing can be written into it."""
    try:
        Path(report).mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=report).close()
    except OSError as error:
        why = f"{error.strerror}, expected a folder to write into"
        raise pytest.UsageError(f"--report {report}: {why}") from error
