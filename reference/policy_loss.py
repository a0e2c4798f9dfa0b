"""Policy losses: aggregation, the clipped and the penalised loss, their sum with entropy, metrics.

Assumptions: a row holds one response and its active tokens, where the mask is True, are those that the
policy produced. `old_logprobs`, `advantages` and `rollout_weights` are data: constants of every loss. What
lies under mask False is deselected before any arithmetic.

Shapes: B rows, T positions; a loss is one number, in the units of the advantages, and is minimised.
"""

from typing import Any

import numpy as np

from reference import checks, clipping, numbers
from reference.numbers import Array, Mask, Scalar

MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")
EMPTY_ROWS = ("count", "drop")


def aggregate(
    x: Array,
    mask: Mask,
    *,
    mode: str = "token-mean",
    horizon: Scalar | None = None,
    empty_rows: str = "count",
) -> Scalar:
    """Aggregate per-token numbers to one: the sum over active tokens, each divided by its divisor.

    Clauses: `ppo.aggregation`, `ppo.aggregation-empty-rows`, `ppo.aggregation-horizon`.

    Parameters
    ----------
    x : (B, T)
        Any per-token numbers.
    mask : (B, T) bool
        True at the tokens that take part; holes and rows without any True are allowed.
    mode : "token-mean", "seq-mean-token-sum", "seq-mean-token-mean" or "seq-mean-token-sum-norm"
        The mean over all active tokens; or the mean over rows of their sums, of their means, or of their
        sums over the horizon.
    horizon : float, above 0, or None
        What "seq-mean-token-sum-norm" divides a row's sum by; None stands for T.
    empty_rows : "count" or "drop"
        Whether a row without active tokens counts as 0 in a mean over rows, or not at all.

    Returns
    -------
    scalar
        In the units of x.

    ================  ==
    nothing active    0
    ================  ==

    Raises
    ------
    ValueError
        For an unknown mode or `empty_rows`, a horizon that is not above 0, shapes that disagree, a mask that
        is not boolean.

    Source
    ------
    Yu et al. 2025, arXiv:2503.14476, section 3.3, for the mean over tokens; Liu et al. 2025,
    arXiv:2503.20783, section 3, for the sum over a constant; Shao et al. 2024, arXiv:2402.03300, eq. (3),
    for the mean of means.

    Examples
    --------
    >>> mask = np.array([[True, False], [True, True]])
    >>> (
    ...     aggregate([[1.0, 9.0], [2.0, 6.0]], mask),
    ...     aggregate([[1.0, 9.0], [2.0, 6.0]], mask, mode="seq-mean-token-mean"),
    ... )
    (3.0, 2.5)
    """
    x = checks.real_array("x", x, (None, None))
    mask = checks.mask_array("mask", mask, x.shape, like="x")
    active = numbers.where(mask, x, numbers.zeros(x.shape, like=x))
    return _scalar(numbers.total(_shares(active, mask, mode=mode, horizon=horizon, empty_rows=empty_rows)))


def aggregate_gradient(
    upstream: Scalar,
    x: Array,
    mask: Mask,
    *,
    mode: str = "token-mean",
    horizon: Scalar | None = None,
    empty_rows: str = "count",
) -> Array:
    """Gradient of :func:`aggregate` in x: upstream / divisor at active tokens, 0 elsewhere.

    Clause: `ppo.aggregation`. Shape (B, T); x enters by its shape alone.

    Examples
    --------
    >>> mask = np.array([[True, False], [True, True]])
    >>> aggregate_gradient(1.0, np.ones((2, 2)), mask, mode="seq-mean-token-mean")
    array([[0.5 , 0.  ],
           [0.25, 0.25]])
    """
    upstream = checks.real_number("upstream", upstream)
    x = checks.real_array("x", x, (None, None))
    mask = checks.mask_array("mask", mask, x.shape, like="x")
    filled = numbers.full(mask.shape, 1.0, like=upstream) * upstream
    shares = _shares(filled, mask, mode=mode, horizon=horizon, empty_rows=empty_rows)
    return numbers.where(mask, shares, numbers.zeros(mask.shape, like=upstream))


