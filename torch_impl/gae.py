"""Returns and advantages: TD errors, n-step advantages, GAE, λ-returns, discounted returns, whitening.

Shapes: B rows, T positions; `mask` is True at the tokens that are time steps, with holes anywhere. Inputs
under mask False do not matter, NaN included; outputs there are 0. float16 and bfloat16 inputs are
computed in float32 and rounded once at the end. The definitions are those of the chapter `gae` of the spec.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_impl import checks, kernels
from torch_impl.precision import select, selector, widen, widen_together
from torch_impl.rows import Rows, chunks, discounted_sums, in_chunks


def td_errors(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap_value: Tensor, *, gamma: float
) -> Tensor:
    """TD errors δ_t = r_t + γ V_{t+1} - V_t over the active tokens of each row.

    Clause: `gae.td-error`.

    Parameters
    ----------
    rewards, values : (B, T) floating
        Reward of each token and value of the state before it, in reward units.
    mask : (B, T) bool
        True at the tokens of the episode.
    bootstrap_value : (B,) floating
        Value of the state after the last active token: 0 if the episode terminated there.
    gamma : float in [0, 1]
        Discount.

    Returns
    -------
    (B, T)
        δ at active positions, 0 elsewhere, in the dtype of `rewards`.

    Raises
    ------
    ValueError
        For γ outside [0, 1], shapes that disagree, or a mask that is not boolean.
    """
    _check_rows(rewards, values, mask, bootstrap_value, gamma)
    now, values, last = widen_together(rewards, values, bootstrap_value)
    rows = Rows(mask)
    now, closed = rows.close(now), rows.close(values, last)
    return rows.open(now + gamma * closed[:, 1:] - closed[:, :-1]).to(rewards.dtype)


def n_step_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap_value: Tensor, *, gamma: float, n: int
) -> Tensor:
    """n-step advantages Σ_{l<n} γ^l r_{t+l} + γ^n V_{t+n} - V_t; near the end n is what is left.

    Clause: `gae.n-step`. Arguments and errors as for :func:`td_errors`, and n, an integer of at least 1.
    """
    checks.integer("n", n, at_least=1)
    _check_rows(rewards, values, mask, bootstrap_value, gamma)
    now, values, last = widen_together(rewards, values, bootstrap_value)
    rows = Rows(mask)
    now, closed = rows.close(now), rows.close(values, last)
    returns = closed
    for _ in range(min(n, mask.shape[1])):
        returns = rows.put_behind(pad(now + gamma * returns[:, 1:], (0, 1)), last)
    return rows.open((returns - closed)[:, :-1]).to(rewards.dtype)


@torch.no_grad()
def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    *,
    gamma: float,
    lam: float,
    masked: str = "skip",
) -> Tensor:
    """Generalised advantages A_t = δ_t + γλ A_{t+1}; a constant: no gradient flows through it.

    Clauses: `gae.backward-recursion`, `gae.mask`, `contract.constants`.

    Parameters
    ----------
    rewards, values, mask, bootstrap_value, gamma
        As for :func:`td_errors`.
    lam : float in [0, 1]
        Weight λ of longer n-step advantages.
    masked : "skip" or "zero"
        Whether masked positions before a row's last active one are deleted, or are time steps with
        reward and value 0.

    Returns
    -------
    (B, T)
        Advantages at active positions, 0 elsewhere, in the dtype of `rewards`.

    Raises
    ------
    ValueError
        For γ or λ outside [0, 1], an unknown `masked`, shapes that disagree, a mask that is not boolean.
    """
    return _lambda_returns(rewards, values, mask, bootstrap_value, gamma, lam, masked, advantages=True)


@torch.no_grad()
def lambda_returns(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    *,
    gamma: float,
    lam: float,
    masked: str = "skip",
) -> Tensor:
    """λ-returns A_t + V_t; a constant: no gradient flows through it.

    Clause: `gae.lambda-return`. Arguments, result and errors as for :func:`gae`.
    """
    return _lambda_returns(rewards, values, mask, bootstrap_value, gamma, lam, masked, advantages=False)


def discounted_returns(rewards: Tensor, mask: Tensor, bootstrap_value: Tensor, *, gamma: float) -> Tensor:
    """Discounted returns G_t = r_t + γ G_{t+1}, from G_N = the bootstrap value.

    Clause: `gae.lambda-one`. Arguments and errors as for :func:`td_errors`; without values.
    """
    _check_rows(rewards, rewards, mask, bootstrap_value, gamma)
    if kernels.serve(rewards, bootstrap_value):
        from torch_impl.kernels import gae  # Triton is not there where it has no device

        return gae.discounted_returns(rewards, mask, bootstrap_value, gamma=gamma)

    def compute(rewards: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        rows = Rows(mask)
        sums = discounted_sums(rows.close(*widen_together(rewards, last)), gamma)
        return rows.open(sums[:, :-1]).to(rewards.dtype)

    return in_chunks(compute, rewards, mask, bootstrap_value)


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True, ddof: int = 1, eps: float = 1e-8) -> Tensor:
    """Whitened x: (x - mean) / √(var + eps), with the mean and variance of all active positions.

    Clause: `gae.whitening`.

    Parameters
    ----------
    x : (B, T) floating
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
        Whitened x at active positions, 0 elsewhere; 0 everywhere when the count is at most `ddof`.

    Raises
    ------
    ValueError
        For a negative eps or ddof, shapes that disagree, or a mask that is not boolean.
    """
    checks.floating("x", x, (None, None))
    checks.boolean("mask", mask, tuple(x.shape), like="x")
    checks.flag("shift_mean", shift_mean)
    checks.integer("ddof", ddof, at_least=0)
    checks.non_negative("eps", eps)
    counts, means, corrections, squares = (
        torch.stack(one)
        for one in zip(*(_moments(x[rows], mask[rows]) for rows in chunks(x, mask)), strict=True)
    )
    count = counts.sum()
    some = count.clamp(min=1)
    mean = (counts * means).sum() / some
    # A rounded mean is a little off, and equal values would keep what it is off by: take that out too.
    correction = (counts * (means - mean + corrections)).sum() / some
    between = (counts * (means - mean + (corrections - correction)).square()).sum()
    deviation = torch.sqrt((squares.sum() + between) / (count - ddof).clamp(min=1) + eps)
    divisor = torch.where(count > ddof, deviation, torch.inf)

    def whitened(x: Tensor, mask: Tensor) -> Tensor:
        wide = widen(x)
        found = selector(mask, wide)((wide - mean).sub_(correction)) / divisor
        if not shift_mean:
            found = found + select(mask & (count > ddof), mean + correction)
        return found.to(x.dtype)

    return in_chunks(whitened, x, mask)


def _moments(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of active numbers: how many, their mean, what that is off by, the sum of squared distances from it."""
    x, count = widen(x), mask.sum()
    active, some = selector(mask, x), count.clamp(min=1)
    mean = select(mask, x).sum() / some
    distances = active(x - mean)
    correction = distances.sum() / some
    distances = active(distances.sub_(correction))
    return count.to(x.dtype), mean, correction, distances.square().sum()


