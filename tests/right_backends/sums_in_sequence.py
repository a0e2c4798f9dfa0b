"""A right backend in PyTorch: every sum from the first token to the last, in the dtype that comes in."""

import torch

from tests.right_backends.sums import in_sequence, summing
from tests.right_backends.torch_operations import OPERATIONS

array_library = "torch"

globals().update({name: summing(in_sequence, operation) for name, operation in OPERATIONS.items()})
name = f"sums in sequence (torch {torch.__version__})"
