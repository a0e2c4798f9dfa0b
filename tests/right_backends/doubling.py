"""A right backend in NumPy: sums over 1, 2, 4 ... tokens, by doubling, as a parallel scan has them."""

import numpy as np

from tests.right_backends import columns

array_library = "numpy"
name = "doubling"


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
    errors = columns.td_errors(rewards, values, steps, bootstrap_value, gamma=gamma)
    return np.where(mask, _discounted(errors, steps, gamma * lam), 0)


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
    with_last = np.concatenate([np.where(mask, rewards, 0), bootstrap_value[:, None]], axis=1)
    return _discounted(with_last, np.pad(mask, ((0, 0), (0, 1)), constant_values=True), gamma)[:, :-1]


def _discounted(x: np.ndarray, mask: np.ndarray, discount: float) -> np.ndarray:
    """Sums of the active x of a row from each token on, each further one discounted once more."""
    order = np.argsort(~mask, axis=1, kind="stable")
    sums = np.take_along_axis(np.where(mask, x, 0), order, axis=1)
    reach = 1
    while reach < mask.shape[1]:
        behind = np.zeros_like(sums)
        behind[:, :-reach] = sums[:, reach:]
        sums = sums + discount**reach * behind
        reach *= 2
    return np.take_along_axis(sums, np.maximum(np.cumsum(mask, axis=1) - 1, 0), axis=1)
