"""A minibatch in parts is the minibatch, and steps are refused that are not finite."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training import small_runs
from tests.training.small_runs import same, weights
from torch_impl.train.descent import Tally, minibatches, select
from torch_impl.train.rollouts import Rollouts
from torch_impl.train.seeds import epoch_rows
from torch_impl.train.settings import Optimizer
from torch_impl.train.step import Counts, NotFinite, update
from torch_impl.train.trainer import rate_factor
from torch_impl.train.trpo import TRPO

pytestmark = pytest.mark.usefixtures("without_network", "one_thread")

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("grpo", {"kl_coef": 0.1, "minibatches": 2, "epochs": 2}),
    ("grpo", {"aggregation": "seq-mean-token-sum-norm", "entropy_coef": 0.1, "scale": "none"}),
    ("grpo", {"aggregation": "seq-mean-token-mean", "ratio_level": "sequence", "dual_clip": 3.0}),
    ("ppo", {"kl_coef": 0.1, "minibatches": 2, "value_clip": 0.2, "entropy_coef": 0.1, "truncation": "end"}),
    ("ppo", {"epochs": 2, "aggregation": "seq-mean-token-sum", "lam": 1.0}),
    ("dpo", {}),
    ("reward-model", {}),
    ("sft", {}),
]


def after_two_steps(algorithm: str, out: Path, micro_rows: int | None, **options: Any) -> Tensor:
    settings = small_runs.settings(algorithm, out, **options)
    settings.optimizer = replace(settings.optimizer, micro_rows=micro_rows)
    trainer = small_runs.begin(algorithm, settings)
    start = weights(trainer)
    for number in range(2):
        trainer.step(number)
    assert not same(start, weights(trainer))
    return weights(trainer)


@pytest.mark.parametrize(("algorithm", "options"), VARIANTS)
def test_micro_batches_change_roundings_alone(
    tmp_path: Path, algorithm: str, options: dict[str, Any]
) -> None:
    whole = after_two_steps(algorithm, tmp_path, None, **options)
    assert same(whole, after_two_steps(algorithm, tmp_path, 3, **options))


def test_a_trust_region_is_the_same_in_parts(tmp_path: Path) -> None:
    made = small_runs.trainer("trpo", tmp_path)
    assert isinstance(made, TRPO)
    batch = made.look_back(made.sampler.draw(0))
    found = []
    for micro_rows in (None, 3):
        made.settings.optimizer = replace(made.settings.optimizer, micro_rows=micro_rows)
        slope = made.over_parts(batch, made.slope)
        found.append(torch.cat([slope, made.fisher_product(batch, slope)]))
    largest = found[0].abs().max()
    assert largest > 0
    assert (found[0] - found[1]).abs().max() < largest * torch.finfo(torch.float32).eps


def test_a_mean_of_micro_batches_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = after_two_steps("grpo", tmp_path, None)
    monkeypatch.setattr(Counts, "share", lambda self, whole, *_: self.rows / whole.rows)
    assert not same(whole, after_two_steps("grpo", tmp_path, 3))


def test_minibatches_go_through_all_rows() -> None:
    x = torch.arange(12).view(12, 1)
    rows = Rollouts(x, x, x, x, x, torch.arange(12))
    found = list(minibatches(rows, 12, 3, "seed"))
    assert [len(x.truncated) for x in found] == [4, 4, 4]
    assert sorted(torch.cat([x.truncated for x in found]).tolist()) == list(range(12))
    assert torch.equal(found[0].prompts[:, 0], found[0].truncated)


def test_minibatches_are_of_one_size() -> None:
    with pytest.raises(ValueError, match="minibatches must divide the 12 rows of a step, got 5"):
        next(minibatches(Counts(*torch.zeros(3, 12)), 12, 5))


def test_rows_of_nothing_are_refused() -> None:
    with pytest.raises(TypeError, match="rows must be a dataclass, got list"):
        select([1], slice(0, 1))


def test_a_tally_weighs() -> None:
    tally = Tally()
    tally.add(1.0, x=2.0)
    tally.add(torch.tensor(3), x=torch.tensor(6.0))
    assert tally.means(small_runs.ALONE) == {"x": 5.0}
    assert tally.means(small_runs.ALONE) == {}


@pytest.mark.parametrize(
    ("factor", "told"),
    [(float("nan"), "gradient's norm is nan"), (float("inf"), "gradient's norm is (nan|inf)")],
)
def test_no_step_is_taken_down_what_is_not_finite(factor: float, told: str) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    with pytest.raises(NotFinite, match=told):
        update(optimizer, [lambda: weight.sum(), lambda: factor * weight.sum()])
    assert weight.tolist() == [1.0, 1.0]
    assert not optimizer.state


def test_a_loss_that_is_not_finite_is_seen_beside_a_gradient_that_is() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(NotFinite, match="the loss is inf"):
        update(torch.optim.SGD([weight], lr=0.1), [lambda: weight.sum() + torch.inf])
    assert weight.tolist() == [1.0, 1.0]


def test_data_is_gone_through_in_epochs() -> None:
    rows = [row for step in range(5) for row in epoch_rows(10, 4, step, "seed")]
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:]


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
    ],
)
def test_learning_rates_grow_and_fall(schedule: Any, factors: list[float]) -> None:
    settings = Optimizer(warmup=2, schedule=schedule)
    assert [rate_factor(step, 6, settings) for step in range(6)] == pytest.approx(factors)
