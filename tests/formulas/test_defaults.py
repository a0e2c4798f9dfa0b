"""An option that is left out means the same in the protocol, in every formula and in `torch_impl`."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from conformance.adapters import torch_impl
from conformance.operations import OPERATIONS
from conformance.protocol import REQUIRED, Operation
from reference import clipping, optimizer


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only options of a function, REQUIRED where there is no default."""
    options = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return {p.name: REQUIRED if p.default is p.empty else p.default for p in options}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_defaults(operation: Operation) -> None:
    gradients = [operation.gradient] if operation.gradient else []
    functions = (operation.reference, *operation.forms, *gradients, getattr(torch_impl, operation.name))
    for function in functions:
        assert defaults(function) == operation.options, function


@pytest.mark.parametrize(
    ("part", "operation"),
    [
        (optimizer.clip_by_norm, "train_step"),
        (optimizer.adam_step, "train_step"),
        (clipping.policy_ratio, "policy_loss"),
        (clipping.policy_ratio_gradient, "policy_loss"),
    ],
)
def test_defaults_of_the_parts_of_an_operation(part: Callable[..., Any], operation: str) -> None:
    own = {name: value for name, value in defaults(part).items() if value is not REQUIRED}
    assert own
    assert own == {name: OPERATIONS[operation].options[name] for name in own}
