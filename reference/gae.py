"""Returns and advantages: TD errors, n-step advantages, GAE, λ-returns, discounted returns, whitening.

Assumptions: a row holds one response, its active tokens (mask True) are the time steps t = 0 ... N-1 of
one episode, in order, and positions under mask False are no time steps at all: every function first
deletes them (`gae.mask`). The state after the last active token has the row's bootstrap value: 0 after a
terminated episode, V(s_N) after a truncated one (`gae.row-end`).

Shapes: B rows, T positions. Rewards, values, advantages and returns have reward units; γ, λ and the
outputs of :func:`whiten` are dimensionless. Outputs are 0 at masked positions.
"""

import numpy as np

from reference import checks, numbers, rows
from reference.numbers import Array, Mask, Scalar


def td_errors(rewards: Array, values: Array, mask: Mask, bootstrap_value: Array, *, gamma: Scalar) -> Array:
    """TD errors δ_t = r_t + γ V_{t+1} - V_t over the active tokens of each row.

    Clause: `gae.td-error`.

    Parameters
    ----------
    rewards, values : (B, T)
        Reward of each token and value of the state before it.
    mask : (B, T) bool
        True at the tokens of the episode.
    bootstrap_value : (B,)
        Value of the state after the last active token.
    gamma : float in [0, 1]
        Discount.

    Returns
    -------
    (B, T)
        δ at active positions, 0 elsewhere.

    Raises
    ------
    ValueError
        For γ outside [0, 1], shapes that disagree, or a mask that is not boolean.

    Source
    ------
    Schulman et al. 2016, arXiv:1506.02438v6, section 3, before eq. (10).

    Examples
    --------
    >>> td_errors([[1.0, 2.0]], [[0.5, 0.25]], np.array([[True, True]]), [4.0], gamma=0.5)
    array([[0.625, 3.75 ]])
    """
    rewards, values, mask, bootstrap_value = _rows(rewards, values, mask, bootstrap_value, gamma)
    return rows.unpack(_packed_td_errors(rewards, values, mask, bootstrap_value, gamma), mask)


def n_step_advantages(
    rewards: Array, values: Array, mask: Mask, bootstrap_value: Array, *, gamma: Scalar, n: int
) -> Array:
    """n-step advantages A^(n)_t = Σ_{l<n} γ^l r_{t+l} + γ^n V_{t+n} - V_t; near the end n is what is left.

    Clause: `gae.n-step`. Arguments and errors as for :func:`td_errors`, and n, an integer of at least 1.

    Source
    ------
    Schulman et al. 2016, arXiv:1506.02438v6, eqs. (11) to (14).

    Examples
    --------
    >>> n_step_advantages([[1.0, 2.0]], [[0.5, 0.25]], np.array([[True, True]]), [4.0], gamma=0.5, n=2)
    array([[2.5 , 3.75]])
    """
    checks.integer("n", n, at_least=1)
    rewards, values, mask, bootstrap_value = _rows(rewards, values, mask, bootstrap_value, gamma)
    width = rewards.shape[1]
    discounts = numbers.powers(gamma, width + 1)
    packed_rewards = rows.pack(rewards, mask)
    state_values = _state_values(values, mask, bootstrap_value)
    terms = _discounted_steps(packed_rewards, discounts[: min(n, width)])
    steps = np.clip(rows.lengths(mask)[:, None] - np.arange(width), 0, n)
    last_values = np.take_along_axis(state_values, np.arange(width) + steps, axis=1)
    terms = np.concatenate([terms, [discounts[steps] * last_values, -state_values[:, :width]]])
    return rows.unpack(numbers.total(terms, axis=0), mask)


def telescoped_advantages(
    rewards: Array, values: Array, mask: Mask, bootstrap_value: Array, *, gamma: Scalar, n: int
) -> Array:
    """n-step advantages as sums of TD errors: A^(n)_t = Σ_{l<n} γ^l δ_{t+l}; the values between cancel.

    Clause: `gae.telescoping`. Arguments and errors as for :func:`n_step_advantages`, which it equals.

    Source
    ------
    Schulman et al. 2016, arXiv:1506.02438v6, eq. (14).

    Examples
    --------
    >>> telescoped_advantages([[1.0, 2.0]], [[0.5, 0.25]], np.array([[True, True]]), [4.0], gamma=0.5, n=2)
    array([[2.5 , 3.75]])
    """
    checks.integer("n", n, at_least=1)
    rewards, values, mask, bootstrap_value = _rows(rewards, values, mask, bootstrap_value, gamma)
    errors = _packed_td_errors(rewards, values, mask, bootstrap_value, gamma)
    discounts = numbers.powers(gamma, min(n, errors.shape[1]))
    return rows.unpack(numbers.total(_discounted_steps(errors, discounts), axis=0), mask)


