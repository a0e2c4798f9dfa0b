"""Probability ratios of a policy to the one that sampled, and the clipped objective of one token.

Assumptions: `logprobs` and `old_logprobs` are finite at active tokens; the old ones, the advantages and
all hyper-parameters are constants. What lies under mask False is deselected before any arithmetic.

Shapes: B rows, T positions. Log-probabilities are in nats, ratios are dimensionless, and an objective has
the units of the advantage.
"""

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Any

import numpy as np

from reference import checks, numbers
from reference.numbers import Array, Mask, Scalar

RATIO_LEVELS = ("token", "sequence", "sequence-token")


def policy_ratio(
    logprobs: Array,
    old_logprobs: Array,
    mask: Mask,
    *,
    ratio_level: str = "token",
    log_ratio_clip: Scalar | None = 20.0,
) -> Array:
    """Ratio ρ of each token: exp of its log-ratio, or of the mean log-ratio of its row's active tokens.

    Clauses: `ppo.ratio-level`, `ppo.log-ratio-clamp`.

    Parameters
    ----------
    logprobs, old_logprobs : (B, T)
        Log-probabilities of the tokens under the policy that is trained, and under the one that sampled.
    mask : (B, T) bool
        True at the tokens that take part.
    ratio_level : "token", "sequence" or "sequence-token"
        Which log-ratio is exponentiated: the token's own, or the row's mean. The last two have the same
        value and different gradients.
    log_ratio_clip : float, above 0, or None
        c; the log-ratio that is exponentiated is clipped to [-c, c] first.

    Returns
    -------
    (B, T)
        ρ at active positions.

    =====================  ==
    the policies agree     1
    nothing active in row  1
    =====================  ==

    Raises
    ------
    ValueError
        For an unknown level, a clip that is not above 0, shapes that disagree, a mask that is not boolean.

    Source
    ------
    Schulman et al. 2017, arXiv:1707.06347v2, section 3; Zheng et al. 2025, arXiv:2507.18071, section 4,
    for the mean over a sequence.

    Examples
    --------
    >>> mask = np.array([[True, True]])
    >>> policy_ratio([[0.0, -1.0]], [[-1.0, 0.0]], mask)
    array([[2.71828183, 0.36787944]])
    >>> policy_ratio([[0.0, -1.0]], [[-1.0, 0.0]], mask, ratio_level="sequence")
    array([[1., 1.]])
    """
    log_ratio = _log_ratio(logprobs, old_logprobs, mask, ratio_level, log_ratio_clip)
    return numbers.exp(_clamped(log_ratio, log_ratio_clip))


def policy_ratio_gradient(
    upstream: Array,
    logprobs: Array,
    old_logprobs: Array,
    mask: Mask,
    *,
    ratio_level: str = "token",
    log_ratio_clip: Scalar | None = 20.0,
) -> Array:
    """Gradient of Σ upstream · :func:`policy_ratio` over the active tokens, in the logprobs.

    Clauses: `ppo.ratio-level`, `ppo.log-ratio-clamp`. ∂ρ_t/∂log π_t is ρ_t at the levels "token" and
    "sequence-token"; at "sequence", ∂ρ_s/∂log π_t is ρ/N for every s and t of a row. Beyond the clip it is 0.

    Examples
    --------
    >>> mask, ones = np.array([[True, True]]), np.ones((1, 2))
    >>> policy_ratio_gradient(ones, [[0.0, -1.0]], [[-1.0, 0.0]], mask, ratio_level="sequence-token")
    array([[1., 1.]])
    """
    levels: Any = {"ratio_level": ratio_level, "log_ratio_clip": log_ratio_clip}
    return policy_ratio_chain((upstream,), logprobs, old_logprobs, mask, **levels)


def policy_ratio_chain(
    factors: Sequence[Array],
    logprobs: Array,
    old_logprobs: Array,
    mask: Mask,
    *,
    ratio_level: str,
    log_ratio_clip: Scalar | None,
    halvings: int = 0,
) -> Array:
    """:func:`policy_ratio_gradient` with an upstream that is a product of `factors`, each (B, T).

    They may be multiplied in any order, the ratio among them, and halved on the way as
    :func:`reference.numbers.product` says.

    Examples
    --------
    >>> mask, twos = np.array([[True, True]]), np.full((1, 2), 2.0)
    >>> levels = {"ratio_level": "token", "log_ratio_clip": None}
    >>> policy_ratio_chain([twos, twos], [[0.0, 0.0]], [[0.0, 0.0]], mask, **levels)
    array([[4., 4.]])
    """
    log_ratio = _log_ratio(logprobs, old_logprobs, mask, ratio_level, log_ratio_clip)
    factors = [checks.real_array("upstream", x, log_ratio.shape, like="logprobs") for x in factors]
    mask, nothing = np.asarray(mask), numbers.zeros(log_ratio.shape, like=log_ratio)
    ratio = numbers.exp(_clamped(log_ratio, log_ratio_clip))
    slope = numbers.product(*factors, ratio, halvings=halvings)
    slope = numbers.where(mask, _inside(log_ratio, slope, log_ratio_clip), nothing)
    if ratio_level == "sequence":
        slope = numbers.where(mask, _row_means(slope, mask), nothing)
    return slope


