"""Products in bfloat16, weights and losses in float32; old log-probabilities come from the same products."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training import small_runs
from torch_impl.train.policies import PolicyTrainer
from torch_impl.train.rollouts import Rollouts
from torch_impl.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("without_network", "one_thread")


def narrow(algorithm: str, out: Path, **options: Any) -> Trainer:
    """A trainer in float32 whose products are bfloat16."""
    settings = small_runs.settings(algorithm, out, **options)
    settings.model = replace(settings.model, dtype="float32")
    settings.optimizer = replace(settings.optimizer, autocast="bfloat16")
    return small_runs.begin(algorithm, settings)


def policy(out: Path) -> tuple[PolicyTrainer, Rollouts]:
    trainer = narrow("ppo", out)
    assert isinstance(trainer, PolicyTrainer)
    return trainer, trainer.sampler.draw(0).rollouts


def test_a_ratio_is_1_before_the_first_update(tmp_path: Path) -> None:
    trainer, rows = policy(tmp_path)
    old, _ = trainer.actor.of_all(rows)
    new = trainer.actor.logprobs(rows)
    assert new.requires_grad
    assert torch.equal(new, old)


def test_values_are_those_of_the_loss(tmp_path: Path) -> None:
    trainer, rows = policy(tmp_path)
    critic: Any = trainer.critic  # type: ignore[attr-defined]
    torch.nn.init.normal_(critic.scorer.model.score.weight)
    old, _ = critic.of_all(rows)
    assert bool(old.any())
    assert torch.equal(critic.values(rows), old)


def test_products_are_narrow_and_sums_are_not(tmp_path: Path) -> None:
    trainer, rows = policy(tmp_path)
    found = trainer.actor.logprobs(rows)
    wide = replace(trainer.actor, settings=replace(trainer.actor.settings, autocast="none")).logprobs(rows)
    assert found.dtype == wide.dtype == torch.float32
    assert not torch.equal(found, wide)
    assert not torch.equal(found, found.bfloat16().float())  # rounded nowhere on the way out


def test_the_engine_has_the_same_products(tmp_path: Path) -> None:
    trainer, _ = policy(tmp_path)
    with trainer.engine():
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.filterwarnings("ignore::torch_impl.train.metrics.Alarm")
@pytest.mark.parametrize("algorithm", ["sft", "reward-model", "ppo", "grpo", "dpo"])
def test_weights_and_optimiser_stay_wide(tmp_path: Path, algorithm: str) -> None:
    trainer = narrow(algorithm, tmp_path)
    before = small_runs.weights(trainer)
    for number in range(2):
        trainer.step(number)
    after = small_runs.weights(trainer)
    assert before.dtype == after.dtype == torch.float32
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)
    assert trainer.descent is not None
    state = [x for held in trainer.descent.optimizer.state.values() for x in held.values()]
    assert {x.dtype for x in state} == {torch.float32}


def test_trust_regions_are_not_for_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"optimizer\.autocast must be 'none' for trpo, got 'bfloat16'"):
        narrow("trpo", tmp_path)
