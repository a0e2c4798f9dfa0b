"""docs/hold-a-backend.md: its adapters run, its commands end as it says, its tables are the code's."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.loading import registered_names
from conformance.oracle import ELEMENTARY_FACTOR, FACTOR
from conformance.reproduction import MAX_NUMBERS
from conformance.run import EXAMPLES
from tests.documentation.operations import TABLE, table

ROOT = Path(__file__).parent.parent.parent
GUIDE = (ROOT / "docs" / "hold-a-backend.md").read_text(encoding="utf-8")
ADAPTERS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", GUIDE, re.DOTALL))
PROMISES = re.findall(r"\$ pytest conformance/ (\S*--backend=(\w+\.py).*)\n(?!\$)(.+)\n```", GUIDE)


def pytest_conformance(arguments: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the suite as the guide does, with the adapters of the guide in the current folder."""
    for name, code in ADAPTERS.items():
        (folder / name).write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), str(ROOT / "conformance")]
    command += ["--replay", "off"]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=False)


WRONG = "my_whitening.py"
STORY = re.search(r"```text\n(my whitening: .*?)```", GUIDE, re.DOTALL)
KNOWN = re.search(r"```toml\n# known.toml\n(.*?)```", GUIDE, re.DOTALL)


def test_every_adapter_is_run() -> None:
    assert {name for _, name, _ in PROMISES} == set(ADAPTERS) - {WRONG}
    assert len(ADAPTERS) == 4


def test_failure_is_told_as_the_guide_says(tmp_path: Path) -> None:
    """Its input depends on the time that there is for making it small; all else on the input."""
    assert STORY is not None
    run = pytest_conformance([f"--backend={WRONG}", "--dtype", "float32", "-k", "test_whiten"], tmp_path)
    assert run.returncode == 1, run.stdout + run.stderr
    told, wanted = run.stdout.replace(f"{ROOT}/", "").splitlines(), STORY[1].splitlines()
    inputs = [line for line in wanted if re.match(r"(x|mask) = ", line)]
    if any(line not in told for line in inputs):
        wanted = [line for line in wanted if not re.match(r"(x|mask) = |got|permitted|outside", line)]
    assert "\n".join(wanted[:9]) in "\n".join(told)
    assert [line for line in wanted if line not in told] == []


def test_the_length_of_what_is_shortened_is_told() -> None:
    assert f"more than {MAX_NUMBERS} numbers" in GUIDE


def test_known_failures_are_let_pass_as_the_guide_says(tmp_path: Path) -> None:
    assert KNOWN is not None
    (tmp_path / "known.toml").write_text(KNOWN[1], encoding="utf-8")
    arguments = f"--backend={WRONG} --known-failures known.toml"
    assert f"$ pytest conformance/ {arguments}\n" in GUIDE
    run = pytest_conformance(arguments.split(), tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert pytest_conformance([f"--backend={WRONG}"], tmp_path).returncode == 1


def test_the_suite_is_found_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / WRONG).write_text(ADAPTERS[WRONG], encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--pyargs",
        "conformance",
        f"--backend={WRONG}",
        "-k",
        "whiten",
    ]
    run = subprocess.run(
        [*command, "--replay", "off"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1, run.stdout + run.stderr
    [again, *_] = re.findall(r"^again +pytest (.*)$", run.stdout, re.MULTILINE)
    command = [sys.executable, "-m", "pytest", *shlex.split(again), "--replay", "off"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize(("arguments", "_name", "sentence"), PROMISES)
def test_command_ends_as_the_guide_says(arguments: str, _name: str, sentence: str, tmp_path: Path) -> None:
    run = pytest_conformance(arguments.split(), tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert sentence in run.stdout


def test_table_of_operations_is_the_protocol() -> None:
    found = TABLE.search(GUIDE)
    assert found is not None
    assert found[0] == table()


def test_names_and_figures_are_the_codes() -> None:
    figures = "{quick}, {default} or {thorough}".format(**EXAMPLES)
    assert f"quick, default or thorough: {figures} inputs" in GUIDE
    assert "`" + "`, `".join(registered_names()) + "`" in GUIDE
    assert f"up to {FACTOR:g} unit roundoffs" in GUIDE
    [wide] = {ELEMENTARY_FACTOR[dtype] for dtype in ("float64", "float32")}
    assert f"up to {wide:g} in float64 and float32" in GUIDE
