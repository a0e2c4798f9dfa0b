"""A run that is killed and resumed ends with the bits of one that was not."""

import subprocess
import sys
from pathlib import Path

import pytest

MOMENTS = {"ppo": (9, 53, 95, 118)}
"""Of 124: in the warm start, in steps, while checkpoints are written, renamed and removed."""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL, nor a fork")
@pytest.mark.parametrize("algorithm", MOMENTS)
def test_killed_and_resumed(tmp_path: Path, algorithm: str) -> None:
    moments = [str(x) for x in MOMENTS[algorithm]]
    command = [sys.executable, "-m", "tests.training.killed", algorithm, str(tmp_path), *moments]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    _, whole, *others = [line for line in found.stdout.splitlines() if line.strip()]
    assert others == [whole] * len(moments)
