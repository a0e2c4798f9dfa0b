"""What the loop asks of an algorithm."""

import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict

from torch_impl.train import models
from torch_impl.train.descent import Descent, Rows, Tally
from torch_impl.train.distributed import World, whole
from torch_impl.train.models import ModelSettings
from torch_impl.train.settings import Optimizer, Settings
from torch_impl.train.tokens import Tokenizer

Row = TypeVar("Row")


class Trainer(ABC):
    """An algorithm at work on its models."""

    name: str
    """As on the command line."""
    settings: Any
    tokenizer: Tokenizer
    trained: nn.ModuleDict
    """What a checkpoint holds the weights of, by name."""
    descent: Descent | None
    """None where no optimiser is used."""

    def __init__(self, settings: Settings, world: World) -> None:
        _check_dtype(settings.model)
        self.settings, self.world, self.tally = settings, world, Tally()

    @abstractmethod
    def step(self, number: int) -> dict[str, float]:
        """Take step number 0, 1, ..., and return metrics."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Measure on what is held out."""

    @abstractmethod
    def fresh(self) -> nn.Module:
        """A model of the kind that is trained, on the CPU: what the result is saved as."""

    def descend(
        self, rows: Rows, mask: Tensor, loss: Callable[[Rows], Tensor], aggregation: str = "token-mean"
    ) -> None:
        """Take one step down a loss of a minibatch."""
        if self.descent is None:
            raise TypeError(f"{self.name} has no optimiser")
        self.tally.add(1.0, gradient_norm=self.descent.step(rows, mask, loss, aggregation))

    def mean_over(self, data: Sequence[Row], count: Callable[[list[Row]], float], lot: int = 64) -> float:
        """The sum of what is counted in lots of some data, over their number; each process takes a share."""
        mine = data[self.world.rank :: self.world.size]
        with ExitStack() as stack:
            for module in self.trained.values():
                stack.enter_context(whole(module))
            total = sum(count(list(mine[k : k + lot])) for k in range(0, len(mine), lot))
        return sum(self.world.gathered(total)) / len(data)

    def save(self, folder: Path, *, merge: bool = False) -> None:
        """Write the first of the trained models, as transformers does. Called by all processes.

        Where there are adapters, these alone are written, or, with `merge`, the model that they make.
        """
        [name, *_] = self.trained.keys()
        options = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = state_dict.get_model_state_dict(self.trained[name], options=options)
        if self.world.leads:
            model, made = self.fresh(), folder.with_name(folder.name + ".unfinished")
            model.load_state_dict({key.removeprefix("policy."): x for key, x in weights.items()})
            models.save(models.merged(model) if merge else model, made)
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
        self.world.wait()


def _check_dtype(model: ModelSettings) -> None:
    """Refuse to train weights that lose most of a small step to rounding."""
    narrow, adapted = model.dtype in ("bfloat16", "float16"), model.lora_rank or model.adapter
    if narrow and not adapted:
        raise ValueError(
            f"model.dtype must be 'float32' or 'float64' where all weights are trained, got {model.dtype!r}: "
            "their roundings swallow small steps; optimizer.autocast takes products in bfloat16"
        )


def rate_factor(step: int, steps: int, settings: Optimizer) -> float:
    """Which share of the learning rate a step has, by the warm-up and the schedule."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return 1.0
    done = (step - settings.warmup) / max(steps - settings.warmup, 1)
    return 1.0 - done if settings.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2


def parameter_count(module: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
