"""Groups of responses: group-relative advantages, leave-one-out advantages, the GRPO loss, length penalties.

Assumptions: a group is the responses to one prompt, sampled independently. Who belongs together is said by
`group_ids`: equal integers, whatever they are and in whatever order the rows come. A group's advantages
depend on that group's rewards alone, and advantages are constants of the loss.

Shapes: B responses, T positions, G responses in a group. Scores are rewards, one a response; advantages
scaled by the deviation are dimensionless, the others have reward units.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from reference import checks, kl, numbers, policy_loss
from reference.numbers import Array, Mask, Scalar

SCALES = ("std", "none")


def group_advantages(
    scores: Array, group_ids: checks.Indices, *, scale: str = "std", ddof: int = 1, eps: Scalar = 1e-6
) -> Array:
    """Group-relative advantages (r - mean) / (std + eps), with the mean and deviation of each group.

    Clauses: `grpo.advantage`, `grpo.zero-variance`, `grpo.single`.

    Parameters
    ----------
    scores : (B,)
        Reward of each response.
    group_ids : (B,) int
        Equal for the responses to one prompt; any integers, in any order.
    scale : "std" or "none"
        Whether the deviation divides.
    ddof : 0 or 1
        0 divides the sum of squares by the group's size G, 1 by G - 1.
    eps : float, at least 0
        Added to the deviation, outside the root; reward units.

    Returns
    -------
    (B,)
        Advantages, dimensionless; in reward units with scale="none".

    ====================  ==
    all rewards equal     0
    a group of one        0
    ====================  ==

    Raises
    ------
    ValueError
        For an unknown scale, a ddof other than 0 and 1, a negative eps, ids that are no integers, or shapes
        that disagree.

    Source
    ------
    Shao et al. 2024, arXiv:2402.03300v3, section 4.1.2; Liu et al. 2025, arXiv:2503.20783, section 3.2, for
    scale="none".

    Examples
    --------
    >>> group_advantages([1.0, 5.0, 3.0, 5.0], [7, 2, 7, 2], ddof=0, eps=0.0)
    array([-1.,  0.,  1.,  0.])
    """
    checks.choice("scale", scale, SCALES)
    _check_ddof(ddof)
    checks.non_negative("eps", eps)
    scores, group_ids = _rewards(scores, group_ids)
    advantages = numbers.zeros(scores.shape, like=scores)
    for members in _groups(group_ids):
        advantages[members] = _relative(scores[members], scale, ddof, eps)
    return advantages


def rloo_advantages(scores: Array, group_ids: checks.Indices) -> Array:
    """Leave-one-out advantages: each reward less the mean of the other rewards of its group.

    Clauses: `grpo.leave-one-out`, `grpo.zero-variance`, `grpo.single`.

    Parameters
    ----------
    scores : (B,)
        Reward of each response.
    group_ids : (B,) int
        Equal for the responses to one prompt; any integers, in any order.

    Returns
    -------
    (B,)
        Advantages, in reward units; 0 where all rewards of a group are equal, and in a group of one.

    Raises
    ------
    ValueError
        For ids that are no integers, or shapes that disagree.

    Source
    ------
    Kool et al. 2019, *Buy 4 REINFORCE samples, get a baseline for free!*; Ahmadian et al. 2024,
    arXiv:2402.14740v2, section 3.

    Examples
    --------
    >>> rloo_advantages([1.0, 5.0, 3.0], [7, 2, 7])
    array([-2.,  0.,  2.])
    """
    scores, group_ids = _rewards(scores, group_ids)
    advantages = numbers.zeros(scores.shape, like=scores)
    for members in _groups(group_ids):
        rewards = scores[members]
        others = len(rewards) - 1
        means = [numbers.average(np.delete(rewards, k), others) for k in range(len(rewards))]
        distances = rewards - np.array(means, dtype=rewards.dtype)
        advantages[members] = numbers.where(_all_equal(rewards), 0 * distances, distances)
    return advantages


def rloo_by_group_mean(scores: Array, group_ids: checks.Indices) -> Array:
    """Leave-one-out advantages as G/(G-1) times the distance from the mean of the whole group. Shape (B,).

    Clause: `grpo.leave-one-out`. Arguments, errors and special cases as for :func:`rloo_advantages`.

    Examples
    --------
    >>> rloo_by_group_mean([1.0, 5.0, 3.0], [7, 2, 7])
    array([-2.,  0.,  2.])
    """
    distances = group_advantages(scores, group_ids, scale="none")
    for members in _groups(np.asarray(group_ids)):
        distances[members] = distances[members] * len(members) / (len(members) - 1)
    return distances


def grpo_loss(
    logprobs: Array,
    old_logprobs: Array,
    ref_logprobs: Array,
    advantages: Array,
    mask: Mask,
    *,
    clip_low: Scalar,
    clip_high: Scalar,
    kl_coef: Scalar,
    aggregation: str,
    horizon: Scalar | None = None,
    empty_rows: str = "count",
    ratio_level: str = "token",
    log_ratio_clip: Scalar | None = 20.0,
) -> Scalar:
    """GRPO loss: the clipped policy loss with one advantage a response, and β times the aggregate of k3.

    Clauses: `grpo.loss`, `grpo.sequence-ratio`, `grpo.on-policy-gradient`.

    Parameters
    ----------
    logprobs, old_logprobs, ref_logprobs : (B, T)
        Log-probability of each token under the policy that is trained, the one that sampled, and the
        reference, in nats. The last two are constants.
    advantages : (B,)
        Advantage of each response, which all of its tokens carry; constants.
    mask : (B, T) bool
        True at the tokens that take part.
    clip_low, clip_high : float, at least 0
        The ratio is clipped to [1 - clip_low, 1 + clip_high].
    kl_coef : float, at least 0
        Weight β of the KL divergence from the reference.
    aggregation, horizon, empty_rows
        As `mode`, `horizon` and `empty_rows` of :func:`reference.policy_loss.aggregate`, for both terms.
    ratio_level, log_ratio_clip
        As for :func:`reference.clipping.policy_ratio`; the KL term has neither.

    Returns
    -------
    scalar
        The loss; 0 without active tokens.

    Raises
    ------
    ValueError
        For a negative clip or kl_coef, and for what :func:`reference.policy_loss.policy_loss` raises for.

    Source
    ------
    Shao et al. 2024, arXiv:2402.03300v3, eqs. (3) and (4); Zheng et al. 2025, arXiv:2507.18071, eqs. (5) and
    (7), for the ratio of a sequence.

    Examples
    --------
    >>> zero, mask = [[0.0, 0.0]], [[True, True]]
    >>> options = {"clip_low": 0.2, "clip_high": 0.2, "kl_coef": 0.0, "aggregation": "token-mean"}
    >>> grpo_loss(zero, zero, zero, [2.0], mask, **options)
    -2.0
    """
    logprobs, old_logprobs, ref_logprobs, advantages, mask = _tokens(
        logprobs, old_logprobs, ref_logprobs, advantages, mask, kl_coef
    )
    clipped = policy_loss.policy_loss(
        logprobs,
        old_logprobs,
        advantages,
        mask,
        clip_low=clip_low,
        clip_high=clip_high,
        ratio_level=ratio_level,
        aggregation=aggregation,
        horizon=horizon,
        empty_rows=empty_rows,
        log_ratio_clip=log_ratio_clip,
    )
    estimates = kl.kl_estimate(logprobs, ref_logprobs, estimator="k3")
    divergence = policy_loss.aggregate(
        estimates, mask, mode=aggregation, horizon=horizon, empty_rows=empty_rows
    )
    return clipped + kl_coef * divergence


def grpo_loss_gradient(
    upstream: Scalar,
    logprobs: Array,
    old_logprobs: Array,
    ref_logprobs: Array,
    advantages: Array,
    mask: Mask,
    *,
    clip_low: Scalar,
    clip_high: Scalar,
    kl_coef: Scalar,
    aggregation: str,
    horizon: Scalar | None = None,
    empty_rows: str = "count",
    ratio_level: str = "token",
    log_ratio_clip: Scalar | None = 20.0,
) -> Array:
    """Gradient of upstream · :func:`grpo_loss` in the policy's log-probabilities. Shape (B, T).

    Clauses: `grpo.loss`, `grpo.on-policy-gradient`. 0 at masked positions; corners as in `ppo.clip-boundary`.

    Examples
    --------
    >>> zero, mask = [[0.0, 0.0]], [[True, False]]
    >>> options = {"clip_low": 0.2, "clip_high": 0.2, "kl_coef": 0.5, "aggregation": "token-mean"}
    >>> grpo_loss_gradient(1.0, zero, zero, zero, [2.0], mask, **options)
    array([[-2.,  0.]])
    """
    logprobs, old_logprobs, ref_logprobs, advantages, mask = _tokens(
        logprobs, old_logprobs, ref_logprobs, advantages, mask, kl_coef
    )
    clipped = policy_loss.policy_loss_gradient(
        upstream,
        logprobs,
        old_logprobs,
        advantages,
        mask,
        clip_low=clip_low,
        clip_high=clip_high,
        ratio_level=ratio_level,
        aggregation=aggregation,
        horizon=horizon,
        empty_rows=empty_rows,
        log_ratio_clip=log_ratio_clip,
    )
    shares = policy_loss.aggregate_gradient(
        kl_coef * upstream, logprobs, mask, mode=aggregation, horizon=horizon, empty_rows=empty_rows
    )
    return clipped + kl.kl_estimate_gradient(shares, logprobs, ref_logprobs, estimator="k3")


def advantage_bound(group_size: Scalar, *, ddof: int = 1) -> Scalar:
    """Largest advantage that a group of G responses can have: √((G-1)(G-ddof)/G).

    Clause: `grpo.bound`. √(G-1) with ddof 0, and (G-1)/√G with ddof 1.

    Examples
    --------
    >>> advantage_bound(5, ddof=0), advantage_bound(4, ddof=1)
    (2.0, 1.5)
    """
    checks.positive("group_size", group_size)
    _check_ddof(ddof)
    return np.asarray(numbers.sqrt((group_size - 1) * (group_size - ddof) / group_size)).item()


def binary_advantages(success_rate: Scalar) -> tuple[Array, Array]:
    """Advantages of a success and of a failure where rewards are 0 and 1, with ddof 0 and eps 0.

    Clause: `grpo.binary-rewards`. `success_rate` is the share p of successes, strictly between 0 and 1.

    Examples
    --------
    >>> success, failure = binary_advantages(0.2)
    >>> float(success), float(failure)
    (2.0, -0.5)
    """
    checks.open_unit_interval("success_rate", success_rate)
    odds = success_rate / (1 - success_rate)
    return numbers.sqrt(1 / odds), -numbers.sqrt(odds)


def overlong_penalty(lengths: Array, *, max_length: Scalar, buffer: Scalar) -> Array:
    """Soft penalty on length: 0 up to max_length - buffer, then a straight line to -1 at max_length.

    Clause: `grpo.overlong`. `lengths` are (B,), in tokens; 0 < buffer <= max_length. Added to the rewards.

    Examples
    --------
    >>> overlong_penalty([80.0, 90.0, 100.0, 110.0], max_length=100, buffer=20)
    array([-0. , -0.5, -1. , -1. ])
    """
    checks.positive("max_length", max_length)
    checks.positive("buffer", buffer)
    is_plain = all(numbers.system_of(x) is numbers.floats for x in (max_length, buffer))
    if is_plain and buffer > max_length:
        raise ValueError(f"buffer must be at most max_length, {max_length!r}, got {buffer!r}")
    lengths = checks.real_array("lengths", lengths, (None,))
    excess = (lengths - (max_length - buffer)) / buffer
    nothing, one = (numbers.full(lengths.shape, value, like=lengths) for value in (0, 1))
    return -numbers.clip(excess, nothing, one)


def _relative(rewards: Array, scale: str, ddof: int, eps: Scalar) -> Array:
    """Advantages of one group; equal rewards are selected, so that no rounded mean is left of them."""
    count = len(rewards)
    nothing, one = (numbers.full(rewards.shape, value, like=rewards) for value in (0, 1))
    same = _all_equal(rewards)
    centred = numbers.where(same, nothing, rewards - numbers.mean(rewards))
    if scale == "none":
        return centred
    deviation = numbers.sqrt(numbers.total(numbers.square(centred)) / (count - ddof))
    return centred / numbers.where(same, one, one * (deviation + eps))


def _all_equal(rewards: Array) -> Any:
    """Whether all rewards of a group are equal: a condition for :func:`reference.numbers.where`."""
    return numbers.less_equal(numbers.total(numbers.absolute(rewards[1:] - rewards[0])), 0)


def _groups(group_ids: checks.Indices) -> Iterator[checks.Indices]:
    """The rows of each group of more than one response: nobody else has advantages."""
    ids, counts = np.unique(group_ids, return_counts=True)
    for name in ids[counts > 1]:
        yield np.flatnonzero(group_ids == name)


def _check_ddof(ddof: int) -> None:
    checks.integer("ddof", ddof, at_least=0)
    if ddof > 1:
        raise ValueError(f"ddof must be 0 or 1, got {ddof!r}")


def _rewards(scores: Array, group_ids: checks.Indices) -> tuple[Array, checks.Indices]:
    """Check one reward and one id a response."""
    scores = checks.real_array("scores", scores, (None,))
    return scores, checks.integer_array("group_ids", group_ids, scores.shape, like="scores")


def _tokens(
    logprobs: Array, old_logprobs: Array, ref_logprobs: Array, advantages: Array, mask: Mask, kl_coef: Scalar
) -> tuple[Array, Array, Array, Array, Mask]:
    """Check the arguments of the loss, put 0 under mask False, and give every token its row's advantage."""
    checks.non_negative("kl_coef", kl_coef)
    logprobs = checks.real_array("logprobs", logprobs, (None, None))
    shape = logprobs.shape
    old_logprobs = checks.real_array("old_logprobs", old_logprobs, shape, like="logprobs")
    ref_logprobs = checks.real_array("ref_logprobs", ref_logprobs, shape, like="logprobs")
    advantages = checks.real_array("advantages", advantages, shape[:1], like="logprobs")
    mask = checks.mask_array("mask", mask, shape, like="logprobs")
    nothing = numbers.zeros(shape, like=logprobs)
    arrays = (logprobs, old_logprobs, ref_logprobs, np.repeat(advantages[:, None], shape[1], axis=1))
    logprobs, old_logprobs, ref_logprobs, advantages = (numbers.where(mask, x, nothing) for x in arrays)
    return logprobs, old_logprobs, ref_logprobs, advantages, mask
