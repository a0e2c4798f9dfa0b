"""DPO: from pairs of responses, without sampling: the chosen one becomes more probable than the rejected one.

    for each step, some pairs
        h = (log π(chosen) - log π(rejected)) - (log π_ref(chosen) - log π_ref(rejected))
        loss = mean over pairs of -log σ(β h)
        one step of AdamW down its gradient

The reference is the policy of the start. Variants are settings: hinge, IPO, label smoothing, means in place
of sums over tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_impl.preference import dpo_loss, implicit_rewards, sequence_logprobs
from torch_impl.train import sources
from torch_impl.train.data import Preference
from torch_impl.train.distributed import World
from torch_impl.train.models import ModelSettings
from torch_impl.train.pairs import Pairs, collate_pairs
from torch_impl.train.policies import PolicyTrainer
from torch_impl.train.seeds import epoch_rows
from torch_impl.train.settings import DPOOptions, DPOSettings


@dataclass(frozen=True)
class Compared:
    """Pairs, and what the reference makes of them; (N,) each."""

    pairs: Pairs
    ref_chosen: Tensor
    ref_rejected: Tensor


class DPO(PolicyTrainer):
    """Trains a policy by pairs."""

    name = "dpo"
    settings: DPOSettings
    options: DPOOptions

    def __init__(self, settings: DPOSettings, world: World, *, start: ModelSettings | None = None) -> None:
        super().__init__(settings, world, start=start)
        self.options, self.reference = settings.dpo, self.make_reference()
        if settings.dpo.own:
            self.preferences = self.make_sampler().preferences(settings.dpo.asked)
        else:
            self.preferences = sources.preferences(settings.problems, settings.dpo, settings.seed)
        margins = [pair.margin for pairs in self.preferences.values() for pair in pairs if pair.margin]
        if margins:
            raise ValueError(f"problems.file must have no margin for dpo, got {margins[0]}: a reward model's")

    def step(self, number: int) -> dict[str, float]:
        """A step down the loss of some pairs."""
        data = self.preferences["train"]
        taken = [data[k] for k in epoch_rows(len(data), self.options.rows, number, self.settings.seed)]
        pairs = collate_pairs(taken, self.tokenizer, self.world.device)
        before = self.of_responses(self.reference.of_all(pairs.together())[0], pairs)
        self.descend(Compared(pairs, *before), pairs.mask, self.loss, "seq-mean-token-sum")
        return {"response_length": float(pairs.together().mask.sum(1).double().mean())}

    def loss(self, some: Compared) -> Tensor:
        """The loss of some pairs."""
        o, refs = self.options, (some.ref_chosen, some.ref_rejected)
        chosen, rejected = self.of_responses(self.actor.logprobs(some.pairs.together()), some.pairs)
        loss = dpo_loss(
            chosen, rejected, *refs, beta=o.beta, label_smoothing=o.label_smoothing, loss_type=o.loss_type
        )
        better, worse = (
            implicit_rewards(x.detach(), ref, beta=o.beta)
            for x, ref in zip((chosen, rejected), refs, strict=True)
        )
        margin = better - worse
        self.tally.add(len(chosen), loss=loss.detach(), margin=margin.mean())
        self.tally.add(len(chosen), accuracy=(margin > 0).double().mean())
        return loss

    def of_responses(self, logprobs: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Log-probabilities (N,) of chosen and of rejected responses, from those of tokens of all."""
        chosen, rejected = sequence_logprobs(
            logprobs, pairs.together().mask, average=self.options.average
        ).chunk(2)
        return chosen, rejected

    def evaluate(self) -> dict[str, float]:
        """The share of held-out pairs whose chosen response is more probable than the rejected one."""
        return {"held_out_accuracy": self.mean_over(self.preferences["held-out"], self.count_ahead)}

    @torch.no_grad()
    def count_ahead(self, some: list[Preference]) -> int:
        """How many pairs are the right way round."""
        pairs = collate_pairs(some, self.tokenizer, self.world.device)
        chosen, rejected = self.of_responses(self.actor.logprobs(pairs.together()), pairs)
        return int((chosen > rejected).sum())
