"""What is computed in which dtype, and masks that keep nothing of what lies under them."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
"""The integers that are as wide as a dtype of the computation."""


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the computation: float32 for half precision."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def widen(x: Tensor) -> Tensor:
    """The numbers in the dtype of the computation."""
    return x.to(wide_dtype(x.dtype))


def select(mask: Tensor, x: Tensor) -> Tensor:
    """x where the mask holds and 0 elsewhere, whatever lies there: multiplying would keep NaN.

    By bits where nothing is differentiated and the CPU does it: several times as fast there.
    """
    if x.dtype in INTEGERS and plain(x) and plain(mask):
        return (x.view(INTEGERS[x.dtype]) & bits(mask, x.dtype)).view(x.dtype)
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


def plain(x: Tensor) -> bool:
    """Whether x is just numbers of the CPU's: nothing records, traces or compiles what is done with them."""
    if type(x) is not Tensor or x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if x.requires_grad and torch.is_grad_enabled():
        return False
    return unpack_dual(x).tangent is None  # type: ignore[no-untyped-call]


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
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
