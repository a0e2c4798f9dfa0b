"""Supervised fine-tuning: right responses become more probable.

for each step, some demonstrations
loss = mean over tokens of -log π(token)
one step of AdamW down its gradient
"""

import torch
from torch import Tensor

from torch_impl.policy_loss import aggregate
from torch_impl.train import sources
from torch_impl.train.data import Demonstration
from torch_impl.train.distributed import World
from torch_impl.train.models import ModelSettings
from torch_impl.train.pairs import collate
from torch_impl.train.policies import PolicyTrainer
from torch_impl.train.rollouts import Rollouts
from torch_impl.train.seeds import epoch_rows
from torch_impl.train.settings import SFTSettings


class SFT(PolicyTrainer):
    """Trains a policy by demonstrations."""

    name = "sft"
    settings: SFTSettings

    def __init__(self, settings: SFTSettings, world: World, *, start: ModelSettings | None = None) -> None:
        super().__init__(settings, world, start=start)
        self.demonstrations = sources.demonstrations(settings.problems, settings.seed)
        self.asks = settings.problems.file is None
        if self.asks:
            self.sampler = self.make_sampler()

    def step(self, number: int) -> dict[str, float]:
        """A step down the loss of some demonstrations."""
        data, count = self.demonstrations["train"], self.settings.sft.rows
        taken = [data[k] for k in epoch_rows(len(data), count, number, self.settings.seed)]
        rows = self.collated(taken)
        self.descend(rows, rows.mask, self.loss)
        return {"response_length": float(rows.mask.sum(1).double().mean())}

    def loss(self, rows: Rollouts) -> Tensor:
        """The loss of some demonstrations."""
        loss = -aggregate(self.actor.logprobs(rows), rows.mask, mode="token-mean")
        self.tally.add(rows.mask.sum(), loss=loss.detach())
        return loss

    def evaluate(self) -> dict[str, float]:
        """The log-probability of held-out responses, a response each, and success where there is a task."""
        held_out = self.demonstrations["held-out"]
        found = {"held_out_logprob": self.mean_over(held_out, self.total_logprob)}
        return found | super().evaluate() if self.asks else found

    @torch.no_grad()
    def total_logprob(self, some: list[Demonstration]) -> float:
        """The log-probability of all of them."""
        rows = self.collated(some)
        return float(aggregate(self.actor.logprobs(rows), rows.mask, mode="seq-mean-token-sum")) * len(some)

    def collated(self, some: list[Demonstration]) -> Rollouts:
        """Demonstrations as rows of tokens."""
        texts = [(d.prompt, d.response) for d in some]
        return collate(texts, self.tokenizer, self.world.device)
