"""Rewards: the reward model's loss, K-wise rankings, terminal scores and the KL penalty on every token.

Assumptions: a pair's two scores are the reward model's for two answers to the same prompt, the chosen one
first. A response has one score; its active tokens (mask True) are the steps of one episode, and positions
under mask False do not matter, NaN included: they are deselected before any arithmetic.

Shapes: N pairs, B responses, T positions. Scores, margins and rewards have reward units, which for a reward
model are natural log-odds; log-probabilities and KL are in nats; losses are in nats.
"""

import numpy as np

from reference import checks, numbers
from reference.kl import kl_estimate
from reference.numbers import Array, Mask, Scalar


def preference_probability(chosen: Array, rejected: Array) -> Array:
    """Bradley-Terry probability that the first answer is preferred, σ(s_c - s_r). Shape (N,).

    Clause: `rm.bradley-terry`.

    Examples
    --------
    >>> preference_probability([0.0], [0.0])
    array([0.5])
    """
    chosen, rejected = _pairs(chosen, rejected)
    return numbers.sigmoid(chosen - rejected)


def reward_model_loss(chosen: Array, rejected: Array, *, margin: Scalar = 0.0) -> Scalar:
    """Reward-model loss: the mean of -log σ(s_c - s_r - margin) over pairs.

    Clauses: `rm.bradley-terry`, `rm.bradley-terry-stable`.

    Parameters
    ----------
    chosen, rejected : (N,)
        Scores of the preferred answer and of the other one.
    margin : float
        By how much the chosen score has to be ahead before the probability is one half; finite.

    Returns
    -------
    scalar
        The loss in nats, at least 0.

    ===================  =================
    s_c - s_r = margin   log 2
    no pairs             0
    ===================  =================

    Raises
    ------
    ValueError
        For a margin that is no finite number, or shapes that disagree.

    Source
    ------
    Ouyang et al. 2022, arXiv:2203.02155v1, eq. (1) with K = 2; Touvron et al. 2023, arXiv:2307.09288v2,
    eq. (2), for the margin.

    Examples
    --------
    >>> round(reward_model_loss([1.0, 0.0], [0.0, 0.0]), 6)
    0.503204
    """
    chosen, rejected = _pairs(chosen, rejected, margin)
    losses = -numbers.log_sigmoid(chosen - rejected - margin)
    mean: Scalar = np.asarray(numbers.average(losses, max(len(losses), 1))).item()
    return mean


def reward_model_loss_gradient(
    upstream: Scalar, chosen: Array, rejected: Array, *, margin: Scalar = 0.0
) -> tuple[Array, Array]:
    """Gradients of :func:`reward_model_loss` in both scores, times `upstream`: ∓σ(margin - s_c + s_r) / N.

    Clause: `rm.gradient`. Arguments and errors as for :func:`reward_model_loss`.

    Examples
    --------
    >>> reward_model_loss_gradient(1.0, [1.0, 0.0], [1.0, 0.0])
    (array([-0.25, -0.25]), array([0.25, 0.25]))
    """
    chosen, rejected = _pairs(chosen, rejected, margin)
    error = numbers.sigmoid(-(chosen - rejected - margin))
    slope = checks.real_number("upstream", upstream) * error / max(len(error), 1)
    return -slope, slope


def k_wise_loss(scores: Array, *, margin: Scalar = 0.0) -> Scalar:
    """Loss of prompts with K ranked answers each: the mean over the K(K-1)/2 pairs of each prompt.

    Clause: `rm.k-wise`. `scores` is (N, K), the answers of a row from best to worst.

    Source
    ------
    Ouyang et al. 2022, arXiv:2203.02155v1, eq. (1).

    Examples
    --------
    >>> round(k_wise_loss([[0.0, 0.0, 0.0]]), 6)
    0.693147
    """
    scores = checks.real_array("scores", scores, (None, None))
    better, worse = np.triu_indices(scores.shape[1], k=1)
    return reward_model_loss(scores[:, better].ravel(), scores[:, worse].ravel(), margin=margin)