def n_step_weights(count: int, *, lam: Scalar) -> Array:
    """Weights (1-λ) λ^{n-1} of the n-step advantages, n = 1 ... count; the last one is λ^{count-1}.

    Clause: `gae.definition`. They sum to 1. Shape (count,).

    Examples
    --------
    >>> n_step_weights(3, lam=0.5)
    array([0.5 , 0.25, 0.25])
    """
    checks.integer("count", count, at_least=1)
    checks.unit_interval("lam", lam)
    weights = numbers.powers(lam, count)
    weights[:-1] = (1 - lam) * weights[:-1]
    return weights


def gae_by_definition(
    rewards: Array, values: Array, mask: Mask, bootstrap_value: Array, *, gamma: Scalar, lam: Scalar
) -> Array:
    """Generalised advantages as their definition has them: the weighted mean of all n-step advantages.

    Clause: `gae.definition`. Slow on purpose; :func:`gae` is the one-pass form. Arguments as there.

    Source
    ------
    Schulman et al. 2016, arXiv:1506.02438v6, eq. (16), with the weights of a finite horizon.

    Examples
    --------
    >>> gae_by_definition([[1.0, 2.0]], [[0.5, 0.25]], np.array([[True, True]]), [4.0], gamma=0.5, lam=0.5)
    array([[1.5625, 3.75  ]])
    """
    rewards, values, mask, bootstrap_value = _rows(rewards, values, mask, bootstrap_value, gamma, lam)
    advantages = numbers.zeros(rewards.shape, like=rewards)
    for n, weight in enumerate(n_step_weights(max(rewards.shape[1], 1), lam=lam), start=1):
        advantages = advantages + weight * n_step_advantages(
            rewards, values, mask, bootstrap_value, gamma=gamma, n=n
        )
    return advantages


def gae(
    rewards: Array,
    values: Array,
    mask: Mask,
    bootstrap_value: Array,
    *,
    gamma: Scalar,
    lam: Scalar,
    masked: str = "skip",
) -> Array:
    """Generalised advantages by the backward recursion A_t = δ_t + γλ A_{t+1}, A_N = 0.

    Clauses: `gae.backward-recursion`, `gae.sum-of-td-errors`, `gae.mask`.

    Parameters
    ----------
    rewards, values : (B, T)
        Reward of each token and value of the state before it.
    mask : (B, T) bool
        True at the tokens of the episode; holes and rows without any True are allowed.
    bootstrap_value : (B,)
        Value of the state after the last active token: 0 if the episode terminated there.
    gamma, lam : float in [0, 1]
        Discount γ and the weight λ of longer n-step advantages.
    masked : "skip" or "zero"
        Whether masked positions before the last active one are deleted, or are time steps with reward
        and value 0 (`gae.mask`).

    Returns
    -------
    (B, T)
        Advantages at active positions, 0 elsewhere.

    ===========  =====================================================
    λ = 0        A_t = δ_t (`gae.lambda-zero`)
    λ = 1        the Monte Carlo return minus V_t (`gae.lambda-one`)
    empty row    0
    ===========  =====================================================

    Raises
    ------
    ValueError
        For γ or λ outside [0, 1], an unknown `masked`, shapes that disagree, a mask that is not boolean.

    Source
    ------
    Schulman et al. 2016, arXiv:1506.02438v6, eq. (16); the recursion is its sum read from the end.

    Examples
    --------
    >>> gae([[1.0, 2.0]], [[0.5, 0.25]], np.array([[True, True]]), [4.0], gamma=0.5, lam=0.5)
    array([[1.5625, 3.75  ]])
    """
    rewards, values, mask, bootstrap_value = _rows(rewards, values, mask, bootstrap_value, gamma, lam)
    rewards, values, steps = _time_steps(rewards, values, mask, masked)
    td_error = _packed_td_errors(rewards, values, steps, bootstrap_value, gamma)
    advantages = rows.unpack(numbers.discounted_sums(td_error, gamma * lam), steps)
    return numbers.where(mask, advantages, numbers.zeros(advantages.shape, like=advantages))


