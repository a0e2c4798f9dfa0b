"""A right backend in NumPy scalars: each row's active tokens as a list, a plain loop, results put back."""

from collections.abc import Callable

import numpy as np

array_library = "numpy"
name = "token lists"

Row = list[np.floating]
"""The active tokens of one row, as scalars of the dtype: every operation rounds."""


def td_errors(
    rewards: np.ndarray, values: np.ndarray, mask: np.ndarray, bootstrap_value: np.ndarray, *, gamma: float
) -> np.ndarray:
    def of_row(row: list[Row], last: np.floating) -> Row:
        (r, v), following = row, [*row[1][1:], last]
        return [r[t] + gamma * following[t] - v[t] for t in range(len(r))]

    return _row_by_row(of_row, [rewards, values], mask, bootstrap_value)


def n_step_advantages(
    rewards: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray,
    bootstrap_value: np.ndarray,
    *,
    gamma: float,
    n: int,
) -> np.ndarray:
    def of_row(row: list[Row], last: np.floating) -> Row:
        (r, v), states = row, [*row[1], last]
        result = []
        for t in range(len(r)):
            end = min(t + n, len(r))
            advantage = -v[t]
            for k in range(t, end):
                advantage = advantage + gamma ** (k - t) * r[k]
            result.append(advantage + gamma ** (end - t) * states[end])
        return result

    return _row_by_row(of_row, [rewards, values], mask, bootstrap_value)


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
    def of_row(row: list[Row], last: np.floating) -> Row:
        (r, v), following = row, [*row[1][1:], last]
        result: Row = []
        for t in reversed(range(len(r))):
            error = r[t] + gamma * following[t] - v[t]
            result.insert(0, error + gamma * lam * result[0] if result else error)
        return result

    if masked == "zero":
        rewards, values = np.where(mask, rewards, 0), np.where(mask, values, 0)
        mask = np.array([[row[t:].any() for t in range(row.size)] for row in mask])
    return _row_by_row(of_row, [rewards, values], mask, bootstrap_value)


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
    return np.where(mask, advantages + values, 0)


def discounted_returns(
    rewards: np.ndarray, mask: np.ndarray, bootstrap_value: np.ndarray, *, gamma: float
) -> np.ndarray:
    def of_row(row: list[Row], last: np.floating) -> Row:
        result = []
        for reward in reversed(row[0]):
            last = reward + gamma * last
            result.append(last)
        return result[::-1]

    return _row_by_row(of_row, [rewards], mask, bootstrap_value)


def whiten(
    x: np.ndarray, mask: np.ndarray, *, shift_mean: bool = True, ddof: int = 1, eps: float = 1e-8
) -> np.ndarray:
    tokens: Row = list(x[mask])
    result = np.zeros_like(x)
    if len(tokens) > ddof:
        mean = _total(tokens) / len(tokens)
        variance = _total([(token - mean) ** 2 for token in tokens]) / (len(tokens) - ddof)
        shift = 0.0 if shift_mean else mean
        result[mask] = [(token - mean) / np.sqrt(variance + eps) + shift for token in tokens]
    return result


def _row_by_row(
    of_row: Callable[[list[Row], np.floating], Row],
    arrays: list[np.ndarray],
    mask: np.ndarray,
    bootstrap_value: np.ndarray,
) -> np.ndarray:
    """Give a function the active tokens of each row, and put back what it returns."""
    result = np.zeros_like(arrays[0])
    for b, active in enumerate(mask):
        result[b, active] = of_row([list(x[b, active]) for x in arrays], bootstrap_value[b])
    return result


def _total(tokens: Row) -> np.floating:
    """The sum from left to right."""
    result = 0 * tokens[0]
    for token in tokens:
        result = result + token
    return result
