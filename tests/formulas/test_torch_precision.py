"""Selecting by bits means what `torch.where` does, however the result is differentiated."""

import pytest
import torch
from torch import Tensor

import torch_impl
from tests.right_backends.settings import holding
from torch_impl import precision, rows

NUMBERS = torch.tensor([[1.0, torch.nan, -0.0], [torch.inf, -2.0, 5e-324]], dtype=torch.float64)
MASK = torch.tensor([[True, False, True], [False, True, True]])
ALWAYS, NEVER = ({precision: {"MANY": many}} for many in (0, 2**60))


def plainly(mask: Tensor, x: Tensor) -> Tensor:
    return torch.where(mask, x, 0.0)


def test_many_numbers_of_which_a_gradient_is_wanted() -> None:
    """Selected by one function with a gradient of its own, and by `where`: equal to the bit."""
    x = torch.randn(2, precision.MANY, requires_grad=True)
    mask = torch.rand(x.shape) < 0.5
    found, expected = precision.select(mask, x), plainly(mask, x)
    assert "_Select" in str(found.grad_fn)
    assert torch.equal(found, expected)
    upstream = torch.randn(x.shape)
    assert torch.equal(*(torch.autograd.grad(one, x, upstream)[0] for one in (found, expected)))
    assert "_Select" not in str(precision.select(mask[:, :5], x[:, :5]).grad_fn)


@pytest.mark.parametrize("settings", [ALWAYS, NEVER], ids=["one function", "where"])
def test_what_is_dropped_does_not_matter(settings: dict) -> None:  # type: ignore[type-arg]
    """Neither to numbers nor to gradients, the upstream's own NaN included."""
    x = NUMBERS.clone().requires_grad_()
    with holding(settings):
        found = precision.select(MASK, x)
        upstream = torch.where(MASK, 3.0, torch.nan)
        (slope,) = torch.autograd.grad(found, x, upstream)
    assert torch.equal(found, plainly(MASK, NUMBERS))
    assert torch.equal(slope, plainly(MASK, upstream))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # forward mode's
@pytest.mark.parametrize("settings", [ALWAYS, NEVER], ids=["one function", "where"])
def test_it_can_be_differentiated_again_and_mapped(settings: dict) -> None:  # type: ignore[type-arg]
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64, requires_grad=True)

    def cubes(x: Tensor) -> Tensor:
        return precision.select(MASK, x).pow(3).sum()

    with holding(settings):
        (slope,) = torch.autograd.grad(cubes(x), x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), x)
        slopes = torch.func.vmap(torch.func.grad(cubes))(torch.stack([x.detach(), 2 * x.detach()]))
        hessian = torch.func.hessian(cubes)(x.detach())
    assert torch.equal(curvature, plainly(MASK, 6 * x.detach()))
    assert torch.equal(slopes[1], plainly(MASK, 12 * x.detach().square()))
    assert torch.equal(hessian.sum(dim=(2, 3)), curvature)


def test_the_rule_of_paths_has_the_numbers_that_are_used() -> None:
    told = torch_impl.__doc__ or ""
    assert f"blocks of {rows.BLOCK} columns" in told
    assert f"from {precision.MANY:,} numbers on" in told


def test_products_have_the_dtype_that_autocast_wants() -> None:
    """It leaves float64 alone, and without it every dtype is its own."""
    numbers = {dtype: torch.zeros((), dtype=dtype) for dtype in (torch.float64, torch.float32, torch.float16)}
    assert [precision.product_dtype(x) for x in numbers.values()] == list(numbers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [precision.product_dtype(x) for x in numbers.values()]
    assert found == [torch.float64, torch.bfloat16, torch.bfloat16]
