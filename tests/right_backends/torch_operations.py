"""The operations of all PyTorch backends here, for the styles that wrap them."""

from collections.abc import Callable
from typing import Any

from conformance import operations
from tests.right_backends import (
    torch_columns,
    torch_group,
    torch_importance_sampling,
    torch_kl,
    torch_policy_loss,
    torch_preference,
    torch_reward,
    torch_trust_region,
    torch_value_loss,
)

MODULES = (
    torch_columns,
    torch_importance_sampling,
    torch_kl,
    torch_policy_loss,
    torch_value_loss,
    torch_reward,
    torch_preference,
    torch_group,
    torch_trust_region,
)

OPERATIONS: dict[str, Callable[..., Any]] = {
    name: function
    for module in MODULES
    for name, function in vars(module).items()
    if name in operations.OPERATIONS
}
