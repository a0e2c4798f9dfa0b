"""TRPO: the largest step along the natural gradient that keeps the KL from the old policy below δ.

    for each step
        sample G responses to each of some prompts, and score them
        A_i = r_i - mean of the others of its group
        g = gradient of the mean over tokens of ρ A, where ρ = π(token) / π_old(token)
        F v = gradient of (gradient of the mean KL · v): the Fisher matrix times a vector, never the matrix
        Δ = √(2δ / s·F s) s, with F s = g by conjugate gradients
        θ ← the first of θ + Δ, θ + β Δ, θ + β² Δ ... that improves and has KL(π_old‖π) ≤ δ

No learning rate and no optimiser: δ says how far a step goes. All logits of a part are there at once, and
gradients of gradients are taken: it is for small models. Processes share the rows; each has all weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parameters_to_vector

from torch_impl.group import rloo_advantages
from torch_impl.kl import kl_divergence
from torch_impl.logprobs import token_logprobs, token_logprobs_and_entropy
from torch_impl.policy_loss import aggregate, kl_penalty_loss
from torch_impl.precision import widen
from torch_impl.train.building import inner, positions, token_count
from torch_impl.train.descent import select
from torch_impl.train.distributed import World, in_parts
from torch_impl.train.models import ModelSettings
from torch_impl.train.policies import PolicyTrainer
from torch_impl.train.rollouts import Rollouts
from torch_impl.train.sampling import Sampled
from torch_impl.train.settings import TRPOOptions, TRPOSettings
from torch_impl.train.step import Counts
from torch_impl.trust_region import backtracking_line_search, trust_region_step


@dataclass(frozen=True)
class Experience:
    """Responses of this process, and what is fixed about them for a step."""

    rollouts: Rollouts
    old_logits: Tensor
    """(B, T, V), divided by the temperature."""
    old_logprobs: Tensor
    """(B, T)."""
    entropies: Tensor
    """(B, T)."""
    advantages: Tensor
    """(B, T): one a response."""


@dataclass(frozen=True)
class Batch:
    """What a step is computed from."""

    mine: Experience
    whole: Counts
    """What a mean over the responses of all processes divides by."""


class TRPO(PolicyTrainer):
    """Trains a policy by steps within a trust region."""

    name = "trpo"
    settings: TRPOSettings
    options: TRPOOptions

    def __init__(self, settings: TRPOSettings, world: World, *, start: ModelSettings | None = None) -> None:
        if world.size > 1 and world.shard != "ddp":
            raise ValueError(f"run.shard must be 'ddp' for trpo, got {world.shard!r}")
        if settings.optimizer.autocast != "none":
            raise ValueError(
                f"optimizer.autocast must be 'none' for trpo, got {settings.optimizer.autocast!r}"
            )
        if settings.rollout.cap is not None:
            raise ValueError(
                "rollout.engine must be 'model' for trpo, which weighs no tokens, "
                f"got {settings.rollout.engine!r} and a cap of {settings.rollout.cap}"
            )
        super().__init__(settings, world, start=start)
        self.options, self.sampler = settings.trpo, self.make_sampler()
        self.reference, self.descent = self.make_reference(), None
        self.weights = [p for p in self.actor.policy.parameters() if p.requires_grad]

    def step(self, number: int) -> dict[str, float]:
        """Sample, score, and take the step that the line search accepts."""
        sampled, o = self.sampler.draw(number), self.options
        batch = self.look_back(sampled)
        gradient = self.over_parts(batch, self.slope)
        full_step = trust_region_step(
            partial(self.fisher_product, batch),
            gradient,
            max_kl=o.max_kl,
            cg_iters=o.cg_iters,
            damping=o.damping,
        )
        found = backtracking_line_search(
            partial(self.evaluate_at, batch),
            parameters_to_vector(self.weights).detach(),
            full_step,
            max_kl=o.max_kl,
            backtrack=o.backtrack,
            max_steps=o.max_steps,
        )
        return self.measured(sampled, batch, found)

    def measured(self, sampled: Sampled, batch: Batch, found: Tensor) -> dict[str, float]:
        """What there is to say about a step to the point that was found; the policy is left there."""
        improvement, kl = self.evaluate_at(batch, found)
        moved = {"step_kl": float(kl), "improvement": float(improvement)}
        mine = batch.mine.old_logprobs, batch.mine.entropies, batch.mine.advantages[:, 0]
        old_logprobs, entropies, advantages = map(self.world.rows, mine)
        ref_logprobs, _ = self.reference.of_all(sampled.rollouts)
        spread = {"advantage_spread": float(advantages.std())}
        return sampled.measured(old_logprobs, ref_logprobs, entropies) | moved | spread

    @torch.no_grad()
    def look_back(self, sampled: Sampled) -> Batch:
        """What is fixed before the step."""
        rows, size = sampled.rollouts, self.settings.optimizer.micro_rows
        mine = self.world.mine(len(rows.mask))
        logits = torch.cat(in_parts(lambda part: self.logits(rows.select(part)), mine, size))
        advantages = rloo_advantages(sampled.scores.to(logits), sampled.group_ids)
        own, whole = rows.select(mine), Counts.of(rows.mask)
        spread = advantages[mine, None].expand(own.mask.shape)
        chosen = token_logprobs_and_entropy(logits, own.responses)
        return Batch(Experience(own, logits, *chosen, spread), whole)

    def surrogate(self, some: Experience) -> Tensor:
        """The mean of ρ A over tokens."""
        mask, logits = some.rollouts.mask, self.logits(some.rollouts)
        logprobs = token_logprobs(logits, some.rollouts.responses)
        no_kl = torch.zeros_like(logprobs)
        return -kl_penalty_loss(
            logprobs, some.old_logprobs, some.advantages, no_kl, mask, kl_coef=0.0, aggregation="token-mean"
        )

    def slope(self, some: Experience) -> Tensor:
        """The gradient of the surrogate, (D,)."""
        return self.flat(torch.autograd.grad(self.surrogate(some), self.weights))

    def fisher_product(self, batch: Batch, vector: Tensor) -> Tensor:
        """The Fisher matrix of the old policy times a vector: the second derivative of the mean KL."""

        def of_part(some: Experience) -> Tensor:
            kl = aggregate(kl_divergence(self.logits(some.rollouts), some.old_logits), some.rollouts.mask)
            first = self.flat(torch.autograd.grad(kl, self.weights, create_graph=True))
            return self.flat(torch.autograd.grad(torch.dot(first, vector), self.weights))

        return self.over_parts(batch, of_part)

    @torch.no_grad()
    def evaluate_at(self, batch: Batch, point: Tensor) -> tuple[Tensor, Tensor]:
        """What a point improves the surrogate by, and its KL(π_old‖π); the policy is left there."""

        def of_part(some: Experience) -> Tensor:
            mask = some.rollouts.mask
            kl = aggregate(kl_divergence(some.old_logits, self.logits(some.rollouts)), mask)
            return torch.stack([self.surrogate(some) - aggregate(some.advantages, mask), kl])

        self.move(point)
        improvement, kl = self.over_parts(batch, of_part)
        return improvement, kl

    def over_parts(self, batch: Batch, compute: Callable[[Experience], Tensor]) -> Tensor:
        """A mean over the tokens of a batch, from those of its parts and of the other processes."""
        mask, size = batch.mine.rollouts.mask, self.settings.optimizer.micro_rows

        def of_part(part: slice) -> Tensor:
            found = compute(select(batch.mine, part))
            return Counts.of(mask[part]).share(batch.whole, "token-mean").to(found.dtype) * found

        return self.world.total(torch.stack(in_parts(of_part, slice(0, len(mask)), size)).sum(0))

    def logits(self, rows: Rollouts) -> Tensor:
        """Logits of the policy where it chose the tokens of responses, divided by the temperature."""
        ids = torch.cat([rows.prompts, rows.responses], 1)[:, :-1]
        attention = torch.cat([rows.prompt_mask, rows.mask], 1)[:, :-1]
        with sdpa_kernel(SDPBackend.MATH):  # the others cannot be differentiated twice
            out = inner(self.actor.policy)(
                input_ids=ids,
                attention_mask=attention,
                position_ids=positions(attention),
                logits_to_keep=rows.mask.shape[1],
                use_cache=False,
            )
        return widen(out.logits[..., : token_count(self.actor.policy)]) / self.actor.temperature

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """Numbers of all weights in one vector."""
        return torch.cat([x.flatten() for x in tensors])

    @torch.no_grad()
    def move(self, point: Tensor) -> None:
        """Put the policy at a point."""
        sizes = [p.numel() for p in self.weights]
        for p, x in zip(self.weights, torch.split(point, sizes), strict=True):
            p.copy_(x.view_as(p))
