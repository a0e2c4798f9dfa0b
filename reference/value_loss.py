"""The critic's loss: half the squared distance from values to returns, with and without a clip.

Assumptions: `old_values` and `returns` were fixed when the response was sampled; they are constants here
(`vf.target`). Positions under mask False do not matter, NaN included: they are deselected before any
arithmetic.

Shapes: B rows, T positions. Values, returns and the clip range have reward units, the loss has squared
reward units (`vf.clip-units`).
"""

from reference import checks, numbers
from reference.numbers import Array, Mask, Scalar
from reference.policy_loss import MODES, aggregate, aggregate_gradient


def value_loss(
    values: Array,
    old_values: Array,
    returns: Array,
    mask: Mask,
    *,
    clip: Scalar | None = None,
    aggregation: str = "token-mean",
    horizon: Scalar | None = None,
    empty_rows: str = "count",
) -> Scalar:
    """Value loss: the aggregate of ½ (V - R)², or of ½ max((V - R)², (V_clip - R)²).

    Clauses: `vf.loss`, `vf.clip`.

    Parameters
    ----------
    values : (B, T)
        Values V of the critic that is trained, in reward units.
    old_values : (B, T)
        Values of the critic at sampling time; read only with a clip.
    returns : (B, T)
        The targets R, constants.
    mask : (B, T) bool
        True at the tokens that take part; holes and rows without any True are allowed.
    clip : float, at least 0, or None
        How far V_clip = V_old + clip(V - V_old, -clip, clip) may be from the old value; None does not clip.
    aggregation, horizon, empty_rows
        As `mode`, `horizon` and `empty_rows` of :func:`reference.policy_loss.aggregate`.

    Returns
    -------
    scalar
        The loss, at least 0.

    ===================  ==========================================================
    V = V_old            aggregate of ½ A², whatever the clip (`vf.advantage-to-zero`)
    clip >= |V - V_old|  the loss without a clip (`vf.clip-upper-bound`)
    nothing active       0
    ===================  ==========================================================

    Raises
    ------
    ValueError
        For a negative clip, an unknown aggregation or `empty_rows`, shapes that disagree, a mask that is not
        boolean.

    Source
    ------
    Schulman et al. 2017, arXiv:1707.06347v2, eq. (9), for the square; Huang et al. 2022, *The 37
    Implementation Details of Proximal Policy Optimization*, detail 9, for the clip.

    Examples
    --------
    >>> mask = [[True, True]]
    >>> value_loss([[1.0, 4.0]], [[0.0, 3.0]], [[3.0, 0.0]], mask)
    5.0
    >>> value_loss([[1.0, 4.0]], [[0.0, 3.0]], [[3.0, 0.0]], mask, clip=0.5)
    5.5625
    """
    values, old_values, returns, mask = _rows(values, old_values, returns, mask, aggregation)
    squared = numbers.square(values - returns)
    if clip is not None:
        squared = numbers.maximum(
            squared, numbers.square(clip_values(values, old_values, clip=clip) - returns)
        )
    return aggregate(squared / 2, mask, mode=aggregation, horizon=horizon, empty_rows=empty_rows)


def value_loss_gradient(
    upstream: Scalar,
    values: Array,
    old_values: Array,
    returns: Array,
    mask: Mask,
    *,
    clip: Scalar | None = None,
    aggregation: str = "token-mean",
    horizon: Scalar | None = None,
    empty_rows: str = "count",
) -> Array:
    """Gradient of :func:`value_loss` in the values, times `upstream`: V - R over the token's divisor.

    Clauses: `vf.loss-gradient`, `vf.clip-cases`, `vf.clip-boundary`. Where the clipped error is the larger
    and V is outside the range, it is 0; balls on the range's boundary, or with equal errors outside the
    range, give all between the two.

    Examples
    --------
    >>> mask = [[True, True]]
    >>> value_loss_gradient(1.0, [[1.0, 4.0]], [[0.0, 3.0]], [[3.0, 0.0]], mask, clip=0.5)
    array([[0., 2.]])
    """
    values, old_values, returns, mask = _rows(values, old_values, returns, mask, aggregation)
    slope = values - returns
    if clip is not None:
        clipped_error = clip_values(values, old_values, clip=clip) - returns
        nothing = numbers.zeros(clipped_error.shape, like=clipped_error)
        clipped_slope = numbers.kink(numbers.absolute(values - old_values), clip, clipped_error, nothing)
        slope = numbers.kink(numbers.square(slope), numbers.square(clipped_error), clipped_slope, slope)
    weights = aggregate_gradient(
        upstream, values, mask, mode=aggregation, horizon=horizon, empty_rows=empty_rows
    )
    # Automatic differentiation halves the square of an error, and the tie of two where V is in the range.
    return numbers.product(weights, slope, halvings=1 if clip is None else 2)


def clip_values(values: Array, old_values: Array, *, clip: Scalar) -> Array:
    """Move each value into the range around its old one: V_old + clip(V - V_old, -clip, clip).

    Clause: `vf.clip`. Shapes (B, T); `clip` is at least 0, in reward units.

    Examples
    --------
    >>> clip_values([[1.0, 0.25]], [[0.0, 0.0]], clip=0.5)
    array([[0.5 , 0.25]])
    """
    checks.non_negative("clip", clip)
    values = checks.real_array("values", values, (None, None))
    old_values = checks.real_array("old_values", old_values, values.shape, like="values")
    return old_values + numbers.clip(values - old_values, -clip, clip)


def _rows(
    values: Array, old_values: Array, returns: Array, mask: Mask, aggregation: str
) -> tuple[Array, Array, Array, Mask]:
    """Check the arguments, and put zeros where the mask is False."""
    checks.choice("aggregation", aggregation, MODES)
    values = checks.real_array("values", values, (None, None))
    old_values = checks.real_array("old_values", old_values, values.shape, like="values")
    returns = checks.real_array("returns", returns, values.shape, like="values")
    mask = checks.mask_array("mask", mask, values.shape, like="values")
    values, old_values, returns = (
        numbers.where(mask, x, numbers.zeros(x.shape, like=x)) for x in (values, old_values, returns)
    )
    return values, old_values, returns, mask
