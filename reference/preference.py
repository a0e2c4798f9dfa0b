"""Preferences: sequence log-probabilities, implicit rewards, the DPO family of losses, and the optimum.

Assumptions: a pair is two responses to one prompt, of which the chosen one was preferred. The arguments of
the losses hold one number a pair: the log-probability of a whole response, in nats, under the policy and
under the reference (`dpo.sum-of-logprobs`). The reference is a constant: nothing is differentiated in it.

Shapes: N pairs or responses, B rows, T positions, K responses that a prompt has. Log-probabilities,
margins and losses are in nats and dimensionless; β has the reward's unit, and so have implicit rewards.
"""

from typing import Any

import numpy as np

from reference import checks, numbers
from reference.numbers import Array, Mask, Scalar

LOSS_TYPES = ("sigmoid", "hinge", "ipo")


def sequence_logprobs(token_logprobs: Array, mask: Mask, *, average: bool = False) -> Array:
    """Log-probability of each response: the sum of those of its active tokens.

    Clause: `dpo.sum-of-logprobs`.

    Parameters
    ----------
    token_logprobs : (B, T)
        Log-probability of each token, in nats.
    mask : (B, T) bool
        True at the response's tokens.
    average : bool
        True divides the sum by the number of active tokens.

    Returns
    -------
    (B,)
        Sums, or means, over the active positions of each row.

    =====================  ==========
    row without any True   0
    one active token       that token
    =====================  ==========

    Raises
    ------
    ValueError
        For shapes that disagree, a mask that is not boolean, an `average` that is no flag.

    Source
    ------
    Rafailov et al. 2023, arXiv:2305.18290v3, eq. (7), whose π(y | x) is that of a whole response.

    Examples
    --------
    >>> sequence_logprobs([[-1.0, -2.0, -4.0]], np.array([[True, False, True]]))
    array([-5.])
    """
    token_logprobs = checks.real_array("token_logprobs", token_logprobs, (None, None))
    mask = checks.mask_array("mask", mask, token_logprobs.shape, like="token_logprobs")
    active = numbers.where(mask, token_logprobs, numbers.zeros(mask.shape, like=token_logprobs))
    return numbers.average(active, _divisors(mask, average), axis=1)


def sequence_logprobs_gradient(
    upstream: Array, token_logprobs: Array, mask: Mask, *, average: bool = False
) -> Array:
    """Gradient of Σ_b upstream_b · :func:`sequence_logprobs`_b in the token log-probabilities. Shape (B, T).

    Clause: `dpo.sum-of-logprobs`. Upstream, or its share by the token, at active positions, and 0 elsewhere.

    Examples
    --------
    >>> mask = np.array([[True, False, True]])
    >>> sequence_logprobs_gradient([3.0], [[-1.0, -2.0, -4.0]], mask, average=True)
    array([[1.5, 0. , 1.5]])
    """
    token_logprobs = checks.real_array("token_logprobs", token_logprobs, (None, None))
    mask = checks.mask_array("mask", mask, token_logprobs.shape, like="token_logprobs")
    upstream = checks.real_array("upstream", upstream, mask.shape[:1], like="token_logprobs")
    shares = (upstream / _divisors(mask, average))[:, None]
    return numbers.where(mask, shares, numbers.zeros(mask.shape, like=upstream))


def implicit_rewards(policy_logprobs: Array, ref_logprobs: Array, *, beta: Scalar) -> Array:
    """Implicit rewards β (log π - log π_ref): those that the policy is the optimum for, but for a constant.

    Clause: `dpo.implicit-reward`.

    Parameters
    ----------
    policy_logprobs, ref_logprobs : (N,)
        Log-probability of each response under the policy and under the reference, in nats.
    beta : float above 0
        Weight β of the KL divergence.

    Returns
    -------
    (N,)
        Rewards, in the unit of β; 0 where policy and reference agree.

    Raises
    ------
    ValueError
        For a β that is not above 0, or shapes that disagree.

    Source
    ------
    Rafailov et al. 2023, arXiv:2305.18290v3, eq. (5) and, without the partition function, section 5.1.

    Examples
    --------
    >>> implicit_rewards([-1.0, -2.0], [-2.0, -2.0], beta=0.5)
    array([0.5, 0. ])
    """
    checks.positive("beta", beta)
    policy_logprobs = checks.real_array("policy_logprobs", policy_logprobs, (None,))
    ref_logprobs = checks.real_array(
        "ref_logprobs", ref_logprobs, policy_logprobs.shape, like="policy_logprobs"
    )
    return beta * (policy_logprobs - ref_logprobs)


def implicit_rewards_gradient(
    upstream: Array, policy_logprobs: Array, ref_logprobs: Array, *, beta: Scalar
) -> Array:
    """Gradient of Σ_n upstream_n · :func:`implicit_rewards`_n in the policy's log-probabilities: β upstream.

    Clause: `dpo.implicit-reward`. Shape (N,).

    Examples
    --------
    >>> implicit_rewards_gradient([2.0], [-1.0], [-3.0], beta=0.5)
    array([1.])
    """
    rewards = implicit_rewards(policy_logprobs, ref_logprobs, beta=beta)
    return beta * checks.real_array("upstream", upstream, rewards.shape, like="policy_logprobs")


