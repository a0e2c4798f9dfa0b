"""Two processes end with the parameters of one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training import small_runs
from tests.training.several import RUNS, ends
from tests.training.small_runs import same
from torch_impl.train.distributed import World


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes have left their weights in."""
    folder = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "tests.training.several", str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return folder


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore::torch_impl.train.metrics.Alarm")
@pytest.mark.parametrize("number", range(len(RUNS)), ids=[f"{name}-{shard}" for name, shard, _ in RUNS])
def test_two_processes_are_one(two: Path, tmp_path: Path, number: int) -> None:
    found = torch.load(two / f"{number}.pt", weights_only=True)
    whole = ends(small_runs.ALONE, tmp_path, number)
    assert set(found) == set(whole)
    assert all(same(found[name], whole[name]) for name in whole)


def test_rows_have_to_be_shared_out_evenly() -> None:
    world = World(torch.device("cpu"), rank=1, size=2)
    assert world.mine(6) == slice(3, 6)
    with pytest.raises(ValueError, match="rows must be shared out evenly among 2 processes, got 5"):
        world.mine(5)
