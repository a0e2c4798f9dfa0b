"""The reference as a backend: float64 inside, rounded to the dtype it was given, with its own gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from conformance.arrays import NumpyArrays
from conformance.operations import OPERATIONS

name = "reference"

_ARRAYS = NumpyArrays()
asarray, to_numpy = _ARRAYS.asarray, _ARRAYS.to_numpy


def _in_its_dtype(function: Callable[..., Any]) -> Callable[..., Any]:
    """Round each result to the dtype of the first floating-point argument."""

    def operation(*arrays: Any, **options: Any) -> Any:
        dtypes = [x.dtype for x in arrays if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
        result = function(*arrays, **options)
        if not dtypes:
            return result
        if isinstance(result, dict):
            return {key: np.asarray(value).astype(dtypes[0]) for key, value in result.items()}
        return np.asarray(result).astype(dtypes[0])

    return operation


def gradient(function: Callable[..., Any], arrays: Sequence[Any], cotangent: np.ndarray) -> list[Any]:
    """The reference writes its gradients out and does not differentiate functions."""
    raise NotImplementedError("the reference's gradients are functions of their own, and stand as the oracle")


globals().update({name: _in_its_dtype(operation.reference) for name, operation in OPERATIONS.items()})
name = "reference"
