"""`torch_impl` on tensors without numbers: nothing waits for a device, and what is compiled is one graph."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from conformance.adapters import torch_impl
from conformance.callables import BINDINGS
from conformance.cases import ordinary
from conformance.operations import OPERATIONS
from reference.numbers.formats import FORMATS
from tests.formulas.recording import Recorder
from torch_impl.linear import linear_logprobs, linear_objective
from torch_impl.logprobs import token_logprobs_and_entropy

Operation = Callable[..., Any]
ROUNDOFF = FORMATS["float64"].unit_roundoff
UPDATES = ("train_step",)
"""Steps of `torch.optim`, whose norm is looked at on the host before a step is taken: they are not traced."""
OF_TENSORS = [
    name
    for name, operation in OPERATIONS.items()
    if operation.arguments and name not in BINDINGS and name not in UPDATES
]


def call(
    name: str, device: str, dtype: torch.dtype = torch.float32
) -> tuple[Operation, list[Any], list[Tensor]]:
    """An ordinary call: the operation with its options, its arguments, and those that have a gradient."""
    case = ordinary(name, "float32", {})
    given = [None if x is None else torch.from_numpy(x).to(device) for x in case.arguments.values()]
    found: list[Any] = [x.to(dtype) if x is not None and x.is_floating_point() else x for x in given]
    names = list(case.arguments)
    leaves = [found[names.index(one)].requires_grad_() for one in OPERATIONS[name].differentiable]
    operation = getattr(torch_impl, name)
    return lambda *arrays: operation(*arrays, **case.options), found, leaves


def answers(operation: Operation, arguments: list[Any], leaves: list[Tensor]) -> list[Tensor]:
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


def test_output_heads_do_not_wait_either() -> None:
    """What is no operation of its own, because several are computed at once."""

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device="meta", requires_grad=True)

    hidden, weight, logits = random(2, 3, 4), random(7, 4), random(2, 3, 7)
    tokens = torch.zeros(2, 3, dtype=torch.long, device="meta")
    with Recorder() as recorder:
        for leaves, results in (
            ([hidden, weight], linear_logprobs(hidden, weight, tokens, vocabulary=6)),
            ([hidden, weight], (linear_objective(hidden, weight, tokens, lambda x, y, _: (x + y).sum()),)),
            ([logits], token_logprobs_and_entropy(logits, tokens)),
        ):
            torch.autograd.grad([x.sum() for x in results], leaves)
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
        assert torch.equal(one, other)


WRITTEN_BACKWARD = (
    "token_logprobs", "token_entropy", "policy_loss", "kl_penalty_loss", "value_loss", "grpo_loss",
)  # fmt: skip
"""The operations that say that they have no forward mode."""


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)  # forward mode's own
@pytest.mark.parametrize(
    "name", [x for x in OF_TENSORS if not OPERATIONS[x].constant and not OPERATIONS[x].keys]
)
def test_forward_mode_is_backward_mode_or_refuses(name: str) -> None:
    """No tangent is lost on the way: both modes say how the first argument moves the result."""
    operation, [first, *others], _ = call(name, "cpu", torch.float64)
    others = [x.detach() if isinstance(x, Tensor) else x for x in others]
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(first.shape, dtype=first.dtype, generator=generator)
    leaf = first.detach().requires_grad_()
    recorded = operation(leaf, *others)
    upstream = torch.randn(recorded.shape, dtype=first.dtype, generator=generator)
    terms = torch.autograd.grad(recorded, leaf, upstream)[0] * direction
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(first.detach(), direction)  # type: ignore[no-untyped-call]
        if name in WRITTEN_BACKWARD:
            with pytest.raises(NotImplementedError, match="jvp"):
                operation(dual, *others)
            return
        tangent = forward_ad.unpack_dual(operation(dual, *others)).tangent  # type: ignore[no-untyped-call]
    assert tangent is not None
    error = abs((upstream * tangent).sum() - terms.sum())
    assert error <= 100 * ROUNDOFF * terms.abs().sum()  # no operation does more than 100 things to a number


@pytest.mark.parametrize("name", WRITTEN_BACKWARD)
def test_a_gradient_that_is_written_down_is_taken_once(name: str) -> None:
    """A second derivative is refused: what was written down is not recorded."""
    operation, arguments, [leaf, *_] = call(name, "cpu")
    (slope,) = torch.autograd.grad(operation(*arguments).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(slope.sum())
