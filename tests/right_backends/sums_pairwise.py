"""A right backend in PyTorch: every sum half and half, in the dtype that comes in."""

import torch

from tests.right_backends.sums import pairwise, summing
from tests.right_backends.torch_operations import OPERATIONS

array_library = "torch"

globals().update({name: summing(pairwise, operation) for name, operation in OPERATIONS.items()})
name = f"sums pairwise (torch {torch.__version__})"
