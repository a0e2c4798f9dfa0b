"""One step of an optimiser, whatever the model: parts of a batch, ranks, gradient clipping, refusals.

A batch is cut into parts (micro-batches, ranks), and an operation on a part divides by what the part holds.
Times the part's share of the whole, the parts sum to the loss of the whole batch, and so do their gradients:
clause `contract.partition`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm


class NotFinite(ArithmeticError):
    """A loss or a gradient is NaN or infinite: no step is taken, and the parameters are what they were."""


@dataclass(frozen=True)
class Counts:
    """What the mean over a batch divides by: scalars, on the device of the batch."""

    tokens: Tensor
    """Active tokens."""
    rows: Tensor
    """Rows, with and without an active token."""
    active_rows: Tensor
    """Rows with an active token."""

    @classmethod
    def of(cls, mask: Tensor) -> "Counts":
        """Count a batch by its mask (B, T)."""
        rows = torch.as_tensor(mask.shape[0], device=mask.device)
        return cls(mask.sum(), rows, mask.any(1).sum())

    def share(self, whole: "Counts", aggregation: str, empty_rows: str = "count") -> Tensor:
        """The part of the whole that this is, in float64, for an aggregation of `torch_impl.policy_loss`.

        Zero where the whole has nothing to divide by. `seq-mean-token-sum-norm` wants its horizon given,
        since parts may be padded to different lengths.
        """
        if aggregation == "token-mean":
            mine, all_ = self.tokens, whole.tokens
        elif empty_rows == "count" or aggregation == "seq-mean-token-sum-norm":
            mine, all_ = self.rows, whole.rows
        else:
            mine, all_ = self.active_rows, whole.active_rows
        return mine.double() / all_.clamp(min=1)


def clip_gradients(gradients: Iterable[Tensor], max_norm: float, clip_eps: float = 1e-6) -> Tensor:
    """Scale gradients in place by min(1, max_norm / (norm + clip_eps)), and return their norm before.

    Clause: `train.tabular-step-clipping`.
    """
    found = list(gradients)
    norm = get_total_norm(found)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    factor = (max_norm / (norm + clip_eps)).clamp(max=1.0)
    torch._foreach_mul_(found, factor)
    return norm


def update(
    optimizer: torch.optim.Optimizer,
    losses: Iterable[Callable[[], Tensor]],
    *,
    max_grad_norm: float | None = None,
    clip_eps: float = 1e-6,
    summed: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Take one step down the sum of some losses, each of which is a part of the batch times its share.

    The parts are differentiated one by one, so that the graph of one is in memory at a time. Returns the norm
    of the whole gradient before it was clipped. `summed` adds a loss up over processes. Raises NotFinite, in
    all of them and with nothing changed, where a loss or the gradient is not finite.
    """
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros(())
    for loss in losses:
        part = loss()
        torch.autograd.backward(part)
        total = total.to(part.device) + part.detach()
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = clip_gradients(gradients, math.inf if max_grad_norm is None else max_grad_norm, clip_eps)
    for name, x in (("gradient's norm", norm), ("loss", summed(total))):
        if not torch.isfinite(x):
            optimizer.zero_grad(set_to_none=True)
            raise NotFinite(f"the {name} is {float(x)}: no step was taken")
    optimizer.step()
    return norm
