"""A right backend in PyTorch: KL estimates, the full divergence, coefficients, in the dtype that comes in."""

import torch
from torch import Tensor

array_library = "torch"
name = f"torch kl (torch {torch.__version__})"


def kl_estimate(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    *,
    estimator: str = "k1",
    log_ratio_clip: float | None = None,
    value_clip: float | None = None,
) -> Tensor:
    log_ratio = logprobs - ref_logprobs.detach()
    if log_ratio_clip is not None:
        log_ratio = log_ratio.clamp(-log_ratio_clip, log_ratio_clip)
    estimate = _estimate(log_ratio, estimator)
    if value_clip is None:
        return estimate
    beyond = estimate.abs() > value_clip
    inside = torch.where(beyond, 0, log_ratio)  # before the exponential, whose slope may be infinite
    return torch.where(beyond, estimate.detach().clamp(-value_clip, value_clip), _estimate(inside, estimator))


def kl_divergence(logits: Tensor, ref_logits: Tensor) -> Tensor:
    logprobs, ref_logprobs = logits.log_softmax(-1), ref_logits.detach().log_softmax(-1)
    possible, excluded = logits > -torch.inf, ref_logits == -torch.inf
    log_ratio = torch.where(possible & ~excluded, logprobs - ref_logprobs, 0)
    divergence = (logprobs.exp() * log_ratio).sum(-1)
    return torch.where((possible & excluded).any(-1), torch.inf, divergence)


def adaptive_kl_coef(*, coef: float, kl: float, target: float) -> float:
    if kl < target / 1.5:
        return coef / 2
    if kl > target * 1.5:
        return coef * 2
    return coef


def proportional_kl_coef(*, coef: float, kl: float, target: float, horizon: float, n_steps: float) -> float:
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coef * (1 + error * n_steps / horizon)


def _estimate(log_ratio: Tensor, estimator: str) -> Tensor:
    match estimator:
        case "k1":
            return log_ratio
        case "k2":
            return log_ratio * log_ratio / 2
        case "k3":
            return (-log_ratio).exp() - 1 + log_ratio
        case _:
            return log_ratio.abs()
