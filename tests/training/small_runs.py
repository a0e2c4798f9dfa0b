"""Runs of a few steps on a model of some thousand weights, in float64."""

import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from torch_impl.train.distributed import World
from torch_impl.train.models import ModelSettings
from torch_impl.train.sampling import Sampler
from torch_impl.train.settings import (
    DPOOptions,
    DPOSettings,
    GRPOSettings,
    Optimizer,
    PPOSettings,
    Problems,
    RewardModelOptions,
    RewardModelSettings,
    Rollout,
    Run,
    SFTOptions,
    SFTSettings,
    TRPOSettings,
)
from torch_impl.train.sources import Questions
from torch_impl.train.starting import make
from torch_impl.train.tasks import Problem
from torch_impl.train.trainer import Trainer

ALONE = World(torch.device("cpu"))
KINDS: dict[str, Any] = {
    "sft": SFTSettings,
    "reward-model": RewardModelSettings,
    "ppo": PPOSettings,
    "grpo": GRPOSettings,
    "dpo": DPOSettings,
    "trpo": TRPOSettings,
}
PROBLEMS = Problems(
    names=["spell_backward"],
    options={"spell_backward": {"min_word_len": 3, "max_word_len": 3}},
    templates={"spell_backward": "{word}>"},
    train=32,
    held_out=8,
)
MODEL = ModelSettings(
    tokenizer=f"chars:{string.ascii_letters}{string.digits} >",
    layers=2,
    heads=2,
    width=16,
    intermediate=24,
    context=32,
    dtype="float64",
)


def settings(algorithm: str, out: Path, *, steps: int = 3, **options: Any) -> Any:
    """Settings of a run; options are those of the algorithm."""
    kind = KINDS[algorithm]
    made = kind(
        out=str(out),
        problems=PROBLEMS,
        model=MODEL,
        optimizer=Optimizer(learning_rate=3e-3),
        run=Run(steps=steps, evaluate_every=steps, checkpoint_every=1, device="cpu"),
    )
    if hasattr(made, "rollout"):
        made.rollout = Rollout(prompts=8, samples=4, max_new_tokens=4, together=4)
    few: dict[str, Any] = {
        "sft": SFTOptions(rows=8),
        "reward_model": RewardModelOptions(rows=8),
        "dpo": DPOOptions(rows=8),
    }
    section = algorithm.replace("-", "_")
    chosen = replace(few.get(section, getattr(made, section)), **options)
    setattr(made, section, chosen)
    return made


class Letters:
    """Problems of which even a policy that knows nothing solves some, more or less."""

    name = "letters"

    def __init__(self, task: Questions) -> None:
        self.problems = task.problems

    def score(self, problem: Problem, response: str) -> float:
        """The share of characters whose number is even, among all that there could be."""
        return sum(ord(c) % 2 == 0 for c in response) / 8


def trainer(algorithm: str, out: Path, **options: Any) -> Trainer:
    """A trainer at its start."""
    return begin(algorithm, settings(algorithm, out, **options))


def begin(algorithm: str, settings: Any, world: World = ALONE) -> Trainer:
    """A trainer at its start, by settings, that asks for letters."""
    made = make(algorithm, settings, world)
    if isinstance(sampler := getattr(made, "sampler", None), Sampler):
        sampler.questions = Letters(sampler.questions)
    return made


def weights(trained: Trainer) -> Tensor:
    """All that is trained, in one vector."""
    return torch.cat([p.detach().flatten() for p in trained.trained.parameters()])


def same(first: Tensor, second: Tensor) -> bool:
    """Whether float64 results differ by no more than float64 rounds: they are the same in float32."""
    assert first.dtype == second.dtype == torch.float64
    return torch.equal(first.float(), second.float())


def wide_norm(norm: LlamaRMSNorm, hidden: Tensor) -> Tensor:
    """Llama's own rounds to float32, whatever its dtype: a float64 rounding becomes a float32 one there."""
    return rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)
