"""Each algorithm learns what a policy of some thousand weights can learn in seconds."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training import small_runs
from tests.training.small_runs import weights
from torch_impl.importance_sampling import truncated_importance_weights
from torch_impl.train.data import Preference
from torch_impl.train.grpo import GRPO
from torch_impl.train.ppo import PPO
from torch_impl.train.rollouts import Rollouts
from torch_impl.train.sampling import merged
from torch_impl.train.trpo import TRPO

pytestmark = pytest.mark.usefixtures("without_network", "one_thread")


@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "trpo"])
def test_rewards_grow(tmp_path: Path, algorithm: str) -> None:
    settings = small_runs.settings(algorithm, tmp_path)
    settings.optimizer = replace(settings.optimizer, learning_rate=0.01)
    settings.rollout = replace(settings.rollout, prompts=16, samples=16, together=16)
    if algorithm == "trpo":
        settings.rollout = replace(settings.rollout, prompts=8, samples=8, together=8)
    options: dict[str, dict[str, Any]] = {
        "grpo": {},
        "ppo": {"truncation": "end"},
        "trpo": {"max_kl": 0.1, "cg_iters": 5},
    }
    for name, x in options[algorithm].items():
        setattr(getattr(settings, algorithm), name, x)
    trainer = small_runs.begin(algorithm, settings)
    rewards = [trainer.step(number)["reward"] for number in range(8)]
    assert max(rewards[:2]) < min(rewards[-2:])


def test_no_step_of_a_trust_region_leaves_it(tmp_path: Path) -> None:
    trainer = small_runs.trainer("trpo", tmp_path, max_kl=1e-3)
    for number in range(4):
        measured = trainer.step(number)
        assert 0 < measured["step_kl"] <= 1e-3
        assert measured["improvement"] > 0


def test_a_trust_region_without_anything_to_gain_stays(tmp_path: Path) -> None:
    trainer = small_runs.trainer("trpo", tmp_path)
    trainer.sampler.questions.score = lambda problem, response: 0.5  # type: ignore[attr-defined]
    before = weights(trainer)
    assert trainer.step(0)["step_kl"] == pytest.approx(0.0)
    assert torch.equal(weights(trainer), before)


def test_preferences_are_learned(tmp_path: Path) -> None:
    settings = small_runs.settings("dpo", tmp_path)
    settings.optimizer = replace(settings.optimizer, learning_rate=0.01)
    trainer: Any = small_runs.begin("dpo", settings)
    ways = [Preference("a>", "cat", "tac"), Preference("a>", "tac", "cat")]
    before = []
    for way in ways:
        trainer.preferences = {"train": [way], "held-out": [way]}
        before.append(trainer.evaluate()["held_out_accuracy"])
    assert sorted(before) == [0.0, 1.0]
    wrong = ways[before.index(0.0)]
    trainer.preferences = {"train": [wrong], "held-out": [wrong]}
    for number in range(8):
        trainer.step(number)
    assert trainer.evaluate()["held_out_accuracy"] == 1.0


def test_a_separable_set_is_separated(tmp_path: Path) -> None:
    settings = small_runs.settings("reward-model", tmp_path, rejected="repeated")
    settings.optimizer = replace(settings.optimizer, learning_rate=0.01)
    trainer = small_runs.begin("reward-model", settings)
    assert trainer.evaluate()["held_out_accuracy"] == 0.0  # all scores are 0
    for number in range(20):
        trainer.step(number)
    assert trainer.evaluate()["held_out_accuracy"] > 0.9


def test_pairs_against_the_policys_own_answers(tmp_path: Path) -> None:
    trainer: Any = small_runs.trainer("dpo", tmp_path, own=True, asked=2)
    assert len(trainer.preferences["train"]) == 32
    assert all(p.chosen == p.prompt[:-1][::-1] != p.rejected for p in trainer.preferences["train"])


class OtherEngine:
    """The policy's own, with log-probabilities that are off by half a nat."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def generate(self, *prompts: Any, **options: Any) -> Rollouts:
        found: Rollouts = self.engine.generate(*prompts, **options)
        return replace(found, rollout_logprobs=found.rollout_logprobs - 0.5)