def lambda_returns(
    rewards: Array,
    values: Array,
    mask: Mask,
    bootstrap_value: Array,
    *,
    gamma: Scalar,
    lam: Scalar,
    masked: str = "skip",
) -> Array:
    """λ-returns G_t = A_t + V_t: generalised advantages with the values added back.

    Clause: `gae.lambda-return`. Arguments, errors and special cases as for :func:`gae`.

    Source
    ------
    Sutton and Barto 2018, *Reinforcement Learning*, 2nd ed., eq. (12.18), for state values.

    Examples
    --------
    >>> lambda_returns([[1.0, 2.0]], [[0.5, 0.25]], np.array([[True, True]]), [4.0], gamma=0.5, lam=0.5)
    array([[2.0625, 4.    ]])
    """
    advantages = gae(rewards, values, mask, bootstrap_value, gamma=gamma, lam=lam, masked=masked)
    values = checks.real_array("values", values, advantages.shape)
    return numbers.where(mask, advantages + values, numbers.zeros(advantages.shape, like=advantages))


def discounted_returns(rewards: Array, mask: Mask, bootstrap_value: Array, *, gamma: Scalar) -> Array:
    """Discounted returns G_t = Σ_l γ^l r_{t+l} + γ^{N-t} V_N over the active tokens of each row.

    Clause: `gae.lambda-one`. Arguments and errors as for :func:`td_errors`; without values.

    Source
    ------
    Sutton and Barto 2018, *Reinforcement Learning*, 2nd ed., eqs. (3.8) and (3.9).

    Examples
    --------
    >>> discounted_returns([[1.0, 2.0]], np.array([[True, True]]), [4.0], gamma=0.5)
    array([[3., 4.]])
    """
    rewards, _, mask, bootstrap_value = _rows(rewards, rewards, mask, bootstrap_value, gamma)
    with_bootstrap = _state_values(rewards, mask, bootstrap_value)
    return rows.unpack(numbers.discounted_sums(with_bootstrap, gamma)[:, :-1], mask)


def whiten(x: Array, mask: Mask, *, shift_mean: bool = True, ddof: int = 1, eps: Scalar = 1e-8) -> Array:
    """Whitened x: (x - mean) / √(var + eps), with the mean and variance of all active positions.

    Clause: `gae.whitening`.

    Parameters
    ----------
    x : (B, T)
        Advantages or any other numbers.
    mask : (B, T) bool
        True at the positions that count, all rows together.
    shift_mean : bool
        False adds the mean back after the division.
    ddof : int
        0 divides the sum of squares by the count, 1 by the count less one.
    eps : float, at least 0
        Added to the variance, inside the root; squared units of x.

    Returns
    -------
    (B, T)
        Whitened x at active positions, 0 elsewhere.

    ==========================  ==========================================
    all active x equal, eps>0   0 (their mean with shift_mean=False)
    count <= ddof               0
    ==========================  ==========================================

    Raises
    ------
    ValueError
        For a negative eps or ddof, shapes that disagree, or a mask that is not boolean.

    Source
    ------
    Huang et al. 2022, *The 37 Implementation Details of Proximal Policy Optimization*, detail 7.

    Examples
    --------
    >>> whiten([[1.0, 2.0, 3.0]], np.array([[True, True, True]]), eps=0.0)
    array([[-1.,  0.,  1.]])
    """
    x = checks.real_array("x", x, (None, None))
    mask = checks.mask_array("mask", mask, x.shape, like="x")
    checks.flag("shift_mean", shift_mean)
    checks.integer("ddof", ddof, at_least=0)
    checks.non_negative("eps", eps)
    count = int(mask.sum())
    nothing = numbers.zeros(x.shape, like=x)
    if count <= ddof:
        return nothing
    mean = numbers.mean(x[mask])
    centred = numbers.where(mask, x - mean, nothing)
    variance = numbers.total(numbers.square(centred)) / (count - ddof)
    whitened = centred / numbers.sqrt(variance + eps)
    return whitened if shift_mean else numbers.where(mask, whitened + mean, nothing)