def aggregation_divisors(
    mask: Mask, *, mode: str, horizon: Scalar | None = None, empty_rows: str = "count"
) -> Any:
    """What each token's number is divided by: an exact integer, at least 1, or the horizon times one.

    Clause: `ppo.aggregation`. Shape (B, 1). Options and errors as for :func:`aggregate`.

    Examples
    --------
    >>> aggregation_divisors(np.array([[True, False], [True, True]]), mode="seq-mean-token-mean")
    array([[2],
           [4]])
    """
    checks.choice("empty_rows", empty_rows, EMPTY_ROWS)
    mask = checks.mask_array("mask", mask, (None, None))
    counted = len(mask) if empty_rows == "count" else int(mask.any(axis=1).sum())
    return shard_divisors(mask, mode=mode, tokens=int(mask.sum()), rows=counted, horizon=horizon)


def shard_divisors(mask: Mask, *, mode: str, tokens: int, rows: int, horizon: Scalar | None = None) -> Any:
    """Divisors of the tokens in a part of a batch, from what the whole batch counts.

    Clause: `ppo.partition`. `tokens` and `rows` are the active tokens and the counted rows of the whole
    batch. A mode other than "token-mean" asks for whole rows, and "seq-mean-token-sum-norm" without a
    horizon for the whole width. Shape (B, 1).

    Examples
    --------
    >>> shard_divisors(np.array([[True, True]]), mode="seq-mean-token-mean", tokens=3, rows=2)
    array([[4]])
    """
    checks.choice("mode", mode, MODES)
    if horizon is not None:
        checks.positive("horizon", horizon)
    for name, count in (("tokens", tokens), ("rows", rows)):
        checks.integer(name, count, at_least=0)
    mask = checks.mask_array("mask", mask, (None, None))
    column, rows = np.ones((len(mask), 1), dtype=np.int64), max(rows, 1)
    if mode == "token-mean":
        return max(tokens, 1) * column
    if mode == "seq-mean-token-sum":
        return rows * column
    if mode == "seq-mean-token-mean":
        return rows * np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return rows * column * (mask.shape[1] if horizon is None else horizon)


def policy_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    mask: Mask,
    rollout_weights: Array | None = None,
    *,
    clip_low: Scalar,
    clip_high: Scalar,
    dual_clip: Scalar | None = None,
    ratio_level: str = "token",
    aggregation: str = "token-mean",
    horizon: Scalar | None = None,
    empty_rows: str = "count",
    log_ratio_clip: Scalar | None = 20.0,
) -> Scalar:
    """Clipped policy loss: the aggregate of the negated clipped objectives.

    Clauses: `ppo.clip`, `ppo.dual-clip`, `ppo.ratio-level`, `ppo.log-ratio-clamp`, `ppo.rollout-weights`.

    Parameters
    ----------
    logprobs, old_logprobs : (B, T)
        Log-probabilities of the tokens under the policy that is trained, and under the one that sampled.
    advantages : (B, T)
        A, constants.
    mask : (B, T) bool
        True at the tokens that take part.
    rollout_weights : (B, T) or None
        Constants that multiply each token's objective after the clips; None stands for 1.
    clip_low, clip_high, dual_clip
        As for :func:`reference.clipping.clipped_objective`.
    ratio_level, log_ratio_clip
        As for :func:`reference.clipping.policy_ratio`.
    aggregation, horizon, empty_rows
        As `mode`, `horizon` and `empty_rows` of :func:`aggregate`.

    Returns
    -------
    scalar
        The loss, in the units of the advantages.

    ===================  ===========================================
    policies agree       the aggregate of -A (`ppo.on-policy-gradient`)
    nothing active       0
    ===================  ===========================================

    Raises
    ------
    ValueError
        For a negative ε, c not above 1, a clip of the log-ratio or a horizon not above 0, an unknown name of
        an option, shapes that disagree, a mask that is not boolean.

    Source
    ------
    Schulman et al. 2017, arXiv:1707.06347v2, eq. (7).

    Examples
    --------
    >>> logprobs, mask = [[0.0, 0.0]], np.array([[True, True]])
    >>> policy_loss(logprobs, [[-1.0, 0.0]], [[1.0, 2.0]], mask, clip_low=0.25, clip_high=0.25)
    -1.625
    """
    advantages, rollout_weights = _constants(logprobs, advantages, mask, rollout_weights)
    ratio = clipping.policy_ratio(
        logprobs, old_logprobs, mask, ratio_level=ratio_level, log_ratio_clip=log_ratio_clip
    )

    clips: Any = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
    objective = clipping.clipped_objective(ratio, advantages, **clips)
    if rollout_weights is not None:
        weights = rollout_weights
        objective = numbers.either(
            weights * objective, lambda: clipping.clipped_objective(ratio, advantages, weights, **clips)
        )
    checks.choice("aggregation", aggregation, MODES)
    return aggregate(-objective, mask, mode=aggregation, horizon=horizon, empty_rows=empty_rows)


