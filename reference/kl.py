"""KL divergences: estimators on sampled tokens, the full divergence from logits, adaptive coefficients.

Assumptions: tokens are sampled from the policy π; ℓ = log π(a) - log π_ref(a) is the log-ratio of the
sampled token, and all divergences have the policy on the left, KL(π‖ref). The reference policy is a
constant: nothing is differentiated with respect to it.

Shapes: B rows, T positions, V tokens in the vocabulary. Log-probabilities, log-ratios and divergences are
in nats; coefficients in reward units a nat. A function `..._gradient` has an upstream gradient first, then
the arguments of the function it differentiates.
"""

from collections.abc import Callable

import numpy as np

from reference import checks, numbers
from reference.numbers import Array, Mask, Scalar

ESTIMATORS: dict[str, Callable[[Array], Array]] = {
    "k1": lambda log_ratio: log_ratio,
    "k2": lambda log_ratio: numbers.square(log_ratio) / 2,
    "k3": lambda log_ratio: numbers.exp(-log_ratio) - 1 + log_ratio,
    "abs": numbers.absolute,
}
"""Each estimator, as a function of the log-ratio ℓ."""

SLOPES: dict[str, Callable[[Array], Array]] = {
    "k1": lambda log_ratio: _ones(log_ratio),
    "k2": lambda log_ratio: log_ratio,
    "k3": lambda log_ratio: 1 - numbers.exp(-log_ratio),
    "abs": lambda log_ratio: numbers.kink(log_ratio, 0, -_ones(log_ratio), _ones(log_ratio)),
}
"""The derivative of each estimator in ℓ."""


def kl_estimate(
    logprobs: Array,
    ref_logprobs: Array,
    *,
    estimator: str = "k1",
    log_ratio_clip: Scalar | None = None,
    value_clip: Scalar | None = None,
) -> Array:
    """KL estimate of each sampled token, a function of ℓ = log π(a) - log π_ref(a) alone.

    Clauses: `kl.estimators`, `kl.clamps`.

    Parameters
    ----------
    logprobs, ref_logprobs : (B, T)
        Log-probability of each sampled token under the policy and under the reference policy, in nats.
    estimator : "k1", "k2", "k3" or "abs"
        ℓ, ℓ²/2, e^{-ℓ} - 1 + ℓ or |ℓ|.
    log_ratio_clip : float above 0 or None
        c: ℓ is first moved to the nearest point of [-c, c].
    value_clip : float above 0 or None
        v: the estimate is last moved to the nearest point of [-v, v].

    Returns
    -------
    (B, T)
        The estimates, in nats.

    ============  ==============================================
    ℓ = 0         0
    ℓ < 0         k1 is negative, the others are positive
    ℓ -> -∞       k3 grows as e^{-ℓ}, and overflows unless clamped
    ============  ==============================================

    Raises
    ------
    ValueError
        For an unknown estimator, a clamp that is not above 0, shapes that disagree.

    Source
    ------
    Schulman 2020, *Approximating KL Divergence*, joschu.net/blog/kl-approx.html.

    Examples
    --------
    >>> kl_estimate([[-1.0, -2.0]], [[-1.0, -1.5]], estimator="k2")
    array([[0.   , 0.125]])
    """
    log_ratio = _log_ratio(logprobs, ref_logprobs, estimator, log_ratio_clip, value_clip)
    return _clamped(ESTIMATORS[estimator](_clamped(log_ratio, log_ratio_clip)), value_clip)


def kl_estimate_gradient(
    upstream: Array,
    logprobs: Array,
    ref_logprobs: Array,
    *,
    estimator: str = "k1",
    log_ratio_clip: Scalar | None = None,
    value_clip: Scalar | None = None,
) -> Array:
    """Gradient of Σ upstream · :func:`kl_estimate` in `logprobs`: the slope in ℓ, and 0 where a clamp acts.

    Clauses: `kl.estimator-gradients`, `kl.clamps`. Arguments and errors as there; `upstream` is (B, T).

    ===========================  ========================================================
    ℓ = 0, `abs`                 any number between the slopes -1 and 1
    ℓ or the estimate clamped    0, also where e^{-ℓ} overflows
    on the edge of a clamp       any number between 0 and the slope
    ===========================  ========================================================

    Examples
    --------
    >>> kl_estimate_gradient([[1.0, 2.0]], [[-1.0, -2.0]], [[-1.0, -1.5]], estimator="k2")
    array([[ 0., -1.]])
    """
    log_ratio = _log_ratio(logprobs, ref_logprobs, estimator, log_ratio_clip, value_clip)
    upstream = checks.real_array("upstream", upstream, log_ratio.shape, like="logprobs")
    clamped = _clamped(log_ratio, log_ratio_clip)
    halvings = 1 if estimator == "k2" else 0  # that of half a square
    gradient = numbers.product(upstream, SLOPES[estimator](clamped), halvings=halvings)
    gradient = _stopped(gradient, log_ratio, log_ratio_clip)
    return _stopped(gradient, ESTIMATORS[estimator](clamped), value_clip)


