"""Checkpoints hold every bit, and what is wrong with one is said."""

import errno
import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from tests.training import small_runs
from tests.training.small_runs import weights
from torch_impl.train import checkpoints, loop, metrics
from torch_impl.train.checkpoints import CheckpointError
from torch_impl.train.step import NotFinite
from torch_impl.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("without_network", "one_thread")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three steps."""
    out = tmp_path_factory.mktemp("run")
    loop.run(small_runs.trainer("reward-model", out), out)
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def resumed(out: Path, **options: Any) -> Trainer:
    trainer = small_runs.trainer("reward-model", out, **options)
    loop.run(trainer, out, resume=True)
    return trainer


def test_two_are_kept_and_whole(finished: Path) -> None:
    folder = finished / "checkpoints"
    assert [p.name for p in sorted(folder.iterdir())] == ["step-00000002", "step-00000003"]
    said = json.loads((folder / "step-00000003" / checkpoints.ABOUT).read_text())
    assert said["step"] == 3
    assert said["algorithm"] == "reward-model"
    assert said["settings"]["seed"] == 0


def test_going_on_is_not_having_stopped(tmp_path: Path, out: Path) -> None:
    shutil.rmtree(out / "checkpoints" / "step-00000003")
    whole = small_runs.trainer("reward-model", tmp_path / "whole")
    loop.run(whole, tmp_path / "whole")
    found = resumed(out)
    assert torch.equal(weights(whole), weights(found))
    steps = [line["step"] for line in metrics.read(out / "metrics.jsonl")]
    assert steps == [0, 1, 2, 3]


def test_tied_weights_come_back(tmp_path: Path) -> None:
    first, second = nn.Embedding(3, 2), nn.Linear(2, 3, bias=False)
    second.weight = first.weight
    model = nn.ModuleList([first, second])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    second(torch.ones(2)).sum().backward()
    optimizer.step()
    held = first.weight.detach().clone()
    checkpoints.save(tmp_path, 1, model, [optimizer], {}, small_runs.ALONE)
    with torch.no_grad():
        first.weight.zero_()
    assert checkpoints.load(tmp_path / "step-00000001", model, [optimizer], {}) == 1
    assert torch.equal(first.weight, held)
    assert second.weight is first.weight


def test_a_run_is_not_written_over(out: Path) -> None:
    with pytest.raises(FileExistsError, match="holds checkpoints of another run: resume it"):
        loop.run(small_runs.trainer("reward-model", out), out)


@pytest.mark.parametrize("file", [checkpoints.WEIGHTS, checkpoints.STATE])
def test_a_damaged_file_is_seen(out: Path, file: str) -> None:
    path = out / "checkpoints" / "step-00000003" / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{file} is damaged"):
        resumed(out)


def test_a_missing_file_is_seen(out: Path) -> None:
    (out / "checkpoints" / "step-00000003" / checkpoints.STATE).unlink()
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors cannot be read"):
        resumed(out)


def test_a_foreign_checkpoint_is_refused_and_never_run(out: Path) -> None:
    path = out / "checkpoints" / "step-00000009"
    path.mkdir()
    torch.save({"weights": torch.ones(2)}, path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint\.json cannot be read"):
        resumed(out)
    (path / checkpoints.ABOUT).write_text('{"format": "other"}')
    with pytest.raises(CheckpointError, match=r"must be .* of format 'rlspec-checkpoint-1', got 'other'"):
        resumed(out)
    (path / checkpoints.ABOUT).write_text("[1]")
    with pytest.raises(CheckpointError, match="got 'list'"):
        resumed(out)


def test_other_settings_are_refused(out: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run with reward_model\.margin 0\.0 and not 0\.5"):
        resumed(out, margin=0.5)


def test_another_algorithm_is_refused(out: Path) -> None:
    with pytest.raises(CheckpointError, match="algorithm 'reward-model', and this one has 'sft'"):
        loop.run(small_runs.trainer("sft", out), out, resume=True)


def test_another_model_is_refused(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 1, bias=False)})
    checkpoints.save(tmp_path, 1, model, [], {}, small_runs.ALONE)
    other = nn.ModuleDict({"a": nn.Linear(3, 1, bias=False)})
    with pytest.raises(CheckpointError, match=r"a.weight has shape \(1, 2\), expected \(1, 3\)"):
        checkpoints.load(tmp_path / "step-00000001", other, [], {})


@pytest.mark.parametrize("place", ["save_file", "_to_disk"])
def test_a_full_disk_leaves_the_last_one_good(out: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    shutil.rmtree(out / "checkpoints" / "step-00000003")

    def full(*_: Any) -> None:
        if place == "save_file":
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, place, full)
        with pytest.raises(CheckpointError, match="the disk is full; the last good one is step-00000002"):
            resumed(out)
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-00000002"]
    resumed(out)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_files_that_may_not_grow_leave_the_last_one_good(out: Path, share: float) -> None:
    """The system itself refuses, part of the way through a file."""
    shutil.rmtree(out / "checkpoints" / "step-00000003")
    whole = (out / "checkpoints" / "step-00000002" / checkpoints.STATE).stat().st_size
    trainer: Any = small_runs.trainer("reward-model", out)
    with (
        files_of_at_most(int(share * whole)),
        pytest.raises(CheckpointError, match="the last good one is step-00000002"),
    ):
        checkpoints.save(
            out / "checkpoints", 3, trainer.trained, [trainer.descent.optimizer], {}, trainer.world
        )
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-00000002"]
    resumed(out)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Where the system lets no file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, number: float) -> None:
    trainer: Any = small_runs.trainer("reward-model", tmp_path)
    plain, step = trainer.loss, trainer.step

    def spoilt(taken: int) -> dict[str, float]:
        if taken == 2:
            trainer.loss = lambda some: number * plain(some)
        found: dict[str, float] = step(taken)
        return found

    trainer.step = spoilt
    with pytest.raises(NotFinite, match=r"step 3: the .* is .*: no step was taken; .* is step-00000002"):
        loop.run(trainer, tmp_path)
    before = weights(trainer)
    again = small_runs.trainer("reward-model", tmp_path)
    last = checkpoints.newest(tmp_path / "checkpoints")
    assert last is not None
    checkpoints.load(last, again.trained, [again.descent.optimizer], {})  # type: ignore[union-attr]
    assert torch.equal(before, weights(again))
