"""Importance sampling: ratios of probabilities, weighted means, effective sample size.

Assumptions: probabilities, or densities of continuous actions, come as their natural logarithms, in nats: any
real number, or -∞. A ratio is the exponential of a difference of two of them. A mask is True at the tokens
that the policy produced; what lies elsewhere is deselected before any arithmetic.

Shapes: B rows, T positions, N samples. Ratios, weights and effective sample sizes are dimensionless, a
mean has the unit of what it is the mean of.
"""

from typing import Any

import numpy as np

from reference import checks, numbers, rows
from reference.numbers import Array, Mask, Scalar


def importance_ratio(logprobs: Array, old_logprobs: Array, *, log_ratio_clip: Scalar | None = 20.0) -> Array:
    """Importance ratios ρ = exp(ℓ), ℓ = logprobs - old_logprobs, with ℓ clamped to [-c, c].

    Clauses: `is.ratio`, `is.log-ratio-clamp`.

    Parameters
    ----------
    logprobs, old_logprobs : (B, T)
        Log-probability of each token now, and under the policy that produced it; nats.
    log_ratio_clip : float above 0, or None
        The bound c of the log-ratio, nats; None does not clamp.

    Returns
    -------
    (B, T)
        ρ of each token.

    =============  ==============================
    ℓ = 0          1 (`is.first-epoch`)
    ℓ > c          exp(c)
    ℓ < -c         exp(-c)
    =============  ==============================

    Raises
    ------
    ValueError
        For c that is not positive, or shapes that disagree.

    Source
    ------
    Schulman et al. 2017, arXiv:1707.06347v2, section 3, the ratio above eq. (6), without a clamp.

    Examples
    --------
    >>> importance_ratio([[-1.0, -1.0]], [[-1.0, -50.0]], log_ratio_clip=0.5)
    array([[1.        , 1.64872127]])
    """
    return numbers.exp(_clamped(_log_ratio(logprobs, old_logprobs), log_ratio_clip))


def importance_ratio_gradient(
    upstream: Array, logprobs: Array, old_logprobs: Array, *, log_ratio_clip: Scalar | None = 20.0
) -> Array:
    """Gradient of :func:`importance_ratio` in logprobs: upstream · ρ between the clamps, 0 beyond them.

    Clauses: `is.gradient-of-ratio`, `is.log-ratio-clamp`. `upstream` is (B, T); at |ℓ| = c any number
    between upstream · ρ and 0 is right. Other arguments and errors as for :func:`importance_ratio`.

    Examples
    --------
    >>> importance_ratio_gradient([[3.0, 3.0]], [[-1.0, -50.0]], [[-1.0, -0.5]])
    array([[3., 0.]])
    """
    log_ratio = _log_ratio(logprobs, old_logprobs)
    upstream = checks.real_array("upstream", upstream, log_ratio.shape, like="logprobs")
    inside = upstream * numbers.exp(_clamped(log_ratio, log_ratio_clip))
    if log_ratio_clip is None:
        return inside
    nothing = numbers.zeros(inside.shape, like=inside)
    not_above = numbers.kink(log_ratio, log_ratio_clip, inside, nothing)
    return numbers.kink(-log_ratio, log_ratio_clip, not_above, nothing)


def sequence_importance_ratio(logprobs: Array, old_logprobs: Array, mask: Mask) -> Array:
    """Sequence ratios exp(mean of ℓ over the active tokens): the geometric mean of a row's ratios.

    Clause: `is.sequence-ratio`.

    Parameters
    ----------
    logprobs, old_logprobs : (B, T)
        Log-probability of each token now, and under the policy that produced it; nats.
    mask : (B, T) bool
        True at the tokens that count.

    Returns
    -------
    (B,)
        One ratio a row; 1 for a row without active tokens.

    Raises
    ------
    ValueError
        For shapes that disagree or a mask that is not boolean.

    Source
    ------
    Zheng et al. 2025, arXiv:2507.18071v2, eq. (7).

    Examples
    --------
    >>> sequence_importance_ratio([[-1.0, -1.0]], [[-1.5, -0.5]], np.array([[True, True]]))
    array([1.])
    """
    log_ratio, mask = _masked_log_ratio(logprobs, old_logprobs, mask)
    return numbers.exp(numbers.average(log_ratio, _counts(mask), axis=1))


def sequence_importance_ratio_gradient(
    upstream: Array, logprobs: Array, old_logprobs: Array, mask: Mask
) -> Array:
    """Gradient of :func:`sequence_importance_ratio` in logprobs: upstream · s / N at each of N active tokens.

    Clause: `is.sequence-ratio-gradient`. `upstream` is (B,); the result (B, T), 0 at masked positions.
    Other arguments and errors as for :func:`sequence_importance_ratio`.

    Examples
    --------
    >>> mask = np.array([[True, False, True]])
    >>> sequence_importance_ratio_gradient([3.0], [[-1.0, 0.0, -1.0]], [[-1.5, 0.0, -0.5]], mask)
    array([[1.5, 0. , 1.5]])
    """
    ratio = sequence_importance_ratio(logprobs, old_logprobs, mask)
    upstream = checks.real_array("upstream", upstream, ratio.shape, like="logprobs")
    mask = checks.mask_array("mask", mask, np.shape(logprobs), like="logprobs")
    share = numbers.product(upstream, ratio, over=_counts(mask))[:, None]
    return numbers.where(mask, share, numbers.zeros(mask.shape, like=ratio))


