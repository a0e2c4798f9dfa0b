"""One process or many: DDP or FSDP2 around models, and rows that are gathered.

Every process knows the whole batch, which is a few integers a token, and computes its own rows. So what a
mean divides by is known without asking, and nothing depends on how many processes there are.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this is."""

    device: torch.device
    rank: int = 0
    size: int = 1
    shard: str = "ddp"

    @property
    def leads(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def mine(self, count: int) -> slice:
        """Which of so many rows this process computes. Raises ValueError unless all get as many."""
        if count % self.size:
            raise ValueError(
                f"rows must be shared out evenly among {self.size} processes, got {count}: "
                "choose prompts, samples, minibatches or rows accordingly"
            )
        share = count // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def gathered(self, mine: T) -> list[T]:
        """What each process has, in order."""
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, mine)
        return found

    def rows(self, mine: Tensor) -> Tensor:
        """The rows of all processes, of which each has as many."""
        return torch.cat([x.to(self.device) for x in self.gathered(mine.cpu())]) if self.size > 1 else mine

    def total(self, x: Tensor) -> Tensor:
        """The sum over processes."""
        if self.size > 1:
            distributed.all_reduce(x)
        return x

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are the mean of those of all processes."""
        if self.size == 1 or not any(p.requires_grad for p in module.parameters()):
            return module
        if self.shard == "ddp":
            return DistributedDataParallel(module, broadcast_buffers=False)
        for block in _blocks(module):
            fully_shard(block)
        fully_shard(module)
        return module


def start(device: str, shard: str = "ddp") -> World:
    """Join the processes that torchrun started, if it did."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.device(device)
    if where.type == "cuda" and size > 1:
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(where)
    if size > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
    return World(where, rank, size, shard)


def stop() -> None:
    """Leave the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def gathering(modules: list[nn.Module], *, last: bool) -> Iterator[None]:
    """Where losses of one update are computed: gradients are exchanged with the last of them only."""
    with ExitStack() as stack:
        for module in modules:
            if isinstance(module, FSDPModule):
                module.set_requires_gradient_sync(last)
            elif isinstance(module, DistributedDataParallel) and not last:
                stack.enter_context(module.no_sync())
        yield


@contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Where a module has all of its weights, and its parts may be called in any number on each process."""
    shards: list[Any] = [m for m in module.modules() if isinstance(m, FSDPModule)]
    for shard in shards:
        shard.set_reshard_after_forward(False, recurse=False)
        shard.unshard()
    try:
        yield
    finally:
        for shard in shards:
            shard.reshard()
            shard.set_reshard_after_forward(shard is not shards[0], recurse=False)


def plain(module: nn.Module) -> nn.Module:
    """What DDP is around, or the module itself."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def in_parts(compute: Callable[[slice], T], rows: slice, size: int | None) -> list[T]:
    """What a function makes of some rows, so many at a time."""
    step = size or max(rows.stop - rows.start, 1)
    starts = range(rows.start, rows.stop, step)
    return [compute(slice(start, min(start + step, rows.stop))) for start in starts]


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a model: the entries of its longest list of modules."""
    lists = [list(m) for m in module.modules() if isinstance(m, nn.ModuleList)]
    return max(lists, key=len, default=[])
