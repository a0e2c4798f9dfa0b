"""Sums of rows whose slopes are found on the way: what comes back where nothing or everything is sent."""

import pytest
import torch
from torch import Tensor

from torch_impl.one_pass import row_sums

MASK = torch.tensor([[True, True], [True, False]])


def exponentials(x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Terms whose slopes overflow where they do."""
    return x.exp(), x.exp()


@pytest.mark.parametrize("upstream", [[0.0, 1.0], [0.0, 0.0], [0.0, -2.0]], ids=str)
@pytest.mark.parametrize("recorded", [False, True])
def test_a_slope_that_has_overflowed_sends_nothing_back_where_nothing_comes(
    upstream: list[float], recorded: bool
) -> None:
    x = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]], requires_grad=True)
    above = torch.tensor(upstream, requires_grad=recorded)
    (slope,) = torch.autograd.grad(row_sums(x, MASK, exponentials), x, above, create_graph=recorded)
    assert torch.equal(slope, torch.tensor([[0.0, 0.0], [upstream[1], 0.0]]))


def test_a_slope_that_has_overflowed_is_infinite_where_something_comes() -> None:
    x = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(row_sums(x, MASK, exponentials), x, torch.tensor([1.0, 3.0]))
    assert torch.equal(slope, torch.tensor([[torch.inf, 1.0], [3.0, 0.0]]))


@pytest.mark.parametrize("shape", [(2, 0), (0, 2), (0, 0)], ids=str)
def test_where_there_is_no_token_the_sums_are_0(shape: tuple[int, int]) -> None:
    x = torch.zeros(shape, requires_grad=True)
    sums = row_sums(x, torch.ones(shape, dtype=torch.bool), exponentials)
    assert torch.equal(sums, torch.zeros(shape[0]))
    assert torch.autograd.grad(sums.sum(), x)[0].shape == shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_terms_are_given_half_precision_in_float32(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.5, -1.0], [2.0, 0.0]], dtype=dtype)
    assert torch.equal(row_sums(x, MASK, exponentials), row_sums(x.float(), MASK, exponentials))
