"""A right backend in PyTorch: log-probabilities of responses, the DPO losses, in the dtype that comes in."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

array_library = "torch"
name = f"torch preference (torch {torch.__version__})"


def sequence_logprobs(token_logprobs: Tensor, mask: Tensor, *, average: bool = False) -> Tensor:
    sums = torch.where(mask, token_logprobs, 0).sum(1)
    return sums / mask.sum(1).clamp(min=1) if average else sums


def implicit_rewards(policy_logprobs: Tensor, ref_logprobs: Tensor, *, beta: float) -> Tensor:
    return beta * (policy_logprobs - ref_logprobs.detach())


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    loss_type: str = "sigmoid",
) -> Tensor:
    margin = (policy_chosen - policy_rejected) - (ref_chosen - ref_rejected).detach()
    match loss_type:
        case "hinge":
            losses = (1 - beta * margin).clamp(min=0)
        case "ipo":
            losses = (margin - 1 / (2 * beta)).square()
        case _:
            right, wrong = logsigmoid(beta * margin), logsigmoid(-beta * margin)
            losses = -(1 - label_smoothing) * right - label_smoothing * wrong
    return losses.mean() if len(losses) else losses.sum()