def policy_loss_gradient(
    upstream: Scalar,
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    mask: Mask,
    rollout_weights: Array | None = None,
    *,
    clip_low: Scalar,
    clip_high: Scalar,
    dual_clip: Scalar | None = None,
    ratio_level: str = "token",
    aggregation: str = "token-mean",
    horizon: Scalar | None = None,
    empty_rows: str = "count",
    log_ratio_clip: Scalar | None = 20.0,
) -> Array:
    """Gradient of :func:`policy_loss` in the logprobs, times `upstream`: -ρA over the divisor where free.

    Clauses: `ppo.clip-cases`, `ppo.clip-boundary`, `ppo.ratio-level`, `ppo.log-ratio-clamp`. Shape (B, T).

    Examples
    --------
    >>> logprobs, mask = [[0.0, 0.0]], np.array([[True, True]])
    >>> policy_loss_gradient(1.0, logprobs, [[-1.0, 0.0]], [[1.0, 2.0]], mask, clip_low=0.25, clip_high=0.25)
    array([[-0., -1.]])
    """
    advantages, rollout_weights = _constants(logprobs, advantages, mask, rollout_weights)
    levels: Any = {"ratio_level": ratio_level, "log_ratio_clip": log_ratio_clip}
    ratio = clipping.policy_ratio(logprobs, old_logprobs, mask, **levels)
    slope = clipping.clipped_slope(
        ratio, advantages, rollout_weights, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip
    )
    checks.choice("aggregation", aggregation, MODES)
    shares = aggregate_gradient(
        upstream, slope, mask, mode=aggregation, horizon=horizon, empty_rows=empty_rows
    )
    factors = [-slope, shares] if rollout_weights is None else [rollout_weights, -slope, shares]
    return clipping.policy_ratio_chain(factors, logprobs, old_logprobs, mask, halvings=1, **levels)


def policy_metrics(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    mask: Mask,
    *,
    clip_low: Scalar,
    clip_high: Scalar,
    dual_clip: Scalar | None = None,
) -> dict[str, Scalar]:
    """Means over active tokens: of log π_old - log π, and of what the clip and the dual clip act on.

    Clause: `ppo.metrics`. Arguments and errors as for :func:`policy_loss`.

    Returns
    -------
    dict of scalars
        `approx_kl` in nats; `clip_fraction` and `dual_clip_fraction` in [0, 1]. All 0 where nothing is
        active, the last without `dual_clip` too.

    Source
    ------
    Schulman 2020, *Approximating KL divergence*, the estimator k1, for `approx_kl`.

    Examples
    --------
    >>> logprobs, mask = [[1.0, 0.0]], np.array([[True, True]])
    >>> metrics = policy_metrics(logprobs, [[0.0, 0.0]], [[1.0, 1.0]], mask, clip_low=0.25, clip_high=0.25)
    >>> metrics["approx_kl"], metrics["clip_fraction"]
    (-0.5, 0.5)
    """
    advantages, _ = _constants(logprobs, advantages, mask, None)
    ratio = clipping.policy_ratio(logprobs, old_logprobs, mask, log_ratio_clip=None)
    clipped, beyond = clipping.bounded_shares(
        ratio, advantages, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip
    )
    logprobs, old_logprobs = (_selected(x, mask, like=advantages) for x in (logprobs, old_logprobs))
    means = (old_logprobs - logprobs, clipped, beyond)
    names = ("approx_kl", "clip_fraction", "dual_clip_fraction")
    return {name: aggregate(x, mask) for name, x in zip(names, means, strict=True)}


def kl_penalty_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    kl: Array,
    mask: Mask,
    *,
    kl_coef: Scalar,
    aggregation: str,
) -> Scalar:
    """Penalised policy loss: the aggregate of β KL - ρA, with nothing clipped.

    Clause: `ppo.kl-penalty`.

    Parameters
    ----------
    logprobs, old_logprobs, advantages, mask
        As for :func:`policy_loss`.
    kl : (B, T)
        The divergence, or an estimate of it, at each token, in nats.
    kl_coef : float, at least 0
        β, in units of the advantage per nat.
    aggregation
        As `mode` of :func:`aggregate`.

    Returns
    -------
    scalar
        The loss, in the units of the advantages; 0 where nothing is active.

    Raises
    ------
    ValueError
        For a negative β, an unknown aggregation, shapes that disagree, a mask that is not boolean.

    Source
    ------
    Schulman et al. 2017, arXiv:1707.06347v2, eq. (8).

    Examples
    --------
    >>> one, mask = [[1.0]], np.array([[True]])
    >>> kl_penalty_loss([[0.0]], [[0.0]], one, [[4.0]], mask, kl_coef=0.5, aggregation="token-mean")
    1.0
    """
    checks.non_negative("kl_coef", kl_coef)
    checks.choice("aggregation", aggregation, MODES)
    advantages, _ = _constants(logprobs, advantages, mask, None)
    kl = _selected(kl, mask, like=advantages, name="kl")
    ratio = clipping.policy_ratio(logprobs, old_logprobs, mask, log_ratio_clip=None)
    return aggregate(kl_coef * kl - ratio * advantages, mask, mode=aggregation)


