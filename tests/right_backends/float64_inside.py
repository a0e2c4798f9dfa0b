"""A right backend in NumPy: float64 inside, whatever comes in, and one rounding at the end."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.right_backends import columns

array_library = "numpy"
name = "float64 inside"


def _widened(operation: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def widened(*arrays: np.ndarray, **options: Any) -> np.ndarray:
        wide = (x if x.dtype == bool else x.astype(np.float64) for x in arrays)
        return operation(*wide, **options).astype(arrays[0].dtype)

    return widened


td_errors = _widened(columns.td_errors)
n_step_advantages = _widened(columns.n_step_advantages)
gae = _widened(columns.gae)
lambda_returns = _widened(columns.lambda_returns)
discounted_returns = _widened(columns.discounted_returns)
whiten = _widened(columns.whiten)
