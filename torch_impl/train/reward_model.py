"""A reward model from pairs of responses: the chosen one is to have the higher score.

for each step, some pairs
s = the number at the last token of each response
loss = mean over pairs of -log σ(s_chosen - s_rejected - margin), where a pair may add a margin of its own
one step of AdamW down its gradient
"""

import torch
from torch import Tensor, nn

from torch_impl.reward import reward_model_loss
from torch_impl.train import models, sources, tokens
from torch_impl.train.actors import Critic
from torch_impl.train.data import Preference
from torch_impl.train.descent import Descent
from torch_impl.train.distributed import World
from torch_impl.train.pairs import Pairs, collate_pairs
from torch_impl.train.seeds import epoch_rows
from torch_impl.train.settings import RewardModelSettings
from torch_impl.train.trainer import Trainer


class RewardModel(Trainer):
    """Trains a scorer by pairs."""

    name = "reward-model"
    settings: RewardModelSettings

    def __init__(self, settings: RewardModelSettings, world: World) -> None:
        super().__init__(settings, world)
        self.tokenizer, self.options = tokens.make(settings.model.tokenizer), settings.reward_model
        self.critic = Critic.of(self.fresh().to(world.device), world, settings.optimizer)
        self.trained = nn.ModuleDict({"scorer": self.critic.module})
        self.descent = Descent(
            [(self.critic.module, settings.optimizer.learning_rate)], settings.optimizer, world
        )
        self.preferences = sources.preferences(settings.problems, self.options, settings.seed)

    def fresh(self) -> models.ScoreModel:
        """The scorer of the start."""
        return models.load_scorer(self.settings.model, self.tokenizer, seed=self.settings.seed)

    def step(self, number: int) -> dict[str, float]:
        """A step down the loss of some pairs."""
        data = self.preferences["train"]
        taken = [data[k] for k in epoch_rows(len(data), self.options.rows, number, self.settings.seed)]
        pairs = collate_pairs(taken, self.tokenizer, self.world.device)
        self.descend(pairs, pairs.mask, self.loss, "seq-mean-token-sum")
        return {"response_length": float(pairs.together().mask.sum(1).double().mean())}

    def loss(self, some: Pairs) -> Tensor:
        """The loss of some pairs."""
        chosen, rejected = self.critic.scores(some.together()).chunk(2)
        nearer = chosen - some.margins.to(chosen)
        loss = reward_model_loss(nearer, rejected, margin=self.options.margin)
        margin = (chosen - rejected).detach()
        self.tally.add(len(chosen), loss=loss.detach(), margin=margin.mean())
        self.tally.add(len(chosen), accuracy=(margin > 0).double().mean())
        return loss

    def evaluate(self) -> dict[str, float]:
        """The share of held-out pairs whose chosen response has the higher score."""
        return {"held_out_accuracy": self.mean_over(self.preferences["held-out"], self.count_ahead)}

    @torch.no_grad()
    def count_ahead(self, some: list[Preference]) -> int:
        """How many pairs are the right way round."""
        pairs = collate_pairs(some, self.tokenizer, self.world.device)
        chosen, rejected = self.critic.scores(pairs.together()).chunk(2)
        return int((chosen > rejected).sum())
