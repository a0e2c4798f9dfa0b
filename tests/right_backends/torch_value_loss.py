"""A right backend in PyTorch: the critic's loss, in the dtype that comes in."""

import torch
from torch import Tensor

array_library = "torch"
name = f"torch value loss (torch {torch.__version__})"


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip: float | None = None,
    aggregation: str = "token-mean",
    horizon: float | None = None,
    empty_rows: str = "count",
) -> Tensor:
    values, old_values, returns = (torch.where(mask, x, 0) for x in (values, old_values, returns))
    old_values, returns = old_values.detach(), returns.detach()
    squared = (values - returns).square()
    if clip is not None:
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        squared = torch.maximum(squared, (clipped - returns).square())
    return _aggregate(squared / 2, mask, aggregation, horizon, empty_rows)


def _aggregate(x: Tensor, mask: Tensor, mode: str, horizon: float | None, empty_rows: str) -> Tensor:
    """The mean of x, which is 0 at masked positions, over tokens or over rows."""
    sums, counts = x.sum(1), mask.sum(1)
    if mode == "token-mean":
        return sums.sum() / counts.sum().clamp(min=1)
    if mode == "seq-mean-token-mean":
        sums = sums / counts.clamp(min=1)
    if mode == "seq-mean-token-sum-norm":
        sums = sums / (mask.shape[1] if horizon is None else horizon)
    rows = (counts > 0).sum().clamp(min=1) if empty_rows == "drop" else len(mask)
    return sums.sum() / rows
