"""PPO: a critic says what could be expected of each token, and the policy moves to what was better.

    for each step
        sample responses, and score them
        r_t = -β (log π_old - log π_reference), and the score at the last token
        V = the critic; A = GAE of r and V; R = A + V
        for each epoch, for each minibatch
            ρ = π(token) / π_old(token), where π_old is the policy that sampled
            actor's loss = mean over tokens of -min(ρ A, clip(ρ, 1 - ε_low, 1 + ε_high) A)
            critic's loss = mean over tokens of ½ (V - R)²
            one step of AdamW down actor's loss + value_coef · critic's loss

π_old, A and R are fixed for all epochs of a step. A response that was cut off could have gone on: GAE ends
with the value of what would come next. Then it has no score, since with both it would be paid twice, and the
policy would learn not to end.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torch_impl.gae import gae, lambda_returns, whiten
from torch_impl.policy_loss import policy_loss
from torch_impl.reward import shaped_rewards
from torch_impl.train import models
from torch_impl.train.actors import Critic
from torch_impl.train.descent import Descent, minibatches
from torch_impl.train.distributed import World
from torch_impl.train.models import ModelSettings
from torch_impl.train.policies import PolicyTrainer
from torch_impl.train.rollouts import Rollouts
from torch_impl.train.sampling import Sampled
from torch_impl.train.settings import PPOOptions, PPOSettings
from torch_impl.value_loss import value_loss


@dataclass(frozen=True)
class Experience:
    """Responses, and what is fixed about them for all epochs of a step; (B, T) each."""

    rollouts: Rollouts
    old_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor
    weights: Tensor | None
    """Where an engine other than the trainer sampled."""


class PPO(PolicyTrainer):
    """Trains a policy and a critic by responses of the policy."""

    name = "ppo"
    settings: PPOSettings
    options: PPOOptions

    def __init__(self, settings: PPOSettings, world: World, *, start: ModelSettings | None = None) -> None:
        super().__init__(settings, world, start=start)
        self.options, self.sampler = settings.ppo, self.make_sampler()
        self.reference = self.make_reference()
        scorer = models.load_critic(self.start, self.tokenizer, seed=settings.seed, device=world.device)
        self.critic = Critic.of(scorer, world, settings.optimizer)
        self.trained = nn.ModuleDict({"policy": self.actor.module, "critic": self.critic.module})
        rate = settings.optimizer.learning_rate
        of_critic = settings.optimizer.critic_learning_rate
        rates = [rate, rate if of_critic is None else of_critic]
        trained = list(zip([self.actor.module, self.critic.module], rates, strict=True))
        self.descent = Descent(trained, settings.optimizer, world)

    def step(self, number: int) -> dict[str, float]:
        """Sample, score, estimate advantages, and go down both losses in epochs and minibatches."""
        sampled = self.sampler.draw(number)
        experience, measured = self.look_back(sampled)
        loss = self.critic_loss if number < self.options.critic_steps else self.loss
        for epoch in range(self.options.epochs):
            order = self.settings.seed, "order", number, epoch
            for some in minibatches(experience, len(sampled.scores), self.options.minibatches, *order):
                self.descend(some, some.rollouts.mask, loss, self.options.aggregation)
        return measured | self.moved(number, sampled.rollouts, experience.old_logprobs)

    def look_back(self, sampled: Sampled) -> tuple[Experience, dict[str, float]]:
        """What is fixed before the first update, and what there is to say about it."""
        o, rows = self.options, sampled.rollouts
        old_logprobs, entropies = self.actor.of_all(rows)
        ref_logprobs, _ = self.reference.of_all(rows)
        old_values, bootstrap = self.critic.of_all(rows)
        scores = sampled.scores.to(old_logprobs)
        if o.truncation == "bootstrap":
            scores = scores.masked_fill(rows.truncated, 0.0)
        else:
            bootstrap = torch.zeros_like(bootstrap)
        rewards = shaped_rewards(
            scores, old_logprobs, ref_logprobs, rows.mask, kl_coef=o.kl_coef, estimator=o.kl_estimator
        )
        seen = rewards, old_values, rows.mask, bootstrap
        advantages = gae(*seen, gamma=o.gamma, lam=o.lam)
        returns = lambda_returns(*seen, gamma=o.gamma, lam=o.lam)
        measured = sampled.measured(old_logprobs, ref_logprobs, entropies)
        measured["advantage_spread"] = float(advantages[rows.mask].std())
        if o.whiten:
            advantages = whiten(advantages, rows.mask)
        weights = self.sampler.weights(old_logprobs, rows)
        return Experience(rows, old_logprobs, old_values, advantages, returns, weights), measured

    def loss(self, some: Experience) -> Tensor:
        """The actor's loss and the critic's, of some responses."""
        return self.actor_loss(some) + self.critic_loss(some)

    def actor_loss(self, some: Experience) -> Tensor:
        """The clipped loss, and the entropy."""
        o, mask = self.options, some.rollouts.mask
        logprobs, entropies = self.actor.logprobs_and_entropy(some.rollouts, entropy=o.entropy_coef > 0)
        self.watch(logprobs, some.old_logprobs, some.advantages, mask)
        loss = policy_loss(
            logprobs,
            some.old_logprobs,
            some.advantages,
            mask,
            some.weights,
            clip_low=o.clip_low,
            clip_high=o.clip_high,
            dual_clip=o.dual_clip,
            ratio_level=o.ratio_level,
            aggregation=o.aggregation,
            horizon=self.horizon,
        )
        return loss - o.entropy_coef * self.mean(entropies, mask)

    def critic_loss(self, some: Experience) -> Tensor:
        """Its weight times half the squared distance of values from returns."""
        o, mask = self.options, some.rollouts.mask
        loss = value_loss(
            self.critic.values(some.rollouts),
            some.old_values,
            some.returns,
            mask,
            clip=o.value_clip,
            aggregation=o.aggregation,
            horizon=self.horizon,
        )
        self.tally.add(mask.sum(), value_loss=loss.detach())
        return o.value_coef * loss
