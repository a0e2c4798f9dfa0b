"""A right backend in PyTorch: a wider dtype inside, one rounding at the end, autograd through the casts.

Half precision is computed in float32, float32 in float64. A function among the arguments (a product with a
matrix, say) stays in the dtype that comes in.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from tests.right_backends.torch_operations import OPERATIONS

array_library = "torch"

WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: torch.float64}


def _widened(operation: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(operation)
    def widened(*arguments: Any, **options: Any) -> Any:
        dtypes = [x.dtype for x in arguments if isinstance(x, Tensor) and x.is_floating_point()]
        if not dtypes:
            return operation(*arguments, **options)
        narrow, wide = dtypes[0], WIDER[dtypes[0]]
        return _cast(operation(*(_cast(x, wide, narrow) for x in arguments), **options), narrow, wide)

    return widened


def _cast(x: Any, to: torch.dtype, back: torch.dtype) -> Any:
    """The numbers of x in a dtype; of a function, its results, from arguments that are cast back."""
    if isinstance(x, Tensor):
        return x.to(to) if x.is_floating_point() else x
    if isinstance(x, dict):
        return {key: _cast(value, to, back) for key, value in x.items()}
    if isinstance(x, tuple):
        return tuple(_cast(value, to, back) for value in x)
    return (lambda point: _cast(x(_cast(point, back, to)), to, back)) if callable(x) else x


globals().update({name: _widened(operation) for name, operation in OPERATIONS.items()})
