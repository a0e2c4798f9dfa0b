"""A right backend in NumPy that associates every formula in another way than the spec writes it.

n-step advantages are sums of TD errors; λ-returns come first, and advantages are λ-returns less values; the
mean and the variance are Welford's, token by token.
"""

import numpy as np

array_library = "numpy"
name = "other associations"


def td_errors(
    rewards: np.ndarray, values: np.ndarray, mask: np.ndarray, bootstrap_value: np.ndarray, *, gamma: float
) -> np.ndarray:
    return np.where(mask, rewards + (gamma * _next(values, mask, bootstrap_value) - values), 0)


def n_step_advantages(
    rewards: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray,
    bootstrap_value: np.ndarray,
    *,
    gamma: float,
    n: int,
) -> np.ndarray:
    errors = td_errors(rewards, values, mask, bootstrap_value, gamma=gamma)
    advantages = np.zeros_like(errors)
    for _ in range(min(n, mask.shape[1])):
        advantages = errors + gamma * _next(advantages, mask, np.zeros_like(bootstrap_value))
    return np.where(mask, advantages, 0)


def gae(
    rewards: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray,
    bootstrap_value: np.ndarray,
    *,
    gamma: float,
    lam: float,
    masked: str = "skip",
) -> np.ndarray:
    returns = lambda_returns(rewards, values, mask, bootstrap_value, gamma=gamma, lam=lam, masked=masked)
    return np.where(mask, returns - values, 0)


def lambda_returns(
    rewards: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray,
    bootstrap_value: np.ndarray,
    *,
    gamma: float,
    lam: float,
    masked: str = "skip",
) -> np.ndarray:
    steps = mask
    if masked == "zero":
        rewards, values = np.where(mask, rewards, 0), np.where(mask, values, 0)
        steps = np.flip(np.logical_or.accumulate(np.flip(mask, axis=1), axis=1), axis=1)
    one_step = rewards + gamma * (1 - lam) * _next(values, steps, bootstrap_value)
    return np.where(mask, _discounted(one_step, steps, bootstrap_value, gamma * lam), 0)


def discounted_returns(
    rewards: np.ndarray, mask: np.ndarray, bootstrap_value: np.ndarray, *, gamma: float
) -> np.ndarray:
    return _discounted(rewards, mask, bootstrap_value, gamma)


def whiten(
    x: np.ndarray, mask: np.ndarray, *, shift_mean: bool = True, ddof: int = 1, eps: float = 1e-8
) -> np.ndarray:
    chosen = x[mask]
    mean = squares = x.dtype.type(0)
    for count, token in enumerate(chosen, start=1):
        before = token - mean
        mean = mean + before / count
        squares = squares + before * (token - mean)
    result = np.zeros_like(x)
    if chosen.size > ddof:
        result[mask] = (chosen - mean) * (1 / np.sqrt(squares / (chosen.size - ddof) + eps))
        result[mask] += 0 if shift_mean else mean
    return result


def _next(x: np.ndarray, mask: np.ndarray, last: np.ndarray) -> np.ndarray:
    """x at the next active position of the row, `last` where there is none."""
    width = mask.shape[1]
    own = np.where(mask, np.arange(width), width)
    from_here_on = np.flip(np.minimum.accumulate(np.flip(own, axis=1), axis=1), axis=1)
    following = np.concatenate([from_here_on[:, 1:], np.full_like(own[:, :1], width)], axis=1)
    return np.take_along_axis(np.concatenate([x, last[:, None]], axis=1), following, axis=1)


def _discounted(x: np.ndarray, mask: np.ndarray, last: np.ndarray, discount: float) -> np.ndarray:
    """S_t = x_t + discount · S at the next active position, from `last` behind the row's end."""
    sums = np.zeros_like(x)
    for t in reversed(range(mask.shape[1])):
        last = np.where(mask[:, t], x[:, t] + discount * last, last)
        sums[:, t] = np.where(mask[:, t], last, 0)
    return sums
