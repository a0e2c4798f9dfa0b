"""Metrics of a run: a JSON line a step, TensorBoard, and alarms.

Clause: `train.settings`. An alarm is a warning: what it names is not wrong, and often does not end well.
"""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch_impl.train.settings import (
    Clipping,
    DPOSettings,
    GRPOSettings,
    PolicySettings,
    PPOSettings,
    Settings,
)

LARGEST_KL = 0.02
LARGEST_CLIP = 0.4
SMALLEST_BATCH = 128
SMALLEST_GROUP = 32
LARGEST_BETA = 0.3
LARGE_MODEL = 10**9
"""Parameters from which on the learning rates below are meant."""
RATES = {"ppo": 1.5e-5, "grpo": 8e-7}
FAR_ABOVE = 10.0
"""By how many times a learning rate is far above."""
CLAUSE = "spec/training.md, clause train.settings"


class Alarm(UserWarning):
    """A setting or a metric that often does not end well."""


def alarms(settings: Settings, parameters: int) -> Iterator[str]:
    """What there is to say about settings before a run, for a model of so many parameters."""
    if isinstance(settings, GRPOSettings) and settings.rollout.samples < SMALLEST_GROUP:
        yield f"rollout.samples is {settings.rollout.samples}, below a group of {SMALLEST_GROUP}"
    if isinstance(settings, PPOSettings):
        yield from _of_ppo(settings)
    if isinstance(settings, DPOSettings):
        yield from _of_beta("dpo.beta", settings.dpo.beta)
    for name, clipped in _clipped(settings):
        yield from _of_clipping(name, clipped)
        rate, usual = settings.optimizer.learning_rate, RATES[name]
        if parameters >= LARGE_MODEL and rate > FAR_ABOVE * usual:
            yield f"optimizer.learning_rate is {rate}, far above {usual} for {parameters} parameters"
    if isinstance(settings, PolicySettings) and not isinstance(settings, DPOSettings):
        rows = settings.rollout.prompts * settings.rollout.samples
        if rows < SMALLEST_BATCH:
            yield f"rollout.prompts · rollout.samples is {rows}, below a batch of {SMALLEST_BATCH}"


def alarm_of(metrics: dict[str, float]) -> str | None:
    """What there is to say about a step."""
    kl = {name: metrics[name] for name in ("step_kl", "approx_kl") if metrics.get(name, 0.0) > LARGEST_KL}
    return next((f"{name} is {x:.4f}, above {LARGEST_KL}" for name, x in kl.items()), None)


def warn(message: str) -> None:
    """Say it, with the clause."""
    warnings.warn(f"{message} ({CLAUSE})", Alarm, stacklevel=2)


class Log:
    """`metrics.jsonl` and a folder for TensorBoard, both cut off behind the step that a run goes on from."""

    def __init__(self, out: Path, *, start: int = 0) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "metrics.jsonl"
        kept = [line for line in read(self.path) if line["step"] <= start] if start else []
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._board = _board(out / "tensorboard", start)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """One line, and one point of each curve."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, x in metrics.items():
            self._board.add_scalar(name, x, step)

    def close(self) -> None:
        """Write what TensorBoard has not yet."""
        self._board.close()


def read(path: Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl` that are whole: a killed run may leave half of one."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _board(folder: Path, start: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=start + 1)


def _clipped(settings: Settings) -> Iterator[tuple[str, Clipping]]:
    if isinstance(settings, GRPOSettings):
        yield "grpo", settings.grpo
    if isinstance(settings, PPOSettings):
        yield "ppo", settings.ppo


def _of_clipping(name: str, options: Clipping) -> Iterator[str]:
    for side in ("clip_low", "clip_high"):
        if (clip := getattr(options, side)) > LARGEST_CLIP:
            yield f"{name}.{side} is {clip}, above {LARGEST_CLIP}"
    yield from _of_beta(f"{name}.kl_coef", options.kl_coef)


def _of_beta(name: str, beta: float) -> Iterator[str]:
    if beta >= LARGEST_BETA:
        yield f"{name} is {beta}, at or above {LARGEST_BETA}"


def _of_ppo(settings: PPOSettings) -> Iterator[str]:
    if settings.model.path is None and settings.warm_start.steps == 0:
        yield "model.path and warm_start.steps are not set: the critic starts from nothing"
