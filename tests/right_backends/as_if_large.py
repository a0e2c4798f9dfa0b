"""A right backend: `torch_impl` on the paths of large inputs, in blocks and chunks of a few numbers."""

from conformance.adapters import torch_impl as adapter
from tests.right_backends.settings import Settings, under
from torch_impl import one_pass, precision, rows, softmax

array_library = "torch"
name = "torch_impl, as if inputs were large"

FEW: Settings = {
    rows: {"BLOCK": 4, "CHUNK": 10},
    one_pass: {"CHUNK": {"cpu": 10}},
    softmax: {"CHUNK": {"cpu": 10}},
    precision: {"MANY": 0},
}

globals().update({operation: under(FEW, getattr(adapter, operation)) for operation in adapter.__all__})