@pytest.mark.parametrize("kind", ["grpo", "ppo"])
def test_tokens_of_another_engine_are_weighed(tmp_path: Path, kind: str) -> None:
    settings = small_runs.settings(kind, tmp_path)
    settings.rollout.weight_cap = 1.5
    trainer: Any = small_runs.begin(kind, settings)
    own = trainer.engine

    @contextmanager
    def other() -> Any:
        with own() as engine:
            yield OtherEngine(engine)

    trainer.sampler.engine = other
    rows = trainer.sampler.draw(0).rollouts
    old, _ = trainer.actor.of_all(rows)
    weighed = trainer.sampler.weights(old, rows)
    assert torch.equal(weighed, truncated_importance_weights(old, rows.rollout_logprobs, cap=1.5))
    assert weighed[rows.mask].tolist() == [1.5] * int(rows.mask.sum())
    seen: list[Any] = []
    loss = trainer.loss

    def watched(some: Any) -> Any:
        seen.append(some.weights)
        return loss(some)

    trainer.loss = watched
    trainer.step(0)
    assert torch.equal(torch.sort(torch.cat(seen)[:, 0]).values, torch.sort(weighed[:, 0]).values)


def test_old_log_probabilities_are_the_trainers_at_the_temperature(tmp_path: Path) -> None:
    settings = small_runs.settings("grpo", tmp_path)
    settings.rollout.temperature = 0.7
    trainer = small_runs.begin("grpo", settings)
    assert isinstance(trainer, GRPO)
    rows = trainer.sampler.draw(0).rollouts
    old, _ = trainer.actor.of_all(rows)
    assert small_runs.same(old[rows.mask], rows.rollout_logprobs[rows.mask])


@pytest.mark.parametrize("truncation", ["bootstrap", "end"])
def test_a_response_that_was_cut_off_is_paid_once(tmp_path: Path, truncation: str) -> None:
    trainer = small_runs.trainer("ppo", tmp_path, truncation=truncation, lam=1.0, whiten=False)
    assert isinstance(trainer, PPO)
    with torch.no_grad():
        for p in trainer.critic.scorer.parameters():
            p.add_(0.1)
    sampled = trainer.sampler.draw(0)
    rows = sampled.rollouts
    assert rows.truncated.any()
    experience, _ = trainer.look_back(sampled)
    _, behind = trainer.critic.of_all(rows)
    expected = torch.where(rows.truncated, behind, sampled.scores)
    if truncation == "end":
        expected = sampled.scores
    assert small_runs.same(experience.returns[:, 0], expected.to(behind))


def test_a_critic_alone_leaves_the_policy(tmp_path: Path) -> None:
    trainer = small_runs.trainer("ppo", tmp_path, critic_steps=1, truncation="end")
    assert isinstance(trainer, PPO)
    before = [p.detach().clone() for p in trainer.actor.policy.parameters()]
    critic = [p.detach().clone() for p in trainer.critic.scorer.parameters()]
    trainer.step(0)
    assert all(torch.equal(p, x) for p, x in zip(trainer.actor.policy.parameters(), before, strict=True))
    assert not all(torch.equal(p, x) for p, x in zip(trainer.critic.scorer.parameters(), critic, strict=True))
    trainer.step(1)
    assert not all(torch.equal(p, x) for p, x in zip(trainer.actor.policy.parameters(), before, strict=True))


def test_what_is_sampled_depends_on_lots_and_steps(tmp_path: Path) -> None:
    trainer = small_runs.trainer("grpo", tmp_path)
    assert isinstance(trainer, GRPO)
    first, again, next_ = (trainer.sampler.draw(number).rollouts for number in (0, 0, 1))
    assert torch.equal(first.responses, again.responses)
    assert not torch.equal(first.responses, next_.responses)


def test_lots_are_padded_to_the_longest() -> None:
    wide, narrow = torch.ones(1, 3), torch.ones(1, 2)
    one = torch.ones(1, 1)
    short = Rollouts(narrow, narrow, one, one, one, torch.ones(1))
    long = Rollouts(wide, wide, narrow, narrow, narrow, torch.ones(1))
    found = merged([short, long], pad_id=9)
    assert found.prompts.tolist() == [[9, 1, 1], [1, 1, 1]]
    assert found.responses.tolist() == [[1, 9], [1, 1]]
    assert found.mask.tolist() == [[1, 0], [1, 1]]


def test_trust_regions_are_of_whole_weights(tmp_path: Path) -> None:
    world = replace(small_runs.ALONE, size=2, shard="fsdp")
    with pytest.raises(ValueError, match=r"run.shard must be 'ddp' for trpo, got 'fsdp'"):
        TRPO(small_runs.settings("trpo", tmp_path), world)