def preference_margin(
    policy_chosen: Array, policy_rejected: Array, ref_chosen: Array, ref_rejected: Array
) -> Array:
    """Margin h of each pair: the log-ratio of its chosen response less that of its rejected one.

    Clause: `dpo.loss`. Shape (N,); β h is the difference of the implicit rewards.

    Examples
    --------
    >>> preference_margin([-1.0], [-4.0], [-2.0], [-3.0])
    array([2.])
    """
    policy_chosen = checks.real_array("policy_chosen", policy_chosen, (None,))
    policy_rejected, ref_chosen, ref_rejected = (
        checks.real_array(name, x, policy_chosen.shape, like="policy_chosen")
        for name, x in (
            ("policy_rejected", policy_rejected),
            ("ref_chosen", ref_chosen),
            ("ref_rejected", ref_rejected),
        )
    )
    return (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)


def dpo_loss(
    policy_chosen: Array,
    policy_rejected: Array,
    ref_chosen: Array,
    ref_rejected: Array,
    *,
    beta: Scalar,
    label_smoothing: Scalar = 0.0,
    loss_type: str = "sigmoid",
) -> Scalar:
    """Preference loss: the mean over pairs of a function of the margin h of their log-ratios.

    Clauses: `dpo.loss`, `dpo.loss-label-smoothing`, `dpo.loss-hinge`, `dpo.loss-ipo`.

    Parameters
    ----------
    policy_chosen, policy_rejected : (N,)
        Log-probability of the chosen and of the rejected response under the policy, in nats.
    ref_chosen, ref_rejected : (N,)
        The same under the reference.
    beta : float above 0
        Weight β of the KL divergence that the policy is held to the reference with.
    label_smoothing : float in [0, 1]
        Share ε of labels that are thought to be the wrong way round; "sigmoid" only.
    loss_type : "sigmoid", "hinge" or "ipo"
        -log σ(βh), max(0, 1 - βh), or (h - 1/(2β))².

    Returns
    -------
    scalar
        Mean loss; 0 without any pair.

    =========  ===================================
    h = 0      log 2, 1 and 1/(4β²) by type
    h → ∞      0, 0 and ∞; with ε > 0 the first: ∞
    =========  ===================================

    Raises
    ------
    ValueError
        For a β that is not above 0, an ε outside [0, 1], an ε other than 0 with another type than "sigmoid",
        an unknown type, or shapes that disagree.

    Source
    ------
    Rafailov et al. 2023, arXiv:2305.18290v3, eq. (7); Mitchell 2023, *A note on DPO with noisy preferences*,
    eq. (3), for ε; Liu et al. 2023, arXiv:2309.06657v2, for the hinge; Azar et al. 2023, arXiv:2310.12036v2,
    eq. (17), for IPO.

    Examples
    --------
    >>> dpo_loss([-1.0], [-4.0], [-2.0], [-3.0], beta=0.25, loss_type="hinge")
    0.5
    """
    _check_options(beta, label_smoothing, loss_type)
    margin = preference_margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected)
    losses = _losses(margin, beta, label_smoothing, loss_type)
    return _scalar(numbers.average(losses, max(len(losses), 1)))


def dpo_loss_gradient(
    upstream: Scalar,
    policy_chosen: Array,
    policy_rejected: Array,
    ref_chosen: Array,
    ref_rejected: Array,
    *,
    beta: Scalar,
    label_smoothing: Scalar = 0.0,
    loss_type: str = "sigmoid",
) -> tuple[Array, Array]:
    """Gradients of upstream · :func:`dpo_loss` in `policy_chosen` and in `policy_rejected`: (N,) each.

    Clause: `dpo.gradient`. One is the other's opposite, because the loss sees the margin alone. At the
    hinge's corner, βh = 1, anything between 0 and -β upstream / N is right for the chosen response.

    Examples
    --------
    >>> chosen, rejected = dpo_loss_gradient(1.0, [-1.0], [-1.0], [-2.0], [-2.0], beta=0.5)
    >>> chosen, rejected
    (array([-0.25]), array([0.25]))
    """
    _check_options(beta, label_smoothing, loss_type)
    margin = preference_margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected)
    slopes = _slopes(margin, beta, label_smoothing, loss_type)
    upstream = checks.real_number("upstream", upstream)
    # Automatic differentiation doubles the slope of a square where it comes to it.
    halvings = 1 if loss_type == "ipo" else 0
    chosen = numbers.product(*slopes, upstream, over=max(len(margin), 1), halvings=halvings)
    return chosen, -chosen


