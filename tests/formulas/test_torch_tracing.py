"""`torch_impl` on tensors without numbers: nothing waits for a device, and what is compiled is one graph."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.adapters import torch_impl
from conformance.callables import BINDINGS
from conformance.cases import ordinary
from conformance.operations import OPERATIONS
from tests.formulas.recording import Recorder

OF_TENSORS = [name for name, operation in OPERATIONS.items() if operation.arguments and name not in BINDINGS]


def call(name: str, device: str) -> tuple[Callable[..., Any], list[Any], list[Tensor]]:
    """An ordinary call: the operation with its options, its arguments, and those that have a gradient."""
    case = ordinary(name, "float32", {})
    given = [None if x is None else torch.from_numpy(x) for x in case.arguments.values()]
    floats = [x is not None and x.is_floating_point() for x in given]
    found: list[Any] = [x.float() if real else x for x, real in zip(given, floats, strict=True)]  # type: ignore[union-attr]
    found = [None if x is None else x.to(device) for x in found]
    names = list(case.arguments)
    leaves = [found[names.index(one)].requires_grad_() for one in OPERATIONS[name].differentiable]
    operation = getattr(torch_impl, name)
    return lambda *arrays: operation(*arrays, **case.options), found, leaves


def answers(operation: Callable[..., Any], arguments: list[Any], leaves: list[Tensor]) -> list[Tensor]:
    """The results, and the gradients of their sum."""
    found = operation(*arguments)
    results = list(found.values()) if isinstance(found, dict) else [found]
    return [*results, *torch.autograd.grad(found.sum(), leaves)] if leaves else results


@pytest.mark.parametrize("name", OF_TENSORS)
def test_nothing_waits_for_a_device(name: str) -> None:
    """On the meta device there is nothing to read; a kernel that asks for a number would wait elsewhere."""
    with Recorder() as recorder:
        found = answers(*call(name, "meta"))
    assert all(x.device.type == "meta" for x in found)
    assert recorder.kernels
    assert not recorder.waiting


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
@pytest.mark.parametrize("name", OF_TENSORS)
def test_it_is_one_graph(name: str) -> None:
    """With forward and backward traced, and no break in the graph."""
    torch.compiler.reset()
    operation, arguments, leaves = call(name, "cpu")
    compiled = torch.compile(operation, backend="aot_eager", fullgraph=True)
    expected = answers(operation, arguments, leaves)
    for one, other in zip(answers(compiled, arguments, leaves), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)