def k3_by_expm1(log_ratio: Array) -> Array:
    """The estimator k3 as expm1(-ℓ) + ℓ: the same number, without the cancellation of e^{-ℓ} - 1.

    Clause: `kl.k3-cancellation`. Shape and unit as ℓ; any shape.

    Examples
    --------
    >>> k3_by_expm1(np.array([0.0]))
    array([0.])
    """
    return numbers.expm1(-log_ratio) + log_ratio


def kl_divergence(logits: Array, ref_logits: Array) -> Array:
    """KL(π‖ref) = Σ_a π(a) (log π(a) - log π_ref(a)) of each position, over the whole vocabulary.

    Clauses: `kl.full`, `kl.impossible-tokens`.

    Parameters
    ----------
    logits, ref_logits : (B, T, V)
        Logits of the policy and of the reference policy: log-probabilities up to a constant of each
        position. -inf is a token of probability 0; each position has a finite one.

    Returns
    -------
    (B, T)
        The divergences, in nats.

    ====================================  =====================
    logits -inf                           the token counts as 0
    reference logits -inf, logits finite  ∞
    V = 1                                 0
    ====================================  =====================

    Raises
    ------
    ValueError
        For shapes that disagree.

    Source
    ------
    Kullback and Leibler 1951, *On information and sufficiency*, eq. (2.4).

    Examples
    --------
    >>> kl_divergence([[[0.0, -np.inf]]], [[[1.0, 1.0]]]).round(6)
    array([[0.693147]])
    """
    logits, ref_logits = _logits(logits, ref_logits)
    return numbers.total(_divergence_terms(logits, ref_logits), axis=-1)


def kl_divergence_gradient(upstream: Array, logits: Array, ref_logits: Array) -> Array:
    """Gradient of Σ upstream · :func:`kl_divergence` in `logits`: upstream · π(a) (ℓ(a) - KL).

    Clauses: `kl.full-gradient`, `kl.impossible-tokens`. Arguments and errors as there; `upstream` is (B, T).
    The result is (B, T, V): 0 at tokens of probability 0, and without meaning where KL = ∞.

    Examples
    --------
    >>> kl_divergence_gradient([[1.0]], [[[0.0, 0.0]]], [[[0.0, 0.0]]])
    array([[[0., 0.]]])
    """
    logits, ref_logits = _logits(logits, ref_logits)
    upstream = checks.real_array("upstream", upstream, logits.shape[:2], like="logits")
    divergence = numbers.total(_divergence_terms(logits, ref_logits), axis=-1)
    logprobs, ref_logprobs = _logprobs(logits), _logprobs(ref_logits)
    probabilities = numbers.exp(logprobs)
    # Two products, as differentiation by parts has them: a probability underflows in each by itself.
    of_token, of_all = (
        numbers.product(upstream[..., None], probabilities, x)
        for x in (logprobs - ref_logprobs, divergence[..., None])
    )
    return _where_possible(logits, of_token - of_all, 0)


def adaptive_kl_coef(*, coef: Scalar, kl: Scalar, target: Scalar) -> Scalar:
    """The next coefficient: half of it where kl < target / 1.5, twice where kl > 1.5 · target, else itself.

    Clause: `kl.adaptive-coefficient`.

    Parameters
    ----------
    coef : float, at least 0
        The coefficient β that was in use, in reward units a nat.
    kl : float
        The divergence that was measured, in nats; an estimate may be negative.
    target : float above 0
        The divergence that is wanted, in nats.

    Returns
    -------
    float
        The next coefficient. On either bound itself, coef is kept.

    Raises
    ------
    ValueError
        For a negative coef, a target that is not above 0, anything that is not finite.

    Source
    ------
    Schulman et al. 2017, arXiv:1707.06347v2, section 4.

    Examples
    --------
    >>> adaptive_kl_coef(coef=0.5, kl=4.0, target=2.0)
    1.0
    """
    _controller(coef, kl, target)
    raised = numbers.where(numbers.less(1.5 * target, kl), 2 * coef, coef)
    return _scalar(numbers.where(numbers.less(1.5 * kl, target), coef / 2, raised))


