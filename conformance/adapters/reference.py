"""The reference as a backend: float64 inside, rounded to the dtype it was given."""

from collections.abc import Callable
from typing import Any

import numpy as np

from reference import gae as chapter

array_library = "numpy"
name = "reference"


def _in_dtype_of_first(function: Callable[..., Any]) -> Callable[..., Any]:
    def operation(*arrays: Any, **options: Any) -> Any:
        return np.asarray(function(*arrays, **options)).astype(arrays[0].dtype)

    return operation


td_errors = _in_dtype_of_first(chapter.td_errors)
n_step_advantages = _in_dtype_of_first(chapter.n_step_advantages)
gae = _in_dtype_of_first(chapter.gae)
lambda_returns = _in_dtype_of_first(chapter.lambda_returns)
discounted_returns = _in_dtype_of_first(chapter.discounted_returns)
whiten = _in_dtype_of_first(chapter.whiten)