def reward_horizon(epsilon: Scalar, *, gamma: Scalar, lam: Scalar) -> Scalar:
    """Tokens after which a terminal reward's weight (γλ)^k has fallen to epsilon: ln ε / ln(γλ).

    Clause: `gae.reward-horizon`. ε and γλ lie strictly between 0 and 1.

    Examples
    --------
    >>> reward_horizon(0.25, gamma=1.0, lam=0.5)
    2.0
    """
    checks.open_unit_interval("epsilon", epsilon)
    checks.unit_interval("gamma", gamma)
    checks.unit_interval("lam", lam)
    checks.open_unit_interval("gamma * lam", gamma * lam)
    return _scalar(numbers.log(epsilon) / numbers.log(gamma * lam))


def gae_variance(covariance: Array, *, gamma: Scalar, lam: Scalar) -> Scalar:
    """Variance of A_t from the covariances of its TD errors: Σ_i Σ_j (γλ)^{i+j} Cov(δ_{t+i}, δ_{t+j}).

    Clause: `gae.variance`. `covariance` is (N, N), of δ_t ... δ_{t+N-1}; squared reward units.

    Examples
    --------
    >>> gae_variance(np.eye(2), gamma=1.0, lam=0.5)
    1.25
    """
    covariance = checks.real_array("covariance", covariance, (None, None))
    covariance = checks.real_array("covariance", covariance, (len(covariance), len(covariance)))
    checks.unit_interval("gamma", gamma)
    checks.unit_interval("lam", lam)
    weights = numbers.powers(gamma * lam, len(covariance))
    return _scalar(numbers.total(weights[:, None] * covariance * weights[None, :]))


def _rows(
    rewards: Array, values: Array, mask: Mask, bootstrap_value: Array, gamma: Scalar, lam: Scalar = 0.0
) -> tuple[Array, Array, Mask, Array]:
    """Check the arguments that most functions share."""
    checks.unit_interval("gamma", gamma)
    checks.unit_interval("lam", lam)
    rewards = checks.real_array("rewards", rewards, (None, None))
    values = checks.real_array("values", values, rewards.shape, like="rewards")
    mask = checks.mask_array("mask", mask, rewards.shape, like="rewards")
    bootstrap_value = checks.real_array("bootstrap_value", bootstrap_value, rewards.shape[:1], like="rewards")
    return rewards, values, mask, bootstrap_value


def _time_steps(rewards: Array, values: Array, mask: Mask, masked: str) -> tuple[Array, Array, Mask]:
    """Say which positions are time steps: the active ones, or also the holes, with reward and value 0."""
    checks.choice("masked", masked, ("skip", "zero"))
    if masked == "skip":
        return rewards, values, mask
    nothing = numbers.zeros(rewards.shape, like=rewards)
    rewards, values = (numbers.where(mask, x, nothing) for x in (rewards, values))
    return rewards, values, rows.through_last_active(mask)


def _state_values(values: Array, mask: Mask, bootstrap_value: Array) -> Array:
    """V_0 ... V_{N-1} of each row with the bootstrap value V_N behind them, then zeros: (B, T+1)."""
    packed = rows.pack(values, mask)
    like = packed if packed.size else bootstrap_value
    states = numbers.zeros((packed.shape[0], packed.shape[1] + 1), like=like)
    states[:, :-1] = packed
    states[np.arange(len(states)), rows.lengths(mask)] = bootstrap_value
    return states


def _packed_td_errors(
    rewards: Array, values: Array, mask: Mask, bootstrap_value: Array, gamma: Scalar
) -> Array:
    state_values = _state_values(values, mask, bootstrap_value)
    errors = rows.pack(rewards, mask) + gamma * state_values[:, 1:] - state_values[:, :-1]
    front = np.arange(mask.shape[1]) < rows.lengths(mask)[:, None]
    return numbers.where(front, errors, numbers.zeros(errors.shape, like=errors))


def _discounted_steps(x: Array, discounts: Array) -> Array:
    """The terms of Σ_k γ^k x_{t+k}, 0 behind a row's end: (K, B, T) for K powers of γ."""
    terms = numbers.zeros((len(discounts), *x.shape), like=x)
    for step, discount in enumerate(discounts):
        terms[step, :, : x.shape[1] - step] = discount * x[:, step:]
    return terms


def _scalar(x: Array) -> Scalar:
    """A 0-d array, or an object of one, as the number that it holds."""
    return np.asarray(x).item()
