"""Where a run starts: its trainer, after a warm start by SFT if there is to be one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch_impl.train.distributed import World
from torch_impl.train.dpo import DPO
from torch_impl.train.grpo import GRPO
from torch_impl.train.loop import run
from torch_impl.train.models import ModelSettings
from torch_impl.train.ppo import PPO
from torch_impl.train.reward_model import RewardModel
from torch_impl.train.settings import PolicySettings, RewardModelSettings, SFTOptions, SFTSettings
from torch_impl.train.sft import SFT
from torch_impl.train.trainer import Trainer
from torch_impl.train.trpo import TRPO

TRAINERS: dict[str, type[SFT | DPO | GRPO | PPO | TRPO]] = {
    kind.name: kind for kind in (SFT, PPO, GRPO, DPO, TRPO)
}
ALGORITHMS = ("sft", RewardModel.name, "ppo", "grpo", "dpo", "trpo")
WARM_START = "warm-start"


def make(algorithm: str, settings: Any, world: World) -> Trainer:
    """The trainer of an algorithm, at its start. A warm start that was not finished is gone on with."""
    if isinstance(settings, RewardModelSettings):
        return RewardModel(settings, world)
    start = None
    if isinstance(settings, PolicySettings) and settings.warm_start.steps:
        start = _warm_start(settings, world)
    made: Trainer = TRAINERS[algorithm](settings, world, start=start)
    return made


def _warm_start(settings: PolicySettings, world: World) -> ModelSettings:
    """A model that has seen some right answers, made once for each folder."""
    out = Path(settings.out) / WARM_START
    run(SFT(_sft(settings, out), world), out, resume=True)
    if settings.model.lora_rank or settings.model.adapter:
        return replace(settings.model, adapter=str(out / "model"))
    return replace(settings.model, path=str(out / "model"))


def _sft(settings: PolicySettings, out: Path) -> SFTSettings:
    warm, optimizer = settings.warm_start, settings.optimizer
    if settings.problems.file is not None and warm.file is None:
        raise ValueError("warm_start.file must be given where problems.file is, got none")
    return SFTSettings(
        seed=settings.seed,
        out=str(out),
        problems=replace(settings.problems, file=warm.file, held_out_file=None),
        model=settings.model,
        optimizer=replace(
            optimizer,
            learning_rate=warm.learning_rate,
            warmup=max(warm.steps // 5, 1),
            schedule="constant",
        ),
        run=replace(settings.run, steps=warm.steps, evaluate_every=warm.steps),
        sft=SFTOptions(rows=warm.rows),
        rollout=settings.rollout,
    )