def clipped_objective(
    ratio: Array,
    advantages: Array,
    weights: Array | None = None,
    *,
    clip_low: Scalar,
    clip_high: Scalar,
    dual_clip: Scalar | None = None,
) -> Array:
    """Clipped objective of each token: min(ρA, clip(ρ, 1 - ε_low, 1 + ε_high) A), and at least cA if A < 0.

    Clauses: `ppo.clip`, `ppo.clip-asymmetric`, `ppo.dual-clip`, `ppo.rollout-weights`.

    Parameters
    ----------
    ratio : (B, T)
        ρ, above 0.
    advantages : (B, T)
        A, in any units.
    weights : (B, T) or None
        Numbers, at least 0, that each objective is multiplied by; None stands for 1.
    clip_low, clip_high : float, at least 0
        ε_low and ε_high, how far ρ may fall below 1 and rise above it.
    dual_clip : float, above 1, or None
        c; None leaves the second bound out.

    Returns
    -------
    (B, T)
        Objectives, which are maximised.

    ====================  =========================
    A = 0                 0
    A > 0                 A min(ρ, 1 + ε_high)
    A < 0                 A max(ρ, 1 - ε_low)
    A < 0, with c         A min(max(ρ, 1 - ε_low), c)
    ====================  =========================

    Raises
    ------
    ValueError
        For a negative ε, c not above 1, shapes that disagree.

    Source
    ------
    Schulman et al. 2017, arXiv:1707.06347v2, eq. (7); Ye et al. 2020, arXiv:1912.09729, eq. (5), for c.

    Examples
    --------
    >>> clipped_objective([[2.0, 2.0]], [[1.0, -1.0]], clip_low=0.25, clip_high=0.25, dual_clip=1.5)
    array([[ 1.25, -1.5 ]])
    """
    ratio, *factors = _clip_arguments(ratio, advantages, weights, clip_low, clip_high, dual_clip)
    advantages = factors[0]
    clipped = numbers.clip(ratio, 1 - clip_low, 1 + clip_high)
    objective = numbers.minimum(numbers.product(ratio, *factors), numbers.product(clipped, *factors))
    if dual_clip is None:
        return objective
    bounded = numbers.maximum(objective, numbers.product(dual_clip, *factors))
    return numbers.where(numbers.less(advantages, 0), bounded, objective)


def clipped_slope(
    ratio: Array,
    advantages: Array,
    weights: Array | None = None,
    *,
    clip_low: Scalar,
    clip_high: Scalar,
    dual_clip: Scalar | None = None,
) -> Array:
    """Derivative of :func:`clipped_objective` in ρ: A, or 0 where a bound holds the objective fast.

    Clauses: `ppo.clip-cases`, `ppo.clip-boundary`, `ppo.dual-clip`. Arguments and errors as there. Weights
    do not multiply it: they tell which products are compared, where those may underflow.

    Examples
    --------
    >>> clipped_slope([[2.0, 2.0]], [[1.0, -1.0]], clip_low=0.25, clip_high=0.25)
    array([[ 0., -1.]])
    """
    ratio, *factors = _clip_arguments(ratio, advantages, weights, clip_low, clip_high, dual_clip)
    advantages, ratio = factors[0], _compared(ratio, factors)
    nothing = numbers.zeros(ratio.shape, like=ratio)
    rising = numbers.kink(ratio, 1 + clip_high, _tied(ratio, 1 - clip_low, advantages), nothing)
    falling = numbers.kink(ratio, 1 - clip_low, nothing, _tied(ratio, 1 + clip_high, advantages))
    if dual_clip is not None:
        falling = numbers.kink(ratio, dual_clip, falling, nothing)
    return numbers.where(numbers.less(advantages, 0), falling, rising)


