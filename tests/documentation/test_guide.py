"""docs/hold-a-backend.md: its adapters run, its commands end as it says, its tables are the code's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.loading import registered_names
from conformance.operations import OPERATIONS
from conformance.oracle import FACTOR
from conformance.protocol import REQUIRED
from conformance.run import EXAMPLES

ROOT = Path(__file__).parent.parent.parent
GUIDE = (ROOT / "docs" / "hold-a-backend.md").read_text(encoding="utf-8")
ADAPTERS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", GUIDE, re.DOTALL))
PROMISES = re.findall(r"\$ pytest conformance/ (\S*--backend=(\w+\.py).*)\n(?!\$)(.+)\n```", GUIDE)
TABLE = re.compile(r"^\| `(\w+)` \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)


def pytest_conformance(arguments: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the suite as the guide does, with the adapters of the guide in the current folder."""
    for name, code in ADAPTERS.items():
        (folder / name).write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), str(ROOT / "conformance")]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_every_adapter_is_run() -> None:
    assert {name for _, name, _ in PROMISES} == set(ADAPTERS)
    assert len(ADAPTERS) == 3


@pytest.mark.parametrize(("arguments", "_name", "sentence"), PROMISES)
def test_command_ends_as_the_guide_says(arguments: str, _name: str, sentence: str, tmp_path: Path) -> None:
    run = pytest_conformance(arguments.split(), tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert sentence in run.stdout


def test_table_of_operations_is_the_protocol() -> None:
    rows = {name: (arguments, options) for name, arguments, options, _ in TABLE.findall(GUIDE)}
    assert set(rows) == set(OPERATIONS)
    for name, operation in OPERATIONS.items():
        arguments, options = rows[name]
        if arguments != "the same":
            written = re.findall(r"(\w+) \(([A-Z,]+)\)", arguments)
            assert written == [
                (a.name, ",".join(a.shape) + ("," if len(a.shape) == 1 else "")) for a in operation.arguments
            ]
        assert re.findall(r"\b(\w+)(?:=\S+)?(?: or \S+)?(?:, |$)", options) == list(operation.options)
        for option, default in re.findall(r"(\w+)=([^\s,]+)", options):
            assert eval(default) == operation.options[option]
        assert all(f"{option}=" in options for option, d in operation.options.items() if d is not REQUIRED)


def test_names_and_figures_are_the_codes() -> None:
    figures = "{quick}, {default} or {thorough}".format(**EXAMPLES)
    assert f"quick, default or thorough: {figures} inputs" in GUIDE
    assert "`" + "`, `".join(registered_names()) + "`" in GUIDE
    assert f"up to {FACTOR:g} unit roundoffs" in GUIDE
