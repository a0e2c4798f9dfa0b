"""The critic's loss: half the squared distance from values to returns, with and without a clip.

Shapes: B rows, T positions; `mask` is True at the tokens that take part. What lies under mask False does
not matter, NaN included, neither to the loss nor to its gradient. Old values and returns are constants: no
gradient flows into them. float16 and bfloat16 inputs are computed in float32 and rounded once at the end.
The definitions are those of the chapter `vf` of the spec.
"""

import torch
from torch import Tensor

from torch_impl import checks
from torch_impl.one_pass import row_sums
from torch_impl.policy_loss import MODES, aggregate_sums
from torch_impl.precision import bits, keep, widen


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
    if clip is not None:
        checks.non_negative("clip", clip)

    def terms(x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        target = widen(returns.detach()[rows])
        error = x - target
        squared = error.square()
        if clip is None:
            return squared / 2, error
        old = widen(old_values.detach()[rows])
        clipped = (x.clamp(old - clip, old + clip) - target).square()
        free = torch.ge(squared, clipped, out=torch.empty_like(error))
        return torch.maximum(squared, clipped) / 2, keep(error, bits(free, error.dtype))

    sums = row_sums(values, mask, terms)
    return aggregate_sums(sums, mask, aggregation, horizon, empty_rows).to(values.dtype)
