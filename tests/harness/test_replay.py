"""Failing inputs are kept, and tried first the next time; the command of a failure draws them again."""

import shlex
from pathlib import Path

import pytest

from tests.harness.suite import ROOT, Outcome, run_pytest, run_suite

COLUMNS = (ROOT / "tests" / "right_backends" / "columns.py").read_text(encoding="utf-8")
RARE = """

_right = discounted_returns


def discounted_returns(rewards, mask, bootstrap_value, *, gamma):
    return _right(rewards, mask, bootstrap_value, gamma=gamma) + (rewards[0, 0] == 88)
"""


@pytest.fixture
def backend(tmp_path: Path) -> Path:
    """A backend that is wrong where the first reward is 88, as few inputs have it."""
    path = tmp_path / "backend.py"
    path.write_text(COLUMNS + RARE, encoding="utf-8")
    return path


OPTIONS = ("--profile", "quick", "--dtype", "float64", "-k", "discounted_returns and test_discounted")


def run(backend: Path, seed: int, *words: str) -> Outcome:
    return run_suite("--backend", backend, *OPTIONS, "--seed", seed, *words)


def test_what_failed_once_fails_again_whatever_the_seed(backend: Path, tmp_path: Path) -> None:
    seeds = {seed: run(backend, seed).status for seed in range(6)}
    fails = next(seed for seed, status in seeds.items() if status == 1)
    passes = next(seed for seed, status in seeds.items() if status == 0)
    kept = ("--replay", str(tmp_path / "kept"))
    assert run(backend, fails, *kept).status == 1
    assert run(backend, passes, *kept).status == 1
    assert run(backend, passes, "--replay", str(tmp_path / "another")).status == 0


def test_what_is_mended_passes(backend: Path, tmp_path: Path) -> None:
    kept = ("--replay", str(tmp_path / "kept"))
    assert any(run(backend, seed, *kept).status for seed in range(6))
    backend.write_text(COLUMNS, encoding="utf-8")
    assert run(backend, 0, *kept).status == 0


def test_in_another_folder_the_command_draws_what_failed(backend: Path, tmp_path: Path) -> None:
    """Few seeds draw what fails: it is the same ones there as in the project."""
    seed = next(seed for seed in range(6) if run(backend, seed).status == 1)
    words = ("--pyargs", "conformance", "--backend", backend.name, *OPTIONS, "--seed", str(seed))
    failed = run_pytest(*words, "--replay", "off", folder=tmp_path)
    [again] = [line for line in failed.stdout.splitlines() if line.startswith("again ")]
    command = shlex.split(again)[2:]
    assert run_pytest(*command, "--replay", "off", folder=tmp_path).returncode == 1
