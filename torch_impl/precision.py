"""What is computed in which dtype, and masks that keep nothing of what lies under them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
"""The integers that are as wide as a dtype of the computation."""

MANY = 2**16
"""Numbers from which on it pays to record one function with a gradient of its own."""


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the computation: float32 for half precision."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def widen(x: Tensor) -> Tensor:
    """The numbers in the dtype of the computation."""
    return x.to(wide_dtype(x.dtype))


def widest_dtype(*numbers: Tensor) -> torch.dtype:
    """The dtype of a computation that takes all of these."""
    return reduce(torch.promote_types, (wide_dtype(x.dtype) for x in numbers))


def widen_together(*numbers: Tensor) -> list[Tensor]:
    """All of them in the dtype of the computation that takes them."""
    dtype = widest_dtype(*numbers)
    return [x.to(dtype) for x in numbers]


def select(mask: Tensor, x: Tensor) -> Tensor:
    """x where the mask holds and 0 elsewhere, whatever lies there: multiplying would keep NaN.

    By bits where that is several times as fast: on the CPU, and with a gradient from so many numbers on.
    """
    if x.dtype in INTEGERS and _eager(x) and plain(mask):
        if not _recorded(x):
            return (x.view(INTEGERS[x.dtype]) & bits(mask, x.dtype)).view(x.dtype)
        if x.numel() >= MANY and mask.shape == x.shape:
            selected: Tensor = _Select.apply(x, mask)  # type: ignore[no-untyped-call]
            return selected
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


def selector(mask: Tensor, like: Tensor) -> Callable[[Tensor], Tensor]:
    """What keeps of new numbers those that the mask holds at: as :func:`select`, and may write into them."""
    if like.dtype in INTEGERS and plain(like) and plain(mask):
        wanted = bits(mask, like.dtype)
        return lambda new: keep(new, wanted)
    return lambda new: select(mask, new)


class _Select(torch.autograd.Function):
    """Both ways by bits."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, mask: Tensor) -> Tensor:
        return select(mask, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return select(ctx.saved_tensors[0], upstream[0]), None


def plain(x: Tensor) -> bool:
    """Whether x is just numbers of the CPU's: nothing records, traces or compiles what is done with them."""
    return _eager(x) and not _recorded(x)


def _eager(x: Tensor) -> bool:
    """Whether x is the CPU's, and nothing compiles what is done with it or follows tangents through it."""
    if type(x) is not Tensor or x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return forward_ad._current_level < 0


def _recorded(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()


def bits(condition: Tensor, dtype: torch.dtype) -> Tensor:
    """A condition, a boolean tensor or 1 and 0, for :func:`keep`: every bit or none, as wide as a dtype."""
    integers = condition.view(torch.int8) if condition.dtype == torch.bool else condition
    return integers.to(INTEGERS[dtype]).neg_()


def keep(x: Tensor, wanted: Tensor) -> Tensor:
    """As :func:`select`, in place, by bits; not differentiable."""
    x.view(wanted.dtype).bitwise_and_(wanted)
    return x


def without_autocast(device: str) -> AbstractContextManager[object]:
    """Where products are taken in the dtype of their factors, whatever the caller's autocast says."""
    return torch.autocast(device, enabled=False) if _autocasts(device) else nullcontext()


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of products of x: its own, or that of the caller's autocast, which leaves float64 alone."""
    wanted = _autocasts(x.device.type) and x.dtype != torch.float64
    return torch.get_autocast_dtype(x.device.type) if wanted else x.dtype


def _autocasts(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