def terminal_rewards(scores: Array, mask: Mask) -> Array:
    """Each response's score on its last active token, 0 elsewhere. Shape (B, T).

    Clause: `rm.last-token`. A row without active tokens gets nothing, whatever its score.

    Examples
    --------
    >>> terminal_rewards([5.0, 7.0], np.array([[True, True, False], [False, False, False]]))
    array([[0., 5., 0.],
           [0., 0., 0.]])
    """
    mask = checks.mask_array("mask", mask, (None, None))
    scores = checks.real_array("scores", scores, mask.shape[:1], like="mask")
    return numbers.where(last_active(mask), scores[:, None], numbers.zeros(mask.shape, like=scores))


def last_active(mask: Mask) -> Mask:
    """Mark the last True of each row, and nothing in a row without any. Shape (B, T).

    Clause: `rm.last-token`.

    Examples
    --------
    >>> last_active(np.array([[True, False, True, False]]))
    array([[False, False,  True, False]])
    """
    mask = checks.mask_array("mask", mask, (None, None))
    left = np.flip(np.cumsum(np.flip(mask, axis=1), axis=1), axis=1)
    return np.asarray(mask & (left == 1))


def shaped_rewards(
    scores: Array, logprobs: Array, ref_logprobs: Array, mask: Mask, *, kl_coef: Scalar, estimator: str = "k1"
) -> Array:
    """Shaped rewards: the score on the last active token, and -β KL_t on every active one.

    Clauses: `rm.shaping`, `rm.last-token`.

    Parameters
    ----------
    scores : (B,)
        One score a response, in reward units.
    logprobs, ref_logprobs : (B, T)
        Log-probabilities of the tokens under the policy that sampled them and under the reference, in nats.
    mask : (B, T) bool
        True at the tokens of the response; holes and rows without any True are allowed.
    kl_coef : float, at least 0
        The coefficient β, in reward units per nat.
    estimator : "k1", "k2", "k3" or "abs"
        Estimator of each token's KL, as in :func:`reference.kl.kl_estimate`, without clamps.

    Returns
    -------
    (B, T)
        Rewards at active positions, 0 elsewhere; constants.

    ============  ==============================================================================
    kl_coef = 0   the score on the last active token, 0 at the others, for estimates that are finite
    empty row     0
    ============  ==============================================================================

    Raises
    ------
    ValueError
        For a negative kl_coef, an unknown estimator, shapes that disagree, a mask that is not boolean.

    Source
    ------
    Ziegler et al. 2019, arXiv:1909.08593v2, section 2, for the whole response; Ouyang et al. 2022,
    arXiv:2203.02155v1, section 3.5, for the penalty on each token.

    Examples
    --------
    >>> shaped_rewards([5.0], [[-1.0, -2.0]], [[-2.0, -1.0]], np.array([[True, True]]), kl_coef=0.5)
    array([[-0.5,  5.5]])
    """
    checks.non_negative("kl_coef", kl_coef)
    logprobs = checks.real_array("logprobs", logprobs, (None, None))
    ref_logprobs = checks.real_array("ref_logprobs", ref_logprobs, logprobs.shape, like="logprobs")
    mask = checks.mask_array("mask", mask, logprobs.shape, like="logprobs")
    logprobs, ref_logprobs = (
        numbers.where(mask, x, numbers.zeros(x.shape, like=x)) for x in (logprobs, ref_logprobs)
    )
    penalties = kl_coef * kl_estimate(logprobs, ref_logprobs, estimator=estimator)
    rewards = terminal_rewards(scores, mask) - penalties
    return numbers.where(mask, rewards, numbers.zeros(mask.shape, like=rewards))


def _pairs(chosen: Array, rejected: Array, margin: Scalar = 0.0) -> tuple[Array, Array]:
    """Check the arguments that a pair's functions share."""
    checks.finite("margin", margin)
    chosen = checks.real_array("chosen", chosen, (None,))
    return chosen, checks.real_array("rejected", rejected, chosen.shape, like="chosen")
