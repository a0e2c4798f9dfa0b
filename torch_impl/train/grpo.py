"""GRPO: ask each prompt several times, and make what was better than its group's mean more probable.

    for each step
        sample G responses to each of some prompts, and score them
        A_i = (r_i - mean of its group) / (deviation of its group + ε)
        for each epoch, for each minibatch
            ρ = π(token) / π_old(token), where π_old is the policy that sampled
            loss = mean over tokens of -min(ρ A, clip(ρ, 1 - ε_low, 1 + ε_high) A), + β KL(π‖reference)
            one step of AdamW down its gradient

There is no critic: the group says what could be expected. Variants are settings: advantages without the
deviation (`scale="none"`) or by the mean of the others (`baseline="leave-one-out"`), another mean over tokens
(`aggregation`), a higher clip above (`clip_high`), the response's ratio (`ratio_level="sequence"`).
"""

from dataclasses import dataclass

from torch import Tensor

from torch_impl.group import group_advantages, grpo_loss, rloo_advantages
from torch_impl.kl import kl_estimate
from torch_impl.policy_loss import policy_loss
from torch_impl.train.descent import minibatches
from torch_impl.train.distributed import World
from torch_impl.train.models import ModelSettings
from torch_impl.train.policies import PolicyTrainer
from torch_impl.train.rollouts import Rollouts
from torch_impl.train.settings import GRPOOptions, GRPOSettings


@dataclass(frozen=True)
class Experience:
    """Responses, and what is fixed about them for all epochs of a step."""

    rollouts: Rollouts
    old_logprobs: Tensor
    """(B, T), of the policy before the first update."""
    ref_logprobs: Tensor
    """(B, T), of the policy of the start."""
    advantages: Tensor
    """(B,), one a response."""
    weights: Tensor | None
    """(B, T), where an engine other than the trainer sampled."""


class GRPO(PolicyTrainer):
    """Trains a policy by groups of its own responses."""

    name = "grpo"
    settings: GRPOSettings
    options: GRPOOptions

    def __init__(self, settings: GRPOSettings, world: World, *, start: ModelSettings | None = None) -> None:
        super().__init__(settings, world, start=start)
        self.options, self.sampler = settings.grpo, self.make_sampler()
        self.reference = self.make_reference()

    def step(self, number: int) -> dict[str, float]:
        """Sample, score, and go down the loss in epochs and minibatches."""
        sampled = self.sampler.draw(number)
        rows = sampled.rollouts
        old_logprobs, entropies = self.actor.of_all(rows)
        ref_logprobs, _ = self.reference.of_all(rows)
        advantages = self.advantages(sampled.scores.to(old_logprobs), sampled.group_ids)
        weights = self.sampler.weights(old_logprobs, rows)
        experience = Experience(rows, old_logprobs, ref_logprobs, advantages, weights)
        for epoch in range(self.options.epochs):
            order = self.settings.seed, "order", number, epoch
            for some in minibatches(experience, len(rows.mask), self.options.minibatches, *order):
                self.descend(some, some.rollouts.mask, self.loss, self.options.aggregation)
        spread = {"advantage_spread": float(advantages.std())} | self.moved(number, rows, old_logprobs)
        return sampled.measured(old_logprobs, ref_logprobs, entropies) | spread

    def advantages(self, scores: Tensor, group_ids: Tensor) -> Tensor:
        """How much better each response is than its group, (B,)."""
        o = self.options
        if o.baseline == "leave-one-out":
            return rloo_advantages(scores, group_ids)
        return group_advantages(scores, group_ids, scale=o.scale, ddof=o.ddof, eps=o.eps)

    def loss(self, some: Experience) -> Tensor:
        """The clipped loss, the KL from the reference and the entropy, of some responses."""
        o, mask = self.options, some.rollouts.mask
        logprobs, entropies = self.actor.logprobs_and_entropy(some.rollouts, entropy=o.entropy_coef > 0)
        self.watch(logprobs, some.old_logprobs, some.advantages[:, None].expand_as(logprobs), mask)
        if some.weights is None and o.dual_clip is None:
            loss = self.grpo_loss(logprobs, some)
        else:
            loss = self.weighted_loss(logprobs, some, some.weights)
        return loss - o.entropy_coef * self.mean(entropies, mask)

    def grpo_loss(self, logprobs: Tensor, some: Experience) -> Tensor:
        """The clipped loss with one advantage a response, and the KL."""
        o = self.options
        return grpo_loss(
            logprobs,
            some.old_logprobs,
            some.ref_logprobs,
            some.advantages,
            some.rollouts.mask,
            clip_low=o.clip_low,
            clip_high=o.clip_high,
            kl_coef=o.kl_coef,
            ratio_level=o.ratio_level,
            aggregation=o.aggregation,
            horizon=self.horizon,
        )

    def weighted_loss(self, logprobs: Tensor, some: Experience, weights: Tensor | None) -> Tensor:
        """The same with a weight for each token, and a dual clip."""
        o, mask = self.options, some.rollouts.mask
        loss = policy_loss(
            logprobs,
            some.old_logprobs,
            some.advantages[:, None].expand_as(logprobs),
            mask,
            weights,
            clip_low=o.clip_low,
            clip_high=o.clip_high,
            dual_clip=o.dual_clip,
            ratio_level=o.ratio_level,
            aggregation=o.aggregation,
            horizon=self.horizon,
        )
        return loss + o.kl_coef * self.mean(kl_estimate(logprobs, some.ref_logprobs, estimator="k3"), mask)