def _lambda_returns(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    gamma: float,
    lam: float,
    masked: str,
    *,
    advantages: bool,
) -> Tensor:
    """Check the arguments; λ-returns, or these less the values, by the kernel where there is one."""
    checks.choice("masked", masked, ("skip", "zero"))
    checks.unit_interval("lam", lam)
    _check_rows(rewards, values, mask, bootstrap_value, gamma)
    given = rewards, values, mask, bootstrap_value
    if kernels.serve(rewards):
        from torch_impl.kernels import gae  # Triton is not there where it has no device

        return gae.lambda_returns(*given, gamma=gamma, lam=lam, masked=masked, advantages=advantages)

    def compute(rewards: Tensor, values: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        rows, returns, closed = _returns(rewards, values, mask, last, gamma, lam, masked)
        found = rows.open((returns - closed if advantages else returns)[:, :-1])
        return (found if masked == "skip" else select(mask, found)).to(rewards.dtype)

    return in_chunks(compute, *given)


def _returns(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    last: Tensor,
    gamma: float,
    lam: float,
    masked: str,
) -> tuple[Rows, Tensor, Tensor]:
    """Rows; their λ-returns G_t = r_t + γ((1-λ) V_{t+1} + λ G_{t+1}) and values, closed, both with the end.

    The numbers that are summed are values and rewards, not their differences, so that what is left after
    subtracting V_t carries fewer roundings than a sum of TD errors where γλ is near 1.
    """
    rewards, values, last = widen_together(rewards, values, last)
    if masked == "zero":
        rewards, values = select(mask, rewards), select(mask, values)
        mask = mask.flip(1).cumsum(1).flip(1) > 0
    rows = Rows(mask)
    summands, closed = rows.close(rewards, last), rows.close(values, last)
    summands[:, :-1].add_(closed[:, 1:], alpha=gamma * (1 - lam))
    return rows, discounted_sums(summands, gamma * lam), closed


def _check_rows(rewards: Tensor, values: Tensor, mask: Tensor, bootstrap_value: Tensor, gamma: float) -> None:
    """Check the arguments that most functions share."""
    checks.unit_interval("gamma", gamma)
    checks.floating("rewards", rewards, (None, None))
    shape = tuple(rewards.shape)
    checks.floating("values", values, shape, like="rewards")
    checks.boolean("mask", mask, shape, like="rewards")
    checks.floating("bootstrap_value", bootstrap_value, shape[:1], like="rewards")
