"""What trainers of policies have in common: the policy, its reference, its rollouts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from torch_impl.kl import kl_estimate
from torch_impl.policy_loss import aggregate, policy_metrics
from torch_impl.train import models, sources, tokens
from torch_impl.train.actors import Actor, Critic, autocast
from torch_impl.train.building import inner
from torch_impl.train.descent import Descent
from torch_impl.train.distributed import World, whole
from torch_impl.train.models import ModelSettings
from torch_impl.train.rollouts import Engine, ModelEngine, Rollouts, engine_class
from torch_impl.train.sampling import Sampler
from torch_impl.train.trainer import Trainer


class PolicyTrainer(Trainer):
    """Trains a policy that begins as `start`, or as the settings' model."""

    options: Any
    """The algorithm's own settings."""
    sampler: Sampler

    def __init__(self, settings: Any, world: World, *, start: ModelSettings | None = None) -> None:
        super().__init__(settings, world)
        self.start: ModelSettings = start or settings.model
        self.tokenizer = tokens.make(settings.model.tokenizer)
        self.actor = self._actor()
        self.trained = nn.ModuleDict({"policy": self.actor.module})
        self.descent = Descent(
            [(self.actor.module, settings.optimizer.learning_rate)], settings.optimizer, world
        )

    def fresh(self) -> nn.Module:
        """The policy as it was at the start."""
        return models.load_policy(self.start, self.tokenizer, seed=self.settings.seed)

    def make_reference(self) -> Actor:
        """The policy as it was at the start, which nothing trains."""
        return self._actor(frozen=True)

    def make_sampler(self) -> Sampler:
        """What asks the policy."""
        s = self.settings
        return Sampler(
            sources.questions(s.problems),
            self.tokenizer,
            self.engine,
            s.rollout,
            s.problems,
            self.world,
            seed=s.seed,
            reward_model=self._reward_model(s.rollout.reward_model),
        )

    def watch(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> None:
        """Count, token by token, how far the policy had moved before an update and what was beyond clips."""
        o = self.options
        found = policy_metrics(
            logprobs.detach(),
            old_logprobs,
            advantages,
            mask,
            clip_low=o.clip_low,
            clip_high=o.clip_high,
            dual_clip=o.dual_clip,
        )
        self.tally.add(mask.sum(), **found)

    def moved(self, number: int, rows: Rollouts, old_logprobs: Tensor) -> dict[str, float]:
        """The KL of all of a step's updates, where something is measured: minibatches miss the last."""
        run = self.settings.run
        if (number + 1) % run.evaluate_every and number + 1 != run.steps:
            return {}
        kl = kl_estimate(old_logprobs, self.actor.of_all(rows)[0], estimator="k3")
        return {"step_kl": float(aggregate(kl, rows.mask))}

    def mean(self, x: Tensor, mask: Tensor) -> Tensor:
        """The mean over tokens that the settings ask for."""
        return aggregate(x, mask, mode=self.options.aggregation, horizon=self.horizon)

    def evaluate(self) -> dict[str, float]:
        """The share of held-out problems that the policy solves."""
        return {"held_out_success": self.sampler.success()}

    @property
    def horizon(self) -> float:
        """What a sum over tokens is divided by where the aggregation asks for it."""
        given = self.options.horizon
        return float(self.settings.rollout.max_new_tokens if given is None else given)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """An engine that has the policy's weights as they are."""
        name, folder = self.settings.rollout.engine, Path(self.settings.out) / "engine"
        if name != "model":
            self.save(folder, merge=True)
            yield engine_class(name)(str(folder), self.tokenizer)
        else:
            with whole(self.actor.module), autocast(self.settings.optimizer, self.world):
                yield ModelEngine(self.actor.policy, self.tokenizer)

    def _actor(self, *, frozen: bool = False) -> Actor:
        policy = self.fresh().to(self.world.device)
        if frozen:
            policy.requires_grad_(False)
        s = self.settings
        return Actor.of(policy, s.rollout.temperature, self.world, s.optimizer)

    def _reward_model(self, folder: str | None) -> Critic | None:
        if folder is None:
            return None
        settings = ModelSettings(path=folder, tokenizer=self.settings.model.tokenizer, dtype=self.start.dtype)
        scorer = models.load_scorer(settings, self.tokenizer, device=self.world.device)
        scorer.requires_grad_(False)
        if not inner(scorer).score.weight.any():
            raise ValueError(f"rollout.reward_model must be a folder of a model with a head, got {folder!r}")
        return Critic.of(scorer, self.world, self.settings.optimizer)
