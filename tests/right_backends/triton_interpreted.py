"""A right backend of the Triton kernels, on the CPU by Triton's interpreter, in tiles of a few tokens."""

import os

# It is read where kernels are defined.
os.environ["TRITON_INTERPRET"] = "1"

import triton
from torch import Tensor

from torch_impl.kernels import gae as kernels

array_library = "torch"
name = f"Triton interpreted (triton {triton.__version__})"
kernels.TILE = 8


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    *,
    gamma: float,
    lam: float,
    masked: str = "skip",
) -> Tensor:
    given = rewards, values, mask, bootstrap_value
    return kernels.lambda_returns(*given, gamma=gamma, lam=lam, masked=masked, advantages=True)


def lambda_returns(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    *,
    gamma: float,
    lam: float,
    masked: str = "skip",
) -> Tensor:
    given = rewards, values, mask, bootstrap_value
    return kernels.lambda_returns(*given, gamma=gamma, lam=lam, masked=masked, advantages=False)
