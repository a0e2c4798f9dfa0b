"""A right backend of the Triton kernels, on the CPU by Triton's interpreter, in tiles of a few tokens."""

import os

# It is read where kernels are defined.
os.environ["TRITON_INTERPRET"] = "1"

from functools import partial

import triton

from torch_impl.kernels import gae as kernels

array_library = "torch"
name = f"Triton interpreted (triton {triton.__version__})"
kernels.COLUMNS, kernels.BYTES = 8, 128

gae = partial(kernels.lambda_returns, masked="skip", advantages=True)
discounted_returns = kernels.discounted_returns
lambda_returns = partial(kernels.lambda_returns, masked="skip", advantages=False)