def trajectory_importance_ratio(logprobs: Array, old_logprobs: Array, mask: Mask) -> Array:
    """Trajectory ratios: the product of a row's ratios, the exponential of the sum of its log-ratios.

    Clause: `is.trajectory`. Arguments, errors and the row without active tokens as for
    :func:`sequence_importance_ratio`. Shape (B,).

    Examples
    --------
    >>> trajectory_importance_ratio([[-1.0, -1.0]], [[-1.5, -0.5]], np.array([[True, True]]))
    array([1.])
    """
    log_ratio, mask = _masked_log_ratio(logprobs, old_logprobs, mask)
    return numbers.exp(numbers.total(log_ratio, axis=1))


def truncated_importance_weights(
    old_logprobs: Array, rollout_logprobs: Array, *, cap: Scalar, mode: str = "truncate"
) -> Array:
    """Weights w = exp(old_logprobs - rollout_logprobs), kept from exceeding C: cut down to it, or dropped.

    Clauses: `is.truncated`, `is.truncated-overflow`. A constant of the loss: no gradient flows through.

    Parameters
    ----------
    old_logprobs, rollout_logprobs : (B, T)
        Log-probability of each token from the trainer before the update, and from the engine that
        sampled it; nats.
    cap : float above 0
        The largest weight C.
    mode : "truncate" or "mask"
        Whether a weight above C becomes C, or 0: the token is dropped.

    Returns
    -------
    (B, T)
        Weight of each token, in [0, C].

    =====================  ========================================
    w = C                  C in both modes
    w = ∞ or overflowing   C, and 0 with mode="mask"
    =====================  ========================================

    Raises
    ------
    ValueError
        For a cap that is not positive, an unknown mode, or shapes that disagree.

    Source
    ------
    Ionides 2008, *Truncated importance sampling*, there with a cap that grows with the sample size.

    Examples
    --------
    >>> truncated_importance_weights([[-1.0, -1.0]], [[-1.0, -9.0]], cap=2.0)
    array([[1., 2.]])
    >>> truncated_importance_weights([[-1.0, -1.0]], [[-1.0, -9.0]], cap=2.0, mode="mask")
    array([[1., 0.]])
    """
    checks.positive("cap", cap)
    checks.choice("mode", mode, ("truncate", "mask"))
    weights = numbers.exp(
        _log_ratio(old_logprobs, rollout_logprobs, names=("old_logprobs", "rollout_logprobs"))
    )
    if mode == "truncate":
        return numbers.minimum(weights, cap)
    kept = numbers.less_equal(weights, cap)
    return numbers.where(kept, weights, numbers.zeros(weights.shape, like=weights))


def weights_truncated_by_logarithms(
    old_logprobs: Array, rollout_logprobs: Array, *, cap: Scalar, mode: str = "truncate"
) -> Array:
    """Truncated weights, cut down before the exponential: exp(min(log w, log C)).

    Clause: `is.truncated`. Arguments and errors as for :func:`truncated_importance_weights`, which it equals.

    Examples
    --------
    >>> weights_truncated_by_logarithms([[-1.0, -1.0]], [[-1.0, -9.0]], cap=2.0)
    array([[1., 2.]])
    """
    weights = truncated_importance_weights(old_logprobs, rollout_logprobs, cap=cap, mode=mode)
    if mode == "mask":
        return weights
    log_weights = _log_ratio(old_logprobs, rollout_logprobs, names=("old_logprobs", "rollout_logprobs"))
    return numbers.exp(numbers.minimum(log_weights, numbers.log(cap)))


def importance_sampling_mean(f_values: Array, log_weights: Array, *, self_normalized: bool = False) -> Scalar:
    """Estimate of E_p[f] from samples of q: (1/N) Σ w_i f_i, or Σ w_i f_i / Σ w_i.

    Clauses: `is.estimator`, `is.self-normalised`.

    Parameters
    ----------
    f_values : (N,)
        f at each sample; finite, also where the weight is 0.
    log_weights : (N,)
        log w of each sample, -∞ where the weight is 0; self-normalised, one at least is finite.
    self_normalized : bool
        Whether to divide by the sum of the weights, and not by N.

    Returns
    -------
    scalar
        The estimate, in units of f.

    ====================  =====================================================
    N = 1, normalised     f_1, whatever its weight
    equal weights         the mean of f, times w where not normalised
    ====================  =====================================================

    Raises
    ------
    ValueError
        For no samples, shapes that disagree, or a `self_normalized` that is no boolean.

    Source
    ------
    Owen 2013, *Monte Carlo theory, methods and examples*, sections 9.1 and 9.2.

    Examples
    --------
    >>> importance_sampling_mean([1.0, 5.0], np.log([0.5, 2.0]))
    5.25
    >>> importance_sampling_mean([5.0, 1.0], [1000.0, -np.inf], self_normalized=True)
    5.0
    """
    checks.flag("self_normalized", self_normalized)
    log_weights = _samples(log_weights)
    f_values = checks.real_array("f_values", f_values, log_weights.shape, like="log_weights")
    if self_normalized:
        return _scalar(numbers.total(normalised_weights(log_weights) * f_values))
    weights, count = numbers.exp(log_weights), len(log_weights)
    mean = numbers.average(weights * f_values, count)
    return _scalar(
        numbers.either(mean, lambda: numbers.total(numbers.product(weights, f_values, over=count)))
    )