def bounded_shares(
    ratio: Array,
    advantages: Array,
    *,
    clip_low: Scalar,
    clip_high: Scalar,
    dual_clip: Scalar | None = None,
) -> tuple[Array, Array]:
    """1 where the clip lowers the objective of a token, and where the dual clip raises it; 0 elsewhere.

    Clause: `ppo.metrics`. Both inequalities are strict. Arguments and errors as for
    :func:`clipped_objective`.

    Examples
    --------
    >>> bounded_shares([[2.0, 2.0]], [[1.0, -1.0]], clip_low=0.25, clip_high=0.25, dual_clip=1.5)
    (array([[1., 0.]]), array([[0., 1.]]))
    """
    ratio, advantages = _clip_arguments(ratio, advantages, None, clip_low, clip_high, dual_clip)
    ratio = _compared(ratio, [advantages])
    none, one = (numbers.full(ratio.shape, value, like=ratio) for value in (0, 1))
    above = numbers.where(numbers.less(1 + clip_high, ratio), one, none)
    below = numbers.where(numbers.less(ratio, 1 - clip_low), one, none)
    rewarded, punished = numbers.less(0, advantages), numbers.less(advantages, 0)
    clipped = numbers.where(rewarded, above, numbers.where(punished, below, none))
    if dual_clip is None:
        return clipped, none
    beyond = numbers.where(numbers.less(dual_clip, ratio), one, none)
    return clipped, numbers.where(punished, beyond, none)


def _log_ratio(
    logprobs: Array, old_logprobs: Array, mask: Mask, ratio_level: str, log_ratio_clip: Scalar | None
) -> Array:
    """Check the arguments; the log-ratio of each token at its level, before any clip. Shape (B, T)."""
    checks.choice("ratio_level", ratio_level, RATIO_LEVELS)
    if log_ratio_clip is not None:
        checks.positive("log_ratio_clip", log_ratio_clip)
    logprobs = checks.real_array("logprobs", logprobs, (None, None))
    old_logprobs = checks.real_array("old_logprobs", old_logprobs, logprobs.shape, like="logprobs")
    mask = checks.mask_array("mask", mask, logprobs.shape, like="logprobs")
    nothing = numbers.zeros(logprobs.shape, like=logprobs)
    log_ratio = numbers.where(mask, logprobs, nothing) - numbers.where(mask, old_logprobs, nothing)
    return log_ratio if ratio_level == "token" else _row_means(log_ratio, mask)


def _row_means(x: Array, mask: Mask) -> Array:
    """Mean of each row, x being 0 at masked positions, at every position of the row; 0 for an empty row."""
    means = numbers.average(x, np.maximum(mask.sum(axis=1), 1), axis=1)
    return np.repeat(means[:, None], x.shape[1], axis=1)


def _clamped(log_ratio: Array, bound: Scalar | None) -> Array:
    return log_ratio if bound is None else numbers.clip(log_ratio, -bound, bound)


def _inside(log_ratio: Array, slope: Array, bound: Scalar | None) -> Array:
    """The slope where the log-ratio is not clipped, 0 where it is."""
    if bound is None:
        return slope
    nothing = numbers.zeros(slope.shape, like=slope)
    return numbers.kink(log_ratio, bound, numbers.kink(log_ratio, -bound, nothing, slope), nothing)


def _tied(ratio: Array, bound: Scalar, slope: Array) -> Array:
    """The slope, and anything between it and 0 where the clipped product is as large as the other one."""
    nothing = numbers.zeros(slope.shape, like=slope)
    return numbers.kink(ratio, bound, slope, numbers.kink(ratio, bound, nothing, slope))


def _compared(ratio: Array, factors: Sequence[Array]) -> Array:
    """The ratio as the products with one factor, or with both, show it: those are what is compared."""
    for factor in accumulate(factors, mul):
        ratio = numbers.blurred(ratio, factor)
    return ratio


def _clip_arguments(
    ratio: Array,
    advantages: Array,
    weights: Array | None,
    clip_low: Scalar,
    clip_high: Scalar,
    dual_clip: Scalar | None,
) -> list[Array]:
    """Check the arguments that the functions of one token's objective share."""
    checks.non_negative("clip_low", clip_low)
    checks.non_negative("clip_high", clip_high)
    if dual_clip is not None:
        checks.above_one("dual_clip", dual_clip)
    ratio = checks.real_array("ratio", ratio, (None, None))
    given = {"advantages": advantages} if weights is None else {"advantages": advantages, "weights": weights}
    return [ratio, *(checks.real_array(name, x, ratio.shape, like="ratio") for name, x in given.items())]
