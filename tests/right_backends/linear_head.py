"""A right backend in PyTorch: log-probabilities from an output head, whose logits are those that are given.

The hidden state of a position is a unit vector that picks its logits from the head, so that products are
exact and the gradient in the logits comes back through the head. Nothing multiplies -inf.
"""

import torch
from torch import Tensor

from torch_impl.linear import linear_logprobs

array_library = "torch"
name = f"linear head (torch {torch.__version__})"


def token_logprobs(logits: Tensor, tokens: Tensor, *, temperature: float = 1.0) -> Tensor:
    return _both(logits, tokens, temperature)[0]


def token_entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    tokens = torch.zeros(logits.shape[:-1], dtype=torch.int64, device=logits.device)
    return _both(logits, tokens, temperature)[1]


def _both(logits: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    if bool((logits == -torch.inf).any()):
        raise NotImplementedError("a product with -inf is NaN")
    positions = tokens.numel()
    hidden = torch.eye(positions, dtype=logits.dtype, device=logits.device).view(*tokens.shape, positions)
    return linear_logprobs(hidden, logits.flatten(0, 1).T, tokens, temperature=temperature)