def normalised_weights(log_weights: Array) -> Array:
    """Weights divided by their sum, w_i / Σ w_j = exp(log w_i - log Σ exp(log w_j)): no overflow. Shape (N,).

    Clauses: `is.self-normalised`, `is.self-normalised-shift`.

    Examples
    --------
    >>> normalised_weights([1000.0, 1000.0])
    array([0.5, 0.5])
    """
    log_weights = _samples(log_weights)
    return numbers.exp(log_weights - numbers.logsumexp(log_weights))


def effective_sample_size(log_weights: Array) -> Scalar:
    """Effective sample size (Σ w_i)² / Σ w_i²: how many equal weights are worth as much.

    Clause: `is.effective-sample-size`.

    Parameters
    ----------
    log_weights : (N,)
        log w of each sample, -∞ where the weight is 0; one at least is finite.

    Returns
    -------
    scalar
        From 1 to N, computed from w_i / Σ w_j: no overflow.

    =======================  =====
    all weights equal        N
    all but one weight 0     1
    =======================  =====

    Raises
    ------
    ValueError
        For no samples, or an array that is not of shape (N,).

    Source
    ------
    Kong 1992, *A note on importance sampling using standardized weights*; Owen 2013, *Monte Carlo
    theory, methods and examples*, section 9.3.

    Examples
    --------
    >>> effective_sample_size([3.0, -np.inf, -np.inf])
    1.0
    """
    return _scalar(1 / numbers.total(numbers.square(normalised_weights(log_weights))))


def normal_weight_variance(distance: Scalar, *, sigma: Scalar) -> Scalar:
    """Variance of w = p/q under q for normals of one σ whose means are `distance` apart: exp(d²/σ²) - 1.

    Clause: `is.chi-square`. `distance` and σ > 0 in one unit.

    Examples
    --------
    >>> normal_weight_variance(0.0, sigma=2.0)
    0.0
    """
    checks.finite("distance", distance)
    checks.positive("sigma", sigma)
    return _scalar(numbers.expm1(numbers.square(distance / sigma)))


def trajectory_weight_variance(chi_squares: Array) -> Scalar:
    """Variance of a trajectory's ratio when its steps are independent: Π (1 + χ²_t) - 1.

    Clause: `is.trajectory-variance`. `chi_squares` is (T,): Var[ρ_t], at least 0, of each step.

    Examples
    --------
    >>> trajectory_weight_variance([1.0, 0.5])
    2.0
    """
    chi_squares = checks.real_array("chi_squares", chi_squares, (None,))
    return _scalar(np.prod(1 + chi_squares) - 1)


def _log_ratio(
    logprobs: Array, old_logprobs: Array, names: tuple[str, str] = ("logprobs", "old_logprobs")
) -> Array:
    """Check two arrays of log-probabilities and subtract."""
    logprobs = checks.real_array(names[0], logprobs, (None, None))
    old_logprobs = checks.real_array(names[1], old_logprobs, logprobs.shape, like=names[0])
    return logprobs - old_logprobs


def _clamped(log_ratio: Array, bound: Scalar | None) -> Array:
    if bound is None:
        return log_ratio
    checks.positive("log_ratio_clip", bound)
    return numbers.clip(log_ratio, -bound, bound)


def _masked_log_ratio(logprobs: Array, old_logprobs: Array, mask: Mask) -> tuple[Array, Mask]:
    """The log-ratio at active positions and 0 elsewhere, selected before any arithmetic."""
    logprobs = checks.real_array("logprobs", logprobs, (None, None))
    old_logprobs = checks.real_array("old_logprobs", old_logprobs, logprobs.shape, like="logprobs")
    mask = checks.mask_array("mask", mask, logprobs.shape, like="logprobs")
    nothing = numbers.zeros(mask.shape, like=logprobs)
    return numbers.where(mask, logprobs, nothing) - numbers.where(mask, old_logprobs, nothing), mask


def _counts(mask: Mask) -> Any:
    """Active positions of each row, at least 1: the mean of nothing is 0. Shape (B,)."""
    return np.maximum(rows.lengths(mask), 1)


def _samples(log_weights: Array) -> Array:
    """Check that there is at least one sample."""
    log_weights = checks.real_array("log_weights", log_weights, (None,))
    if not len(log_weights):
        raise ValueError("log_weights must hold at least one sample, got shape (0,)")
    return log_weights


def _scalar(x: Any) -> Scalar:
    """A 0-d array, or an object of one, as the number that it holds."""
    number: Scalar = np.asarray(x).item()
    return number
