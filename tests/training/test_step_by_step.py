"""Trainers take the steps that are written out in `replay`, and a trainer with a mistake in it does not."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tests.training import small_runs
from tests.training.mistakes import MISTAKES, Mistake
from tests.training.replay import REPLAYS, answers_of
from tests.training.small_runs import same, weights
from torch_impl.train import loop
from torch_impl.train.settings import Problems, Rollout

pytestmark = pytest.mark.usefixtures("without_network", "one_thread")

CLIPPED = {
    "epochs": 2,
    "minibatches": 2,
    "clip_low": 0.02,
    "clip_high": 0.1,
    "kl_coef": 0.1,
    "entropy_coef": 0.05,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "ppo": {**CLIPPED, "gamma": 0.9},
    "grpo": CLIPPED,
    "dpo": {"rows": 8, "label_smoothing": 0.1},
    "reward-model": {"rows": 8, "margin": 0.5},
    "sft": {"rows": 8},
    "trpo": {"cg_iters": 4},
}
LONGEST = {"ppo": 2.0, "grpo": 2.0, "dpo": 1.0, "reward-model": 2.0, "sft": 5.0, "trpo": 1.0}
"""Norms that some gradients exceed and some do not: else AdamW would not see a loss twice as large."""
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("ppo", {"truncation": "end", "value_clip": 0.05, "critic_steps": 1, "whiten": False}),
    ("ppo", {"aggregation": "seq-mean-token-mean", "dual_clip": 1.05}),
    ("grpo", {"baseline": "leave-one-out", "aggregation": "seq-mean-token-sum-norm"}),
    ("grpo", {"scale": "none", "aggregation": "seq-mean-token-mean", "dual_clip": 1.05}),
    ("grpo", {"ddof": 0, "aggregation": "seq-mean-token-sum"}),
    ("dpo", {"average": True}),
]


@pytest.fixture(autouse=True)
def wide_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LlamaRMSNorm, "forward", small_runs.wide_norm)


def started(algorithm: str, out: Path, **options: Any) -> Any:
    """A trainer whose models are no longer near 0, with texts of several lengths."""
    made = small_runs.settings(algorithm, out, steps=4, **(OPTIONS[algorithm] | options))
    made.model = replace(made.model, tokenizer="chars:abcd>", layers=1, context=16)
    file = str(texts(out / "texts.jsonl", margins=algorithm == "reward-model"))
    made.problems = Problems(file=file, held_out_file=file)
    made.run = replace(made.run, checkpoint_every=4)
    made.optimizer = replace(
        made.optimizer,
        learning_rate=0.01,
        critic_learning_rate=0.02,
        weight_decay=0.1,
        max_grad_norm=LONGEST[algorithm],
        micro_rows=3,
    )
    if hasattr(made, "rollout"):
        made.rollout = Rollout(prompts=2, samples=4, max_new_tokens=4, together=1, temperature=0.7)
    trainer: Any = small_runs.begin(algorithm, made)
    for model in models(trainer):
        stir(model)
    return trainer


def texts(path: Path, *, margins: bool) -> Path:
    """Lines for every algorithm."""
    draw = random.Random(0)

    def text(longest: int) -> str:
        return "".join(draw.choices("abcd", k=draw.randint(1, longest)))

    lines = []
    for number in range(32):
        one, other = text(4), text(4)
        line = {"prompt": f"{text(3)}>", "answer": one, "chosen": one, "rejected": other, "response": one}
        lines.append(json.dumps(line | ({"margin": number / 4} if margins else {})))
    path.write_text("\n".join(lines))
    return path


def models(trainer: Any) -> Iterator[nn.Module]:
    yield from trainer.trained.values()
    if hasattr(trainer, "reference"):
        yield trainer.reference.policy


@torch.no_grad()
def stir(model: nn.Module) -> None:
    """The same for the same weights: a reference stays what the policy starts as."""
    numbers = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.add_(0.3 * torch.randn(p.shape, generator=numbers, dtype=p.dtype))


def after(trainer: Any, replay: Any, steps: int = 2) -> tuple[Tensor, Tensor]:
    """The weights that a trainer has after some steps, and those that its replay has."""
    for number in range(steps):
        data = [trainer.sampler.draw(number)] if trainer.name in ("ppo", "grpo", "trpo") else []
        trainer.step(number)
        replay.step(number, *data)
    return weights(trainer), weights(replay)


@pytest.mark.parametrize(("algorithm", "options"), [*((name, {}) for name in OPTIONS), *OTHERS])
def test_a_trainer_takes_the_steps_of_its_replay(
    tmp_path: Path, algorithm: str, options: dict[str, Any]
) -> None:
    trainer = started(algorithm, tmp_path, **options)
    before = weights(trainer)
    found, replayed = after(trainer, REPLAYS[algorithm](trainer))
    assert not same(before, found)
    assert same(found, replayed)


def test_a_step_of_a_trust_region_ends_where_it_says(tmp_path: Path) -> None:
    trainer = started("trpo", tmp_path)
    replay, sampled = REPLAYS["trpo"](trainer), trainer.sampler.draw(0)
    told = trainer.step(0)
    assert (told["improvement"], told["step_kl"]) == pytest.approx(replay.step(0, sampled))


def test_responses_are_of_the_policy_as_it_is(tmp_path: Path) -> None:
    trainer = started("grpo", tmp_path)
    replay = REPLAYS["grpo"](trainer)
    after(trainer, replay, steps=1)
    rows = trainer.sampler.draw(1).rollouts
    assert 0 < rows.truncated.sum() < len(rows.mask)
    expected = torch.cat(replay.constants(replay.policy, answers_of(rows)))
    assert same(rows.rollout_logprobs[rows.mask], expected)


def test_a_run_takes_its_steps_at_the_rates_of_its_schedule(tmp_path: Path) -> None:
    trainer = started("reward-model", tmp_path, rows=4)
    trainer.settings.optimizer = replace(trainer.settings.optimizer, warmup=2, schedule="linear")
    replay = REPLAYS["reward-model"](trainer)
    loop.run(trainer, tmp_path)
    for number, rate in enumerate([0.5, 1.0, 1.0, 0.5]):
        replay.step(number, rate)
    assert same(weights(trainer), weights(replay))


@pytest.mark.parametrize(
    ("algorithm", "mistake"),
    [pytest.param(a, m, id=f"{a}-{m.__name__}") for a, some in MISTAKES.items() for m in some],
)
def test_a_mistake_leads_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, mistake: Mistake
) -> None:
    trainer = started(algorithm, tmp_path)
    replay = REPLAYS[algorithm](trainer)
    mistake(trainer, monkeypatch)
    assert not same(*after(trainer, replay))
