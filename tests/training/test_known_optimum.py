"""PPO and GRPO, by `train_step` and nothing else, reach the known optimum of a bandit and a small process."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from torch_impl.training import train_step

pytestmark = pytest.mark.usefixtures("one_thread")

PAYS = torch.tensor([0.1, 0.4, 0.9, 0.3])
"""What each action of the bandit pays: the third is the best."""
LEFT = 0.1
"""Share of what the even policy misses of the optimal value that may still be missed after 60 updates."""
ROWS, GROUP = 64, 16
START, DETOUR, TRAP, END = range(4)
MOVES = torch.tensor([[DETOUR, TRAP], [END, END], [END, END]])
REWARDS = torch.tensor([[0.0, 0.5], [1.0, 0.0], [0.0, 0.0]])
"""From the start, the second action pays at once and leads where nothing is paid; the first leads to 1."""


def sampled(logits: Tensor, states: Tensor, generator: torch.Generator) -> Tensor:
    """An action for each state."""
    return torch.multinomial(logits[states].softmax(-1), 1, generator=generator)[:, 0]


def bandit(table: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Responses of one token, in the one state."""
    states = torch.zeros(ROWS, 1, dtype=torch.long)
    actions = sampled(table[:, :-1], states[:, 0], generator)[:, None]
    return states, actions, PAYS[actions]


def process(table: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Responses of two tokens."""
    first = torch.zeros(ROWS, dtype=torch.long)
    chosen = sampled(table[:, :-1], first, generator)
    then = MOVES[first, chosen]
    chosen_then = sampled(table[:, :-1], then, generator)
    states, actions = torch.stack([first, then], 1), torch.stack([chosen, chosen_then], 1)
    return states, actions, REWARDS[states, actions]


def trained(sample: Callable[..., Any], table: Tensor, seed: int, **options: Any) -> Tensor:
    """The policy's probabilities after 60 updates."""
    generator = torch.Generator().manual_seed(seed)
    ref = table[:, :-1].clone()
    for _ in range(60):
        states, actions, rewards = sample(table, generator)
        mask = torch.ones_like(rewards, dtype=torch.bool)
        others = torch.zeros(ROWS), torch.arange(ROWS) // GROUP
        table = train_step(table, ref, states, actions, rewards, mask, *others, **options)
    return table[:, :-1].softmax(-1)


ALGORITHMS: dict[str, dict[str, Any]] = {
    "ppo": {"algorithm": "ppo", "optimizer": "adam", "learning_rate": 0.1, "epochs": 4, "minibatch_rows": 32},
    "grpo": {"algorithm": "grpo", "optimizer": "adam", "learning_rate": 0.1, "epochs": 2, "kl_coef": 0.0},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ALGORITHMS)
def test_bandit(name: str, seed: int) -> None:
    policy = trained(bandit, torch.zeros(1, 5), seed, **ALGORITHMS[name])
    assert policy.argmax() == PAYS.argmax()
    assert PAYS.max() - policy[0] @ PAYS < LEFT * (PAYS.max() - PAYS.mean())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ALGORITHMS)
def test_process(name: str, seed: int) -> None:
    """The optimal value is 1; what pays at once is worth 0.5."""
    policy = trained(process, torch.zeros(3, 3), seed, **ALGORITHMS[name])
    assert policy[[START, DETOUR]].argmax(1).tolist() == [0, 0]
    assert 1.0 - value(policy) < LEFT * (1.0 - value(torch.full((3, 2), 0.5)))


def value(policy: Tensor) -> Tensor:
    """The mean return from the start."""
    gains = (policy * REWARDS).sum(1)
    return gains[START] + policy[START, 0] * gains[DETOUR] + policy[START, 1] * gains[TRAP]


def test_a_price_on_the_divergence() -> None:
    """It keeps the policy between the reference and the best action."""
    free, priced = (
        trained(bandit, torch.zeros(1, 5), 0, **(ALGORITHMS["grpo"] | {"kl_coef": price}))[0, PAYS.argmax()]
        for price in (0.0, 2.0)
    )
    assert 1 / len(PAYS) < priced < free