def kl_penalty_loss_gradient(
    upstream: Scalar,
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    kl: Array,
    mask: Mask,
    *,
    kl_coef: Scalar,
    aggregation: str,
) -> tuple[Array, Array]:
    """Gradients of :func:`kl_penalty_loss` in the logprobs and in the KL, times `upstream`.

    Clause: `ppo.kl-penalty`. -ρA and β over the token's divisor. Each of shape (B, T).

    Examples
    --------
    >>> rows, mask = ([[0.0]], [[0.0]], [[1.0]], [[4.0]]), np.array([[True]])
    >>> kl_penalty_loss_gradient(1.0, *rows, mask, kl_coef=0.5, aggregation="token-mean")
    (array([[-1.]]), array([[0.5]]))
    """
    checks.non_negative("kl_coef", kl_coef)
    checks.choice("aggregation", aggregation, MODES)
    advantages, _ = _constants(logprobs, advantages, mask, None)
    checks.real_array("kl", kl, advantages.shape, like="logprobs")
    shares = aggregate_gradient(upstream, advantages, mask, mode=aggregation)
    through_ratio = clipping.policy_ratio_chain(
        [-advantages, shares], logprobs, old_logprobs, mask, ratio_level="token", log_ratio_clip=None
    )
    return through_ratio, kl_coef * shares


def total_loss(
    policy_loss: Scalar, entropy: Scalar, kl_loss: Scalar, *, entropy_coef: Scalar, kl_coef: Scalar
) -> Scalar:
    """Total loss: policy loss - c_entropy · entropy + c_kl · KL loss.

    Clause: `ppo.total-loss`. Entropy is rewarded, divergence is punished; both coefficients are at least 0.

    Source
    ------
    Schulman et al. 2017, arXiv:1707.06347v2, eq. (9), there as an objective.

    Examples
    --------
    >>> total_loss(1.0, 2.0, 4.0, entropy_coef=0.5, kl_coef=0.25)
    1.0
    """
    checks.non_negative("entropy_coef", entropy_coef)
    checks.non_negative("kl_coef", kl_coef)
    return policy_loss - entropy_coef * entropy + kl_coef * kl_loss


def _shares(x: Array, mask: Mask, *, mode: str, **options: Any) -> Array:
    """Each token's number over its divisor, which may be taken in two steps, and weighted in between."""
    divisors, horizon = aggregation_divisors(mask, mode=mode, **options), options["horizon"]
    shares: Array = x / divisors
    if mode == "seq-mean-token-sum-norm" and horizon is not None:
        rows = aggregation_divisors(mask, mode="seq-mean-token-sum", **options)
        return numbers.either(shares, lambda: x / rows / horizon)
    if mode != "token-mean":
        return shares
    lengths = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return numbers.same(shares, lambda: x / lengths * lengths / divisors)


def _constants(
    logprobs: Array, advantages: Array, mask: Mask, rollout_weights: Array | None
) -> tuple[Array, Array | None]:
    """Check advantages and rollout weights, and put 0 under mask False."""
    logprobs = checks.real_array("logprobs", logprobs, (None, None))
    mask = checks.mask_array("mask", mask, logprobs.shape, like="logprobs")
    advantages = _selected(advantages, mask, like=logprobs, name="advantages")
    if rollout_weights is None:
        return advantages, None
    return advantages, _selected(rollout_weights, mask, like=logprobs, name="rollout_weights")


def _selected(x: Array, mask: Mask, *, like: Array, name: str = "logprobs") -> Array:
    """The active numbers of x, 0 elsewhere, whatever lies there."""
    x = checks.real_array(name, x, like.shape, like="logprobs")
    return numbers.where(mask, x, numbers.zeros(x.shape, like=x))


def _scalar(x: Array) -> Scalar:
    """A 0-d array, or an object of one, as the number that it holds."""
    return np.asarray(x).item()
