"""Run some of the tests on a copy of the project in which one module is another, in a process of its own.

A server process imports once what every run needs, and nothing of ours, and forks for each of them. The
fork belongs to the copy: its working folder, its modules and the worker that it starts for a backend.
"""

import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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

PASSED, FAILED, BROKEN_IMPORT = 0, 1, 2
TIME_IS_UP = -9
"""Exit statuses: of pytest, and of a process that was ended."""


@dataclass(frozen=True)
class Selection:
    """Some of the tests in some files."""

    files: tuple[str, ...]
    names: tuple[str, ...] = ()
    """Ends of the tests' ids, `test_agreement[gae]`; all tests where there is none."""
    operations: tuple[str, ...] = ()
    """Of the conformance suite, the tests of these operations."""
    options: tuple[str, ...] = ()
    """More arguments of pytest."""

    def takes(self, item: pytest.Item) -> bool:
        """Whether a test is one of them."""
        if self.operations:
            run = getattr(getattr(item, "callspec", None), "params", {}).get("run", ("",))
            return run[0] in self.operations
        return not self.names or item.nodeid.endswith(tuple(f"::{name}" for name in self.names))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep these tests; that there are none is a mistake of whoever asked."""
        items[:] = [item for item in items if self.takes(item)]
        if not items:
            raise pytest.UsageError(f"no test is {self}")


@dataclass(frozen=True)
class Outcome:
    """How a run ended, how long it took and what it printed."""

    status: int
    seconds: float
    output: str


def snapshot(folder: Path) -> Path:
    """Copy the project as it is now: times of files too, so that what is compiled stays valid."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy2(ROOT / "pyproject.toml", folder)
    return folder


@contextmanager
def changed(project: Path, file: str, text: str) -> Iterator[Path]:
    """A copy of a project in which one file has another text."""
    with TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        shutil.copytree(project, tree)
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
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.path[:] = [str(tree), *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
    for name in [name for name in sys.modules if name.partition(".")[0] in FOLDERS]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    settings.register_profile("unshrunk", phases=[Phase.generate])
    settings.load_profile("unshrunk")
    words = [*selection.files, *OPTIONS, *QUIET, *selection.options]
    status = pytest.main(words, plugins=[selection])
    sys.stdout.flush()
    os._exit(int(status))
