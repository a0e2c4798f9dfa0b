"""A right backend: `torch_impl` as it is where masks are not read, every row closed up by its positions."""

from functools import partial

from tests.right_backends.settings import under
from torch_impl import gae as implementation
from torch_impl import rows

array_library = "torch"
name = "torch_impl, rows always closed"

_closed = partial(under, {rows: {"_layout": lambda mask: (False, False)}})

td_errors = _closed(implementation.td_errors)
n_step_advantages = _closed(implementation.n_step_advantages)
gae = _closed(implementation.gae)
lambda_returns = _closed(implementation.lambda_returns)
discounted_returns = _closed(implementation.discounted_returns)