def regularised_objective(policy: Array, ref: Array, rewards: Array, *, beta: Scalar) -> Scalar:
    """Objective E_π[r] - β KL(π‖π_ref) of one prompt, over the K responses that there are.

    Clause: `dpo.objective`. `policy` and `ref` are probabilities above 0, (K,); `rewards` are (K,).

    Examples
    --------
    >>> regularised_objective([0.5, 0.5], [0.5, 0.5], [0.0, 3.0], beta=1.0)
    1.5
    """
    ref, rewards = _responses(ref, rewards, beta)
    policy = checks.real_array("policy", policy, ref.shape, like="ref")
    divergence = numbers.total(policy * numbers.log(policy / ref))
    return _scalar(numbers.total(policy * rewards) - beta * divergence)


def optimal_policy(ref: Array, rewards: Array, *, beta: Scalar) -> Array:
    """The policy π* = π_ref exp(r/β) / Z that maximises :func:`regularised_objective`. Shape (K,).

    Clause: `dpo.optimum`. `ref` are probabilities above 0. Rafailov et al. 2023, arXiv:2305.18290v3, eq. (4).

    Examples
    --------
    >>> optimal_policy([0.5, 0.5], [1.0, 1.0], beta=0.1)
    array([0.5, 0.5])
    """
    weights, _ = _tilted(ref, rewards, beta)
    return weights / numbers.total(weights)


def log_partition(ref: Array, rewards: Array, *, beta: Scalar) -> Scalar:
    """Logarithm of the partition function Z = Σ_y π_ref(y) exp(r(y)/β) of one prompt.

    Clause: `dpo.optimum`. β log Z is the largest value of :func:`regularised_objective`.

    Examples
    --------
    >>> log_partition([0.5, 0.5], [2.0, 2.0], beta=1.0)
    2.0
    """
    weights, best = _tilted(ref, rewards, beta)
    return _scalar(best / beta + numbers.log(numbers.total(weights)))


def _tilted(ref: Array, rewards: Array, beta: Scalar) -> tuple[Array, Array]:
    """π_ref exp((r - R)/β), which cannot overflow, and R, the largest reward."""
    ref, rewards = _responses(ref, rewards, beta)
    best = numbers.largest(rewards)
    return ref * numbers.exp((rewards - best) / beta), best


def _losses(margin: Array, beta: Scalar, label_smoothing: Scalar, loss_type: str) -> Array:
    """Loss of each pair as a function of its margin."""
    x = beta * margin
    if loss_type == "hinge":
        return numbers.maximum(1 - x, numbers.zeros(x.shape, like=x))
    if loss_type == "ipo":
        return numbers.square(margin - 1 / (2 * beta))
    as_labelled, turned_round = -numbers.log_sigmoid(x), -numbers.log_sigmoid(-x)
    return (1 - label_smoothing) * as_labelled + label_smoothing * turned_round


def _slopes(margin: Array, beta: Scalar, label_smoothing: Scalar, loss_type: str) -> list[Any]:
    """The factors of the derivative of each pair's loss in its margin."""
    x = beta * margin
    nothing, one = numbers.zeros(x.shape, like=x), numbers.full(x.shape, 1, like=x)
    if loss_type == "hinge":
        return [beta, numbers.kink(x, one, -one, nothing)]
    if loss_type == "ipo":
        return [2 * (margin - 1 / (2 * beta))]
    return [beta, label_smoothing * numbers.sigmoid(x) - (1 - label_smoothing) * numbers.sigmoid(-x)]


def _divisors(mask: Mask, average: bool) -> np.typing.NDArray[np.int64]:
    """What each row's sum is divided by: 1, or its active positions, at least 1. Shape (B,)."""
    checks.flag("average", average)
    return np.maximum(mask.sum(axis=1), 1) if average else np.ones(len(mask), dtype=np.int64)


def _check_options(beta: Scalar, label_smoothing: Scalar, loss_type: str) -> None:
    checks.positive("beta", beta)
    checks.unit_interval("label_smoothing", label_smoothing)
    checks.choice("loss_type", loss_type, LOSS_TYPES)
    is_plain = numbers.system_of(label_smoothing) is numbers.floats
    if loss_type != "sigmoid" and is_plain and label_smoothing != 0:
        raise ValueError(f"label_smoothing must be 0 with loss_type {loss_type!r}, got {label_smoothing!r}")


def _responses(ref: Array, rewards: Array, beta: Scalar) -> tuple[Array, Array]:
    """Check what describes the responses to one prompt: those that the reference gives no chance are none."""
    checks.positive("beta", beta)
    ref = checks.real_array("ref", ref, (None,))
    if numbers.system_of(ref) is numbers.floats and not (ref > 0).all():
        raise ValueError(f"ref must be probabilities above 0, got {ref.min()}")
    return ref, checks.real_array("rewards", rewards, ref.shape, like="ref")


def _scalar(x: Array) -> Scalar:
    """A 0-d array, or an object of one, as the number that it holds."""
    return np.asarray(x).item()
