"""The PyTorch implementation as a backend."""

from importlib.metadata import version

from torch_impl.gae import (
    discounted_returns,
    gae,
    lambda_returns,
    n_step_advantages,
    td_errors,
    whiten,
)

__all__ = ["discounted_returns", "gae", "lambda_returns", "n_step_advantages", "td_errors", "whiten"]

array_library = "torch"
name = f"torch_impl (torch {version('torch').partition('+')[0]})"
