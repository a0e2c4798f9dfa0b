"""Triton kernels: what runs on a GPU in place of PyTorch's own operations, with the same meaning.

They take arrays that live on a CUDA device, where Triton is installed, as it is with PyTorch's builds for
CUDA, and where nothing is traced or compiled: that sees through PyTorch's operations, not through a kernel.
"""

from importlib.util import find_spec

import torch
from torch import Tensor

TRITON = find_spec("triton") is not None


def serve(x: Tensor) -> bool:
    """Whether a kernel takes what is done with x."""
    return TRITON and x.device.type == "cuda" and type(x) is Tensor and not torch.compiler.is_compiling()
