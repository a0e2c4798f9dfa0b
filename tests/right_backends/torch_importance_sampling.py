"""A right backend in PyTorch: ratios, weights and weighted means, in the dtype that comes in."""

import torch
from torch import Tensor

array_library = "torch"
name = f"torch importance sampling (torch {torch.__version__})"


def importance_ratio(
    logprobs: Tensor, old_logprobs: Tensor, *, log_ratio_clip: float | None = 20.0
) -> Tensor:
    log_ratio = logprobs - old_logprobs.detach()
    if log_ratio_clip is not None:
        log_ratio = log_ratio.clamp(-log_ratio_clip, log_ratio_clip)
    return log_ratio.exp()


def sequence_importance_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    log_ratio = torch.where(mask, logprobs - old_logprobs.detach(), 0)
    count = mask.sum(1).clamp(min=1)
    return (log_ratio.sum(1) / count).exp()


def truncated_importance_weights(
    old_logprobs: Tensor, rollout_logprobs: Tensor, *, cap: float, mode: str = "truncate"
) -> Tensor:
    weights = (old_logprobs - rollout_logprobs).exp()
    above = weights > cap
    return torch.where(above, cap if mode == "truncate" else 0.0, weights).detach()


def importance_sampling_mean(
    f_values: Tensor, log_weights: Tensor, *, self_normalized: bool = False
) -> Tensor:
    if self_normalized:
        weights = (log_weights - log_weights.max()).exp()
        return (weights * f_values).sum() / weights.sum()
    return (log_weights.exp() * f_values).mean()


def effective_sample_size(log_weights: Tensor) -> Tensor:
    weights = (log_weights - log_weights.max()).exp()
    return weights.sum().square() / weights.square().sum()
