"""A right backend in NumPy: sums are products with an upper triangular matrix of powers, block by block.

Returns take one block, so that each is the sum of all that follows, term by term.
"""

import numpy as np

array_library = "numpy"
name = "matrix blocks"

BLOCK = 16


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
    steps = mask
    if masked == "zero":
        rewards, values = np.where(mask, rewards, 0), np.where(mask, values, 0)
        steps = np.cumsum(mask[:, ::-1], axis=1)[:, ::-1] > 0
    rewards, values = _packed(rewards, steps), _packed(values, steps)
    next_values = np.concatenate([values[:, 1:], np.zeros_like(values[:, :1])], axis=1)
    ended = steps.any(axis=1)
    next_values[ended, steps.sum(axis=1)[ended] - 1] = bootstrap_value[ended]
    errors = rewards + gamma * next_values - values
    errors = np.where(np.arange(steps.shape[1]) < steps.sum(axis=1)[:, None], errors, 0)
    return np.where(mask, _unpacked(_discounted(errors, gamma * lam), steps), 0)


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
    advantages = gae(rewards, values, mask, bootstrap_value, gamma=gamma, lam=lam, masked=masked)
    return np.where(mask, values + advantages, 0)


def discounted_returns(
    rewards: np.ndarray, mask: np.ndarray, bootstrap_value: np.ndarray, *, gamma: float
) -> np.ndarray:
    with_last = np.concatenate([_packed(rewards, mask), np.zeros_like(rewards[:, :1])], axis=1)
    with_last[np.arange(len(mask)), mask.sum(axis=1)] = bootstrap_value
    return np.where(mask, _unpacked(_discounted(with_last, gamma, with_last.shape[1])[:, :-1], mask), 0)


def _discounted(x: np.ndarray, discount: float, size: int = BLOCK) -> np.ndarray:
    """Sums of x from each column on, each further column discounted once more."""
    width = x.shape[1]
    sums, following = np.zeros_like(x), np.zeros_like(x[:, 0])
    for start in reversed(range(0, width, size)):
        block = x[:, start : start + size]
        distance = np.arange(block.shape[1])[:, None] - np.arange(block.shape[1])
        powers = np.where(distance >= 0, discount ** np.maximum(distance, 0), 0.0).astype(x.dtype)
        to_the_end = discount ** np.arange(block.shape[1], 0, -1)
        sums[:, start : start + size] = block @ powers + following[:, None] * to_the_end.astype(x.dtype)
        following = sums[:, start]
    return sums


def _packed(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Each row's active tokens at its front, zeros behind them."""
    order = np.argsort(~mask, axis=1, kind="stable")
    return np.take_along_axis(np.where(mask, x, 0), order, axis=1)


def _unpacked(packed: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The tokens at the front of each row back at their active positions."""
    return np.take_along_axis(packed, np.maximum(np.cumsum(mask, axis=1) - 1, 0), axis=1)
