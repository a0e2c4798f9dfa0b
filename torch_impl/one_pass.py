"""Sums over rows of tokens whose gradient is taken on the way, in one pass over memory.

A loss over tokens reads a few numbers a token and makes one of them and one slope. Done operation by
operation, each goes through memory and leaves something behind for the gradient. Here rows are gone through
in chunks that stay in a core's cache, and all that is kept is the slope.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torch_impl.precision import bits, keep, plain, wide_dtype

CHUNK = {"cpu": 2**17}
"""Tokens of a chunk by the kind of device; elsewhere all of them at once."""

Terms = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""From some rows of x, in the dtype of the computation, and which rows they are, to the terms of their tokens
and the derivatives of these in x: new arrays, which are written into."""


def row_sums(x: Tensor, mask: Tensor, terms: Terms) -> Tensor:
    """The sum of the terms of each row's active tokens.

    Parameters
    ----------
    x : (B, T) floating
        What the gradient is taken in.
    mask : (B, T) bool
        True at the tokens that take part. Whatever `terms` makes of the others is dropped, NaN included.
    terms : function
        As :data:`Terms`; called without gradient.

    Returns
    -------
    (B,)
        In the dtype of the computation; differentiable in x once, backward. Forward mode and `vmap` are
        refused.
    """
    sums: Tensor = _RowSums.apply(x, mask, terms)[0]  # type: ignore[no-untyped-call]
    return sums


class _RowSums(torch.autograd.Function):
    """Sums, and the slopes that were found with them: what is differentiated is the sums."""

    @staticmethod
    def forward(x: Tensor, mask: Tensor, terms: Terms) -> tuple[Tensor, Tensor]:
        """Go through the rows in chunks."""
        wide = wide_dtype(x.dtype)
        sums = torch.zeros(len(x), dtype=wide, device=x.device)
        slopes = torch.empty(x.shape, dtype=wide, device=x.device)
        tokens = CHUNK.get(x.device.type, x.numel())
        step = max(1, tokens // max(1, x.shape[1]))
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            values, found = terms(x[rows].to(wide), rows)
            active = bits(mask[rows], wide)
            sums[rows] = keep(values, active).sum(dim=1)
            slopes[rows] = keep(found, active)
        return sums, slopes

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Terms], output: tuple[Tensor, Tensor]) -> None:
        """Keep the slopes."""
        ctx.dtype, slopes = inputs[0].dtype, output[1]
        ctx.mark_non_differentiable(slopes)
        ctx.save_for_backward(slopes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        """Upstream times the slopes; 0 where upstream is 0, though a slope may have overflowed."""
        [slopes], above = ctx.saved_tensors, upstream[0][:, None]
        found, counts = above * slopes, above != 0
        if not (plain(above) and bool(counts.all())):
            keep(found, bits(counts, slopes.dtype))
        return found.to(ctx.dtype), None, None
