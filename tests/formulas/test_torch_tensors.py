"""In a narrow dtype `torch_impl` computes in a wide one and rounds once; it stays on its inputs' device."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from conformance.adapters import torch_impl
from conformance.callables import BINDINGS
from conformance.operations import OPERATIONS
from conformance.protocol import Operation
from tests.examples import examples
from tests.formulas.drawing import Call, calls

OF_TENSORS = {
    name: operation
    for name, operation in OPERATIONS.items()
    if operation.arguments and name not in BINDINGS  # a function is given vectors of the narrow dtype
}


def tensor(x: Any, dtype: torch.dtype) -> Any:
    """An array as a tensor, one of floats in this dtype."""
    if x is None:
        return None
    found = torch.from_numpy(np.array(x))
    return found.to(dtype) if found.is_floating_point() else found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("operation", OF_TENSORS.values(), ids=OF_TENSORS)
def test_it_is_rounded_once(operation: Operation, dtype: torch.dtype) -> None:
    @examples(60)
    @given(calls(operation.name))
    def on(call: Call) -> None:
        narrow = [tensor(x, dtype) for x in call.case.arguments.values()]
        wide = [x.float() if x is not None and x.is_floating_point() else x for x in narrow]
        upstream = tensor(call.upstream, dtype)
        got, expected = (answers(operation, call, rows, upstream) for rows in (narrow, wide))
        for one, other in zip(got, expected, strict=True):
            assert one.dtype == dtype
            assert torch.equal(one.nan_to_num(), other.to(dtype).nan_to_num())

    on()


UPDATES = ("train_step",)
"""Steps of `torch.optim`, which makes its own state, reads a norm, and is not traced."""
OF_NUMBERS = {name: operation for name, operation in OF_TENSORS.items() if name not in UPDATES}


@pytest.mark.parametrize("operation", OF_NUMBERS.values(), ids=OF_NUMBERS)
def test_it_stays_on_the_device_of_its_inputs(operation: Operation) -> None:
    """Where tensors are made on another device unless told otherwise."""

    @examples(60)
    @given(calls(operation.name))
    def on(call: Call) -> None:
        rows = [tensor(x, torch.float64) for x in call.case.arguments.values()]
        upstream = tensor(call.upstream, torch.float64)
        expected = answers(operation, call, rows, upstream)
        with torch.device("meta"):
            got = answers(operation, call, rows, upstream)
        for one, other in zip(got, expected, strict=True):
            assert one.device.type == "cpu"
            assert torch.equal(one.nan_to_num(), other.nan_to_num())

    on()


def test_sums_may_pass_the_largest_narrow_number() -> None:
    x, mask = torch.tensor([[6e4, 5e4, 4e4]]), torch.ones(1, 3, dtype=torch.bool)
    narrow = x.to(torch.float16)
    assert torch.equal(torch_impl.whiten(narrow, mask), torch_impl.whiten(narrow.float(), mask).half())


def answers(operation: Operation, call: Call, rows: list[Any], upstream: Any) -> list[torch.Tensor]:
    """The results of a call, and its gradients."""
    names = list(call.case.arguments)
    leaves = [rows[names.index(name)].requires_grad_() for name in operation.differentiable]
    found = getattr(torch_impl, operation.name)(*rows, **call.case.options)
    results = list(found.values()) if isinstance(found, dict) else [found]
    if not leaves:
        return results
    return [*results, *torch.autograd.grad(found, leaves, upstream.to(found.dtype))]
