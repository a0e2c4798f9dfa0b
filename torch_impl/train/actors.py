"""Policies and critics as trainers use them: numbers of some rows with a gradient, of all rows without.

Both come from the same products, in the same dtype: a ratio of new to old is 1 before the first update.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from torch_impl.train.distributed import World, in_parts
from torch_impl.train.models import ScoreModel
from torch_impl.train.responses import ResponseLogprobs, response_scores, response_values
from torch_impl.train.rollouts import Rollouts
from torch_impl.train.settings import Optimizer


@dataclass(frozen=True)
class Actor:
    """A policy, and the temperature that it is sampled at."""

    policy: nn.Module
    module: nn.Module
    """The policy's log-probabilities, wrapped for several processes."""
    temperature: float
    world: World
    settings: Optimizer

    @classmethod
    def of(cls, policy: nn.Module, temperature: float, world: World, settings: Optimizer) -> "Actor":
        """Wrap a policy."""
        module = world.wrap(ResponseLogprobs(policy))
        if isinstance(module, FSDPModule):
            _touch(module, world.device)
        return cls(policy, module, temperature, world, settings)

    def logprobs(self, rows: Rollouts) -> Tensor:
        """Log-probabilities of the tokens of some rows, (B, T), in nats, at the temperature."""
        return self.logprobs_and_entropy(rows, entropy=False)[0]

    def logprobs_and_entropy(self, rows: Rollouts, *, entropy: bool = True) -> tuple[Tensor, Tensor]:
        """Those, and the entropies of the policy where it chose them; zeros if they are not asked for."""
        tokens = rows.prompts, rows.prompt_mask, rows.responses, rows.mask
        with autocast(self.settings, self.world):
            logprobs, entropies = self.module(*tokens, temperature=self.temperature, entropy=entropy)
        return logprobs, torch.zeros_like(logprobs) if entropies is None else entropies

    @torch.no_grad()
    def of_all(self, rows: Rollouts) -> tuple[Tensor, Tensor]:
        """Both of all rows, as constants, each process computing its share."""
        compute = partial(_of_rows, self.logprobs_and_entropy, rows)
        return _shared(compute, rows, self.world, self.settings.micro_rows)


@dataclass(frozen=True)
class Critic:
    """A scorer: values of states, or scores of responses."""

    scorer: ScoreModel
    module: nn.Module
    world: World
    settings: Optimizer

    @classmethod
    def of(cls, scorer: ScoreModel, world: World, settings: Optimizer) -> "Critic":
        """Wrap a scorer."""
        return cls(scorer, world.wrap(scorer), world, settings)

    def values(self, rows: Rollouts) -> Tensor:
        """Values (B, T) before each token is chosen, in reward units."""
        return self.values_and_bootstrap(rows)[0]

    def values_and_bootstrap(self, rows: Rollouts) -> tuple[Tensor, Tensor]:
        """Those, and the value (B,) behind the last token, 0 where the response has ended."""
        tokens = rows.prompts, rows.prompt_mask, rows.responses, rows.mask
        with autocast(self.settings, self.world):
            return response_values(self.module, *tokens, rows.truncated)

    @torch.no_grad()
    def of_all(self, rows: Rollouts) -> tuple[Tensor, Tensor]:
        """Both of all rows, as constants, each process computing its share."""
        compute = partial(_of_rows, self.values_and_bootstrap, rows)
        return _shared(compute, rows, self.world, self.settings.micro_rows)

    def scores(self, rows: Rollouts) -> Tensor:
        """Scores (B,) of responses, in log-odds."""
        with autocast(self.settings, self.world):
            return response_scores(self.module, rows.prompts, rows.prompt_mask, rows.responses, rows.mask)

    @torch.no_grad()
    def scores_of_all(self, rows: Rollouts) -> Tensor:
        """Those of all rows, as constants, each process computing its share."""

        def compute(part: slice) -> tuple[Tensor, Tensor]:
            scores = self.scores(rows.select(part))
            return scores, scores

        return _shared(compute, rows, self.world, self.settings.micro_rows)[0]


def autocast(settings: Optimizer, world: World) -> torch.autocast:
    """Where a model's products are taken in the dtype that the settings ask for."""
    enabled = settings.autocast == "bfloat16"
    return torch.autocast(world.device.type, dtype=torch.bfloat16, enabled=enabled)


@torch.no_grad()
def _touch(module: FSDPModule, device: torch.device) -> None:
    """Go through the whole module once: FSDP wants that before any part of it is called."""
    ids = torch.zeros(1, 1, dtype=torch.long, device=device)
    module(ids, ids == 0, ids, ids == 0)  # type: ignore[operator]
    module.reshard()


def _of_rows(
    compute: Callable[[Rollouts], tuple[Tensor, Tensor]], rows: Rollouts, part: slice
) -> tuple[Tensor, Tensor]:
    return compute(rows.select(part))


def _shared(
    compute: Callable[[slice], tuple[Tensor, Tensor]], rows: Rollouts, world: World, micro_rows: int | None
) -> tuple[Tensor, Tensor]:
    """Two numbers of all rows, from what each process makes of its own."""
    parts = in_parts(compute, world.mine(len(rows.mask)), micro_rows)
    first, second = (torch.cat(numbers) for numbers in zip(*parts, strict=True))
    return world.rows(first), world.rows(second)