def proportional_kl_coef(
    *, coef: Scalar, kl: Scalar, target: Scalar, horizon: Scalar, n_steps: Scalar
) -> Scalar:
    """The next coefficient: coef · (1 + e · n_steps / horizon), e = kl / target - 1 clipped to ±0.2.

    Clauses: `kl.proportional-coefficient`, `kl.proportional-sign`.

    Parameters
    ----------
    coef, kl, target
        As for :func:`adaptive_kl_coef`.
    horizon : float above 0
        Steps in which an error of 1 would double the coefficient.
    n_steps : float, at least 0
        Steps since the last update, in the unit of `horizon`.

    Returns
    -------
    float
        The next coefficient; negative where e · n_steps < -horizon.

    Raises
    ------
    ValueError
        For a negative coef or n_steps, a target or horizon that is not above 0, anything not finite.

    Source
    ------
    Ziegler et al. 2019, arXiv:1909.08593v2, section 2.2, with K_β = n_steps / horizon.

    Examples
    --------
    >>> proportional_kl_coef(coef=1.0, kl=2.25, target=2.0, horizon=4, n_steps=2)
    1.0625
    """
    _controller(coef, kl, target)
    checks.positive("horizon", horizon)
    checks.non_negative("n_steps", n_steps)
    error = numbers.clip(5 * (kl / target - 1), -1, 1) / 5
    return _scalar(coef * (1 + error * n_steps / horizon))


def _log_ratio(
    logprobs: Array,
    ref_logprobs: Array,
    estimator: str,
    log_ratio_clip: Scalar | None,
    value_clip: Scalar | None,
) -> Array:
    """Check the arguments of an estimate and return ℓ."""
    checks.choice("estimator", estimator, tuple(ESTIMATORS))
    for name, bound in (("log_ratio_clip", log_ratio_clip), ("value_clip", value_clip)):
        if bound is not None:
            checks.positive(name, bound)
    logprobs = checks.real_array("logprobs", logprobs, (None, None))
    return logprobs - checks.real_array("ref_logprobs", ref_logprobs, logprobs.shape, like="logprobs")


def _ones(like: Array) -> Array:
    return numbers.full(like.shape, 1, like=like)


def _clamped(x: Array, bound: Scalar | None) -> Array:
    return x if bound is None else numbers.clip(x, -bound, bound)


def _stopped(gradient: Array, x: Array, bound: Scalar | None) -> Array:
    """The gradient where |x| < bound, 0 where |x| > bound; selected, because 0 · ∞ would be NaN."""
    return gradient if bound is None else numbers.kink(numbers.absolute(x), bound, gradient, 0)


def _logits(logits: Array, ref_logits: Array) -> tuple[Array, Array]:
    """Check two arrays of logits."""
    logits = checks.real_array("logits", logits, (None, None, None))
    return logits, checks.real_array("ref_logits", ref_logits, logits.shape, like="logits")


def _divergence_terms(logits: Array, ref_logits: Array) -> Array:
    """π(a) (log π(a) - log π_ref(a)); 0 where π(a) = 0, ∞ where π_ref(a) = 0 and π(a) > 0."""
    logprobs, ref_logprobs = _logprobs(logits), _logprobs(ref_logits)
    probabilities = numbers.exp(logprobs)
    infinite, nothing = (numbers.full(logits.shape, value, like=logprobs) for value in (np.inf, 0))
    excluded = numbers.where(numbers.less(0, probabilities), infinite, nothing)  # 0 once it has underflowed
    terms = numbers.where(_possible(ref_logits), probabilities * (logprobs - ref_logprobs), excluded)
    return _where_possible(logits, terms, 0)


def _logprobs(logits: Array) -> Array:
    """Log-probabilities; finite ones, of no meaning, at tokens of probability 0."""
    return _where_possible(logits, logits, 0) - numbers.logsumexp(logits)[..., None]


def _where_possible(logits: Array, x: Array, otherwise: float) -> Array:
    """x where the token has a probability above 0."""
    return numbers.where(_possible(logits), x, numbers.full(x.shape, otherwise, like=x))


def _possible(logits: Array) -> Mask:
    possible: Mask = numbers.less(-np.inf, logits)
    return possible


def _controller(coef: Scalar, kl: Scalar, target: Scalar) -> None:
    """Check the arguments that both controllers share."""
    checks.non_negative("coef", coef)
    checks.finite("kl", kl)
    checks.positive("target", target)


def _scalar(x: Array) -> Scalar:
    """A 0-d array, or an object of one, as the number that it holds."""
    return np.asarray(x).item()
