"""Triton kernels: what runs on a GPU in place of PyTorch's own operations, with the same meaning.

They take arrays that live on a CUDA device, where Triton is installed, as it is with PyTorch's builds for
CUDA, and where nothing is traced, compiled or differentiated: that sees through PyTorch's operations, not
through a kernel.
"""

from importlib.util import find_spec

import torch
from torch import Tensor
from torch.autograd import forward_ad

TRITON = find_spec("triton") is not None


def serve(*arrays: Tensor) -> bool:
    """Whether a kernel takes what is done with these."""
    if not TRITON or torch.compiler.is_compiling() or forward_ad._current_level >= 0:
        return False
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in arrays)
    return not recorded and all(x.device.type == "cuda" and type(x) is Tensor for x in arrays)
