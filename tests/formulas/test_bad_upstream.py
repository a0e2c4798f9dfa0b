"""The gradient of the reference refuses an upstream of another shape than the result, or of no numbers."""

import numpy as np
import pytest
from hypothesis import Phase, find, settings

from conformance.callables import bind
from conformance.operations import OPERATIONS
from conformance.protocol import Operation
from tests.formulas.drawing import calls

FIRST = settings(max_examples=100, derandomize=True, phases=[Phase.generate], deadline=None)

DIFFERENTIABLE = {name: operation for name, operation in OPERATIONS.items() if operation.gradient}


@pytest.mark.parametrize("operation", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_upstream(operation: Operation) -> None:
    call = find(calls(operation.name), lambda call: call.upstream.size > 0, settings=FIRST)
    arguments = bind(operation.name, tuple(call.case.arguments.values()))
    assert operation.gradient is not None
    operation.gradient(call.upstream, *arguments, **call.case.options)
    shape = call.upstream.shape
    longer = (*shape[:-1], shape[-1] + 1) if shape else (2,)
    wrong = [np.ones((*shape, 1)), np.ones(longer), "upstream", None]
    for upstream in wrong:
        with pytest.raises(ValueError, match=r"^upstream must "):
            operation.gradient(upstream, *arguments, **call.case.options)
