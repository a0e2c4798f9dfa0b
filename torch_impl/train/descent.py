"""Going down a loss: minibatches, micro-batches, processes.

The rows of a minibatch are known to every process. Each takes its share of them, micro-batch by micro-batch,
and each micro-batch's loss counts by its share of what the whole minibatch divides by: clause
`contract.partition`. The sum is that of one process that takes all rows at once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from torch_impl.train.distributed import World, gathering
from torch_impl.train.seeds import permutation
from torch_impl.train.settings import Optimizer
from torch_impl.train.step import Counts, update

Rows = TypeVar("Rows")
"""A dataclass of tensors with a row each, and of such dataclasses."""


class Descent:
    """An optimiser, and how a minibatch is cut up for it."""

    def __init__(self, groups: list[tuple[nn.Module, float]], settings: Optimizer, world: World) -> None:
        self.settings, self.world = settings, world
        self.modules, self.peaks = [module for module, _ in groups], [rate for _, rate in groups]
        parameters = [
            {"params": [p for p in module.parameters() if p.requires_grad], "lr": rate}
            for module, rate in groups
        ]
        self.optimizer = torch.optim.AdamW(
            parameters,
            betas=(settings.betas[0], settings.betas[1]),
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )

    def set_rate(self, factor: float) -> float:
        """Set learning rates to a share of what they are at most; returns the first."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        return self.peaks[0] * factor

    def step(
        self, rows: Rows, mask: Tensor, loss: Callable[[Rows], Tensor], aggregation: str = "token-mean"
    ) -> float:
        """Take one step down a loss of a minibatch, and return the norm of its gradient.

        `mask` is the minibatch's, one row a row; `aggregation` is that of the loss. Raises NotFinite.
        """
        whole, mine = Counts.of(mask), self.world.mine(len(mask))
        size = self.settings.micro_rows or max(len(mask), 1)
        parts = [slice(x, min(x + size, mine.stop)) for x in range(mine.start, mine.stop, size)]

        def of_part(part: slice) -> Tensor:
            share = Counts.of(mask[part]).share(whole, aggregation)
            with gathering(self.modules, last=part is parts[-1]):
                # Gradients are averaged over processes, and should be added up.
                found = loss(select(rows, part))
                return (self.world.size * share).to(found.dtype) * found

        losses = [lambda part=part: of_part(part) for part in parts]
        most = self.settings.max_grad_norm
        return float(update(self.optimizer, losses, max_grad_norm=most, summed=self.world.total))


def minibatches(rows: Rows, count: int, number: int, *seed: object) -> Iterator[Rows]:
    """The rows in an order of their own, in so many parts. Raises ValueError for parts of different sizes."""
    if count % number:
        raise ValueError(f"minibatches must divide the {count} rows of a step, got {number}")
    order = permutation(count, *seed)
    for part in order.chunk(number):
        yield select(rows, part)


def select(rows: Rows, index: Tensor | slice) -> Rows:
    """Some rows of everything in a dataclass; None stays."""
    if not is_dataclass(rows) or isinstance(rows, type):
        raise TypeError(f"rows must be a dataclass, got {type(rows).__name__}")
    chosen: dict[str, Any] = {}
    for item in fields(rows):
        x = getattr(rows, item.name)
        if isinstance(x, Tensor):
            chosen[item.name] = x[index.to(x.device) if isinstance(index, Tensor) else index]
        elif is_dataclass(x):
            chosen[item.name] = select(x, index)
    return replace(rows, **chosen)


class Tally:
    """Means over what micro-batches and processes report."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(2, dtype=torch.float64))

    def add(self, weight: Tensor | float, **numbers: Tensor | float) -> None:
        """Count numbers so much."""
        for name, x in numbers.items():
            self._sums[name] += torch.tensor([float(x) * float(weight), float(weight)], dtype=torch.float64)

    def means(self, world: World) -> dict[str, float]:
        """The means so far, over all processes; counts begin anew."""
        found = {}
        for name in sorted(self._sums):
            total, weight = world.total(self._sums[name].to(world.device)).tolist()
            found[name] = total / weight if weight else 0.0
        self._sums.clear()
        return found
