"""Sums in an order of their own: what PyTorch sums is summed by additions of the dtype itself."""

from collections.abc import Callable, Sequence
from functools import reduce, wraps
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Order = Callable[[Sequence[Tensor]], Tensor]
"""Adds up at least one tensor."""


def in_sequence(terms: Sequence[Tensor]) -> Tensor:
    """Add one after the other, from the first to the last."""
    return reduce(torch.add, terms)


def pairwise(terms: Sequence[Tensor]) -> Tensor:
    """Add the two halves' sums."""
    half = len(terms) // 2
    return pairwise(terms[:half]) + pairwise(terms[half:]) if half else terms[0]


def summing(order: Order, operation: Callable[..., Any]) -> Callable[..., Any]:
    """Call an operation, and let its reductions add in this order; autograd differentiates the additions."""

    @wraps(operation)
    def summed(*arguments: Any, **options: Any) -> Any:
        with _Reductions(order):
            return operation(*arguments, **options)

    return summed


class _Reductions(TorchFunctionMode):
    """Replaces the reductions of floating-point numbers that the backends here make."""

    def __init__(self, order: Order) -> None:
        super().__init__()
        self.order = order
        self.replaced: dict[Callable[..., Any], Callable[..., Tensor]] = {
            Tensor.sum: self.sum,
            Tensor.mean: self.mean,
            Tensor.log_softmax: self.log_softmax,
            Tensor.__matmul__: self.product,
        }

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        counts = args and isinstance(args[0], Tensor) and not args[0].is_floating_point()
        options = kwargs or {}
        instead = None if counts and "dtype" not in options else self.replaced.get(function)
        return (instead or function)(*args, **options)

    def sum(
        self, x: Tensor, dim: int | None = None, keepdim: bool = False, dtype: torch.dtype | None = None
    ) -> Tensor:
        if dim is None:
            x, dim = x.flatten(), 0
        terms = x.to(dtype or x.dtype).unbind(dim)
        total = self.order(terms) if terms else x.new_zeros(x.sum(dim).shape, dtype=dtype)
        return total.unsqueeze(dim) if keepdim else total

    def mean(self, x: Tensor) -> Tensor:
        return self.sum(x) / x.numel()

    def log_softmax(self, x: Tensor, dim: int) -> Tensor:
        shifted = x - x.amax(dim, keepdim=True).detach()
        return shifted - self.sum(shifted.exp(), dim, keepdim=True).log()

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        return self.sum(a * b, -1)
