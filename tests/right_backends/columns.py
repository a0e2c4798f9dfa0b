"""A right backend in NumPy: from right to left over the columns of a batch, carrying what comes next.

The wrong backends are edits of this text, made in the one function that they are about.
"""

import numpy as np

array_library = "numpy"
name = "columns"


def td_errors(
    rewards: np.ndarray, values: np.ndarray, mask: np.ndarray, bootstrap_value: np.ndarray, *, gamma: float
) -> np.ndarray:
    errors = np.zeros_like(rewards)
    next_value = bootstrap_value
    for t in reversed(range(mask.shape[1])):
        active = mask[:, t]
        error = rewards[:, t] + gamma * next_value - values[:, t]
        errors[:, t] = np.where(active, error, 0)
        next_value = np.where(active, values[:, t], next_value)
    return errors


def n_step_advantages(
    rewards: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray,
    bootstrap_value: np.ndarray,
    *,
    gamma: float,
    n: int,
) -> np.ndarray:
    returns = values
    for _ in range(n):
        longer = np.zeros_like(rewards)
        following = bootstrap_value
        for t in reversed(range(mask.shape[1])):
            active = mask[:, t]
            longer[:, t] = np.where(active, rewards[:, t] + gamma * following, 0)
            following = np.where(active, returns[:, t], following)
        returns = longer
    return np.where(mask, returns - values, 0)


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
    advantages = np.zeros_like(rewards)
    step = np.zeros_like(mask[:, 0])
    next_value, next_advantage = bootstrap_value, np.zeros_like(bootstrap_value)
    for t in reversed(range(mask.shape[1])):
        active = mask[:, t]
        reward, value = np.where(active, rewards[:, t], 0), np.where(active, values[:, t], 0)
        step = active | step if masked == "zero" else active
        advantage = reward + gamma * next_value - value + gamma * lam * next_advantage
        advantages[:, t] = np.where(active, advantage, 0)
        next_value = np.where(step, value, next_value)
        next_advantage = np.where(step, advantage, next_advantage)
    return advantages


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
    returns = np.zeros_like(rewards)
    step = np.zeros_like(mask[:, 0])
    next_value = next_return = bootstrap_value
    for t in reversed(range(mask.shape[1])):
        active = mask[:, t]
        reward, value = np.where(active, rewards[:, t], 0), np.where(active, values[:, t], 0)
        step = active | step if masked == "zero" else active
        lambda_return = reward + gamma * ((1 - lam) * next_value + lam * next_return)
        returns[:, t] = np.where(active, lambda_return, 0)
        next_value = np.where(step, value, next_value)
        next_return = np.where(step, lambda_return, next_return)
    return returns


def discounted_returns(
    rewards: np.ndarray, mask: np.ndarray, bootstrap_value: np.ndarray, *, gamma: float
) -> np.ndarray:
    returns = np.zeros_like(rewards)
    following = bootstrap_value
    for t in reversed(range(mask.shape[1])):
        active = mask[:, t]
        following = np.where(active, rewards[:, t] + gamma * following, following)
        returns[:, t] = np.where(active, following, 0)
    return returns


def whiten(
    x: np.ndarray, mask: np.ndarray, *, shift_mean: bool = True, ddof: int = 1, eps: float = 1e-8
) -> np.ndarray:
    chosen = x[mask]
    result = np.zeros_like(x)
    if chosen.size <= ddof:
        return result
    mean = chosen.sum() / chosen.size
    centred = chosen - mean
    variance = (centred * centred).sum() / (chosen.size - ddof)
    whitened = centred / np.sqrt(variance + eps)
    result[mask] = whitened if shift_mean else whitened + mean
    return result
