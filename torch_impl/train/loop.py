"""The loop around an algorithm: steps, measurements, checkpoints, and going on after a stop."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from torch_impl.train import checkpoints, metrics
from torch_impl.train.seeds import derived
from torch_impl.train.settings import flat
from torch_impl.train.step import NotFinite
from torch_impl.train.trainer import Trainer, parameter_count, rate_factor

FREE = ("out", "resume", "run.evaluate_every", "run.checkpoint_every", "run.checkpoints")
"""Settings that a run may be resumed with other values of."""
FREE_ELSEWHERE = ("run.device", "run.threads", "run.shard", "optimizer.micro_rows")
"""And these, which change roundings and nothing else."""


def run(trainer: Trainer, out: Path, *, resume: bool = False) -> dict[str, float]:
    """Train, from the first step or from the newest checkpoint, and return the last measurement.

    In `out` there are then `checkpoints/`, `metrics.jsonl`, `tensorboard/` and `model/`.

    Raises
    ------
    FileExistsError
        For a folder with checkpoints of a run that is not to be resumed.
    torch_impl.train.checkpoints.CheckpointError
        For a checkpoint that cannot be written, or cannot be gone on from.
    torch_impl.train.step.NotFinite
        For a loss or a gradient that is not finite; the newest checkpoint is that of before.
    """
    settings, folder = trainer.settings.run, out / "checkpoints"
    start = _begin(trainer, folder, resume=resume)
    log = metrics.Log(out, start=start) if trainer.world.leads else None
    _sound_alarms(trainer)
    found: dict[str, float] = {}
    if start in (0, settings.steps):
        found = trainer.evaluate()
    if start == 0:
        _write(log, 0, found)
    for number in _progress(trainer, start):
        done = number + 1
        measured = _step(trainer, number, folder)
        if done % settings.evaluate_every == 0 or done == settings.steps:
            found = trainer.evaluate()
            measured |= found
        _write(log, done, measured)
        if done % settings.checkpoint_every == 0 or done == settings.steps:
            _save(trainer, folder, done)
    trainer.save(out / "model")
    if log is not None:
        log.close()
    return found


def _begin(trainer: Trainer, folder: Path, *, resume: bool) -> int:
    """How many steps have been taken already."""
    last = checkpoints.newest(folder)
    if last is None:
        return 0
    if not resume:
        raise FileExistsError(f"{folder} holds checkpoints of another run: resume it, or name another folder")
    return checkpoints.load(last, trainer.trained, _optimizers(trainer), _about(trainer))


def _step(trainer: Trainer, number: int, folder: Path) -> dict[str, float]:
    """One step, at its learning rate, with a seed of its own."""
    settings, began = trainer.settings, time.perf_counter()
    torch.manual_seed(derived(settings.seed, "step", number, trainer.world.rank))
    rate = {}
    if trainer.descent is not None:
        factor = rate_factor(number, settings.run.steps, settings.optimizer)
        rate = {"learning_rate": trainer.descent.set_rate(factor)}
    try:
        measured = trainer.step(number)
    except NotFinite as error:
        last = checkpoints.newest(folder)
        raise NotFinite(
            f"step {number + 1}: {error}; the last good checkpoint is {last.name if last else 'none'}"
        ) from error
    measured = measured | trainer.tally.means(trainer.world) | rate
    if (alarm := metrics.alarm_of(measured)) is not None:
        metrics.warn(alarm)
    return {**measured, "seconds": time.perf_counter() - began}


def _save(trainer: Trainer, folder: Path, done: int) -> None:
    keep = trainer.settings.run.checkpoints
    about = _about(trainer)
    checkpoints.save(folder, done, trainer.trained, _optimizers(trainer), about, trainer.world, keep=keep)


def _about(trainer: Trainer) -> dict[str, Any]:
    """What has to be the same when a run goes on."""
    held = {k: x for k, x in flat(trainer.settings).items() if k not in FREE + FREE_ELSEWHERE}
    return {"algorithm": trainer.name, "settings": held}


def _optimizers(trainer: Trainer) -> list[torch.optim.Optimizer]:
    return [] if trainer.descent is None else [trainer.descent.optimizer]


def _sound_alarms(trainer: Trainer) -> None:
    for message in metrics.alarms(trainer.settings, parameter_count(trainer.trained)):
        metrics.warn(message)


def _progress(trainer: Trainer, start: int) -> Iterator[int]:
    """The numbers of the steps that are left, with a bar where there is a terminal."""
    steps, hidden = trainer.settings.run.steps, None if trainer.world.leads else True
    return iter(tqdm(range(start, steps), initial=start, total=steps, desc=trainer.name, disable=hidden))


def _write(log: metrics.Log | None, step: int, measured: dict[str, float]) -> None:
    if log is not None:
        log.write(step, measured)
