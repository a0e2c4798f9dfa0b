"""A right backend in PyTorch: the reward model's loss and shaped rewards, in the dtype that comes in."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

array_library = "torch"
name = f"torch reward (torch {torch.__version__})"


def reward_model_loss(chosen: Tensor, rejected: Tensor, *, margin: float = 0.0) -> Tensor:
    losses = -logsigmoid(chosen - rejected - margin)
    return losses.mean() if len(losses) else losses.sum()


def shaped_rewards(
    scores: Tensor,
    logprobs: Tensor,
    ref_logprobs: Tensor,
    mask: Tensor,
    *,
    kl_coef: float,
    estimator: str = "k1",
) -> Tensor:
    log_ratio = torch.where(mask, logprobs - ref_logprobs, 0)
    rewards = -kl_coef * _estimate(log_ratio, estimator)
    for row, active in enumerate(mask):
        positions = active.nonzero().flatten().tolist()
        if positions:
            rewards[row, positions[-1]] += scores[row]
    return rewards.detach()


def _estimate(log_ratio: Tensor, estimator: str) -> Tensor:
    match estimator:
        case "k1":
            return log_ratio
        case "k2":
            return log_ratio.square() / 2
        case "k3":
            return (-log_ratio).exp() - 1 + log_ratio
        case _:
            return log_ratio.abs()
