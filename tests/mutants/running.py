"""Run some of the tests on a copy of the project in which one module is another, in a process of its own.

A server process imports once what every run needs, and nothing of ours, and forks for each of them. The
fork belongs to the copy: its working folder, its modules and the worker that it starts for a backend.
"""

import multiprocessing
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).parents[2]
FOLDERS = ("reference", "spec", "conformance", "torch_impl", "tests")
PRELOADED = ["flint", "hypothesis", "mpmath", "numpy", "pandas", "pytest", "sympy", "torch"]

OPTIONS = ("-c", "pyproject.toml", "-x", "-q", "-p", "no:cacheprovider")
# Nobody rewrites the assertions of a module that was there before pytest.
QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning")

PASSED, NO_TEST = 0, 99
"""Exit statuses of pytest: one of its own, and one of a selection that selects nothing."""


@dataclass(frozen=True)
class Selection:
    """Some of the tests in some files."""

    files: tuple[str, ...]
    names: tuple[str, ...] = ()
    """Ends of the tests' ids, `test_agreement[gae]`; all tests where there is none."""
    operations: tuple[str, ...] = ()
    """The tests of these operations, of the conformance suite or of ours; of any where there is none."""
    options: tuple[str, ...] = ()
    """More arguments of pytest."""

    def place(self, item: pytest.Item) -> int:
        """The place of a test among what was asked for, in which order they are run; -1 if it was not.

        Without names, what draws inputs comes last: it takes longest.
        """
        if self.operations:
            return self.operations.index(name) if (name := _operation(item)) in self.operations else -1
        if not self.names:
            return int(getattr(getattr(item, "obj", None), "is_hypothesis_test", False))
        asked_for = (i for i, name in enumerate(self.names) if item.nodeid.endswith(f"::{name}"))
        return next(asked_for, -1)

    def alone(self, test: str) -> "Selection":
        """One of its tests, by its id; all of them if it is none."""
        file, colons, name = test.partition("::")
        return Selection((file,), (name,), options=self.options) if colons else self

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Keep these tests; that there are none is a mistake of whoever asked, if all files were read."""
        items[:] = sorted((item for item in items if self.place(item) >= 0), key=self.place)
        if not items and not session.testsfailed:
            pytest.exit(f"no test is {self}", returncode=NO_TEST)


def _operation(item: pytest.Item) -> str:
    """The name of the operation that a test is about, empty where it is about none."""
    asked = vars(item).get("callspec")
    operation = asked.params.get("operation") if asked else None
    run: tuple[str, ...] = asked.params.get("run", ("",)) if asked else ("",)
    return str(getattr(operation, "name", operation or run[0]))


@dataclass(frozen=True)
class Outcome:
    """How a run ended, how long it took and what it printed."""

    status: int
    seconds: float
    output: str

    @property
    def end(self) -> str:
        """The first test that failed, or how else it ended."""
        found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", self.output, re.MULTILINE)
        return found[1] if found else f"exit status {self.status}"


def snapshot(folder: Path) -> Path:
    """Copy the project as it is now: times of files too, so that what is compiled stays valid."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy2(ROOT / "pyproject.toml", folder)
    return folder


@contextmanager
def changed(project: Path, texts: Mapping[str, str] | None = None) -> Iterator[Path]:
    """A copy of a project in which some files have other texts."""
    with TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        shutil.copytree(project, tree)
        for file, text in (texts or {}).items():
            path = tree / file
            for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
                compiled.unlink()
            path.write_text(text, encoding="utf-8")
        yield tree


def run_tests(tree: Path, selection: Selection, limit: float) -> Outcome:
    """Run tests of a copy, up to the first that fails, for so many seconds at most."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    output = tree / "output.txt"
    process = context.Process(target=_run, args=(tree, selection, output))
    start = monotonic()
    process.start()
    process.join(limit)
    if process.exitcode is None:
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode is not None
    text = output.read_text(errors="replace") if output.exists() else ""
    return Outcome(process.exitcode, monotonic() - start, text)


def _run(tree: Path, selection: Selection, output: Path) -> None:
    os.setsid()  # what it starts ends with it
    os.chdir(tree)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.path[:] = [str(tree), *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
    for name in [name for name in sys.modules if name.partition(".")[0] in FOLDERS]:
        del sys.modules[name]
    import_module("tests.harness.forked").fork_workers()  # the copy's
    settings.register_profile("unshrunk", phases=[Phase.generate])
    settings.load_profile("unshrunk")
    words = [*selection.files, *OPTIONS, *QUIET, *selection.options]
    status = pytest.main(words, plugins=[selection])
    sys.stdout.flush()
    os._exit(int(status))
