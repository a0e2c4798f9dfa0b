"""The numbers that observations are made of: dense and the same every time, and masks of a few kinds."""

from typing import Any

import numpy as np

FULL = np.ones((3, 5), dtype=bool)
PADDED = np.arange(5) < np.array([[5], [3], [2]])
HOLES = np.array(
    [[True, False, True, True, True], [True, True, False, False, True], [False, True, True, True, False]]
)
EMPTY_ROW = np.array([[True, True, True, False, False], [False] * 5, [True, True, False, False, False]])
NOTHING = np.zeros((3, 5), dtype=bool)
"""Masks of three rows and five tokens."""


def dense(seed: int, *shape: int, scale: float = 1.0, offset: float = 0.0) -> Any:
    """Normal numbers."""
    return offset + scale * np.random.default_rng(seed).standard_normal(shape)


def logprobs(seed: int, *shape: int) -> Any:
    """Log-probabilities."""
    return -0.1 - np.abs(dense(seed, *shape))


def beside(values: Any, seed: int, scale: float = 0.3) -> Any:
    """Log-probabilities that are so far from others, on both sides."""
    return values - dense(seed, *values.shape, scale=scale)


def rows_apart(values: Any, seed: int, scale: float = 0.3) -> Any:
    """Log-probabilities that are so far from others, and each row a bit farther than its tokens."""
    return beside(values, seed, scale) - np.array([[0.3], [-0.3], [0.1]])


def rows_far(values: Any) -> Any:
    """Log-probabilities from which two rows are 15 and 25 nats away, and a third is not."""
    return values - np.array([[15.0], [25.0], [0.1]])


def far(values: Any, *log_ratios: float) -> Any:
    """Log-probabilities from which others differ by these log-ratios, from the front and again."""
    return values - np.resize(np.array(log_ratios), values.shape)
