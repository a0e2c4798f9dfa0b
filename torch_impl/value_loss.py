"""The critic's loss: half the squared distance from values to returns, with and without a clip.

Shapes: B rows, T positions; `mask` is True at the tokens that take part. What lies under mask False does
not matter, NaN included, neither to the loss nor to its gradient. Old values and returns are constants: no
gradient flows into them. float16 and bfloat16 inputs are computed in float32 and rounded once at the end.
The definitions are those of the chapter `vf` of the spec.
"""

import torch
from torch import Tensor

from torch_impl import checks
from torch_impl.policy_loss import MODES, aggregate


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
    """Value loss: the aggregate of ½ (V - R)², or of ½ max((V - R)², (V_clip - R)²).

    Clauses: `vf.loss`, `vf.clip`.

    Parameters
    ----------
    values : (B, T) floating
        Values V of the critic that is trained, in reward units.
    old_values : (B, T) floating
        Values of the critic at sampling time; read only with a clip.
    returns : (B, T) floating
        The targets R, constants.
    mask : (B, T) bool
        True at the tokens that take part.
    clip : float, at least 0, or None
        V_clip is V moved into [V_old - clip, V_old + clip]; None does not clip.
    aggregation, horizon, empty_rows
        As `mode`, `horizon` and `empty_rows` of :func:`torch_impl.policy_loss.aggregate`.

    Returns
    -------
    scalar
        The loss, in the dtype of `values`; 0 when nothing is active.

    Raises
    ------
    ValueError
        For a negative clip, an unknown aggregation or `empty_rows`, shapes that disagree, a mask that is not
        boolean.
    """
    checks.floating("values", values, (None, None))
    shape = tuple(values.shape)
    checks.floating("old_values", old_values, shape, like="values")
    checks.floating("returns", returns, shape, like="values")
    checks.boolean("mask", mask, shape, like="values")
    checks.choice("aggregation", aggregation, MODES)
    current, target = _active(mask, values), _active(mask, returns.detach())
    squared = (current - target).square()
    if clip is not None:
        checks.non_negative("clip", clip)
        old = _active(mask, old_values.detach())
        clipped = current.clamp(old - clip, old + clip)
        squared = torch.maximum(squared, (clipped - target).square())
    loss = aggregate(squared / 2, mask, mode=aggregation, horizon=horizon, empty_rows=empty_rows)
    return loss.to(values.dtype)


def _active(mask: Tensor, x: Tensor) -> Tensor:
    """The active numbers of x in the dtype of the computation, 0 elsewhere, whatever lies there."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return torch.where(mask, wide, torch.zeros((), dtype=wide.dtype, device=wide.device))
