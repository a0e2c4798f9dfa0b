"""A right backend in PyTorch: log-probabilities, entropies and policy losses, in the dtype that comes in.

Numbers are selected by the mask before anything is done with them, and autograd differentiates. The wrong
backends are edits of this text, made in the one operation that they are about.
"""

import torch
from torch import Tensor

array_library = "torch"
name = f"torch policy loss (torch {torch.__version__})"


def token_logprobs(logits: Tensor, tokens: Tensor, *, temperature: float = 1.0) -> Tensor:
    scaled = logits / temperature
    shifted = scaled - scaled.amax(dim=-1, keepdim=True).detach()
    chosen = shifted.gather(-1, tokens[..., None])[..., 0]
    return chosen - shifted.exp().sum(dim=-1).log()


def token_entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    scaled = logits / temperature
    shifted = scaled - scaled.amax(dim=-1, keepdim=True).detach()
    weights = shifted.exp()
    total = weights.sum(dim=-1, keepdim=True)
    p = weights / total
    logs = torch.where(p > 0, shifted - total.log(), 0)
    return -(p * logs).sum(dim=-1)


def aggregate(
    x: Tensor, mask: Tensor, *, mode: str, horizon: float | None = None, empty_rows: str = "count"
) -> Tensor:
    return _aggregate(x, mask, mode, horizon, empty_rows)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    rollout_weights: Tensor | None = None,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    ratio_level: str = "token",
    aggregation: str = "token-mean",
    horizon: float | None = None,
    empty_rows: str = "count",
    log_ratio_clip: float | None = 20.0,
) -> Tensor:
    log_ratio = torch.where(mask, logprobs - old_logprobs.detach(), 0)
    if ratio_level != "token":
        lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
        mean = log_ratio.sum(dim=1, keepdim=True) / lengths
        own = log_ratio - log_ratio.detach()
        log_ratio = mean.expand_as(own) if ratio_level == "sequence" else mean.detach() + own
    if log_ratio_clip is not None:
        log_ratio = log_ratio.clamp(-log_ratio_clip, log_ratio_clip)
    ratio = log_ratio.exp()
    advantages = torch.where(mask, advantages, 0).detach()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    objective = torch.minimum(ratio * advantages, clipped * advantages)
    if dual_clip is not None:
        bounded = torch.maximum(objective, dual_clip * advantages)
        objective = torch.where(advantages < 0, bounded, objective)
    if rollout_weights is not None:
        objective = objective * torch.where(mask, rollout_weights, 0).detach()
    return _aggregate(-objective, mask, aggregation, horizon, empty_rows)


def policy_metrics(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> dict[str, Tensor]:
    log_ratio = (logprobs - old_logprobs)[mask]
    ratio, chosen = log_ratio.exp(), advantages[mask]
    above, below = ratio > 1 + clip_high, ratio < 1 - clip_low
    clipped = (chosen > 0) & above | (chosen < 0) & below
    beyond = torch.zeros_like(above) if dual_clip is None else (chosen < 0) & (ratio > dual_clip)
    count = max(len(ratio), 1)
    means = {"approx_kl": -log_ratio, "clip_fraction": clipped, "dual_clip_fraction": beyond}
    return {key: x.sum(dtype=logprobs.dtype) / count for key, x in means.items()}


def kl_penalty_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    kl: Tensor,
    mask: Tensor,
    *,
    kl_coef: float,
    aggregation: str,
) -> Tensor:
    log_ratio = torch.where(mask, logprobs - old_logprobs.detach(), 0)
    gain = log_ratio.exp() * torch.where(mask, advantages, 0).detach()
    penalty = kl_coef * torch.where(mask, kl, 0)
    return _aggregate(penalty - gain, mask, aggregation, None, "count")


def _aggregate(x: Tensor, mask: Tensor, mode: str, horizon: float | None, empty_rows: str) -> Tensor:
    chosen = torch.where(mask, x, 0)
    tokens = mask.sum(dim=1)
    if mode == "token-mean":
        return chosen.sum() / tokens.sum().clamp(min=1)
    rows = chosen.sum(dim=1)
    if mode == "seq-mean-token-mean":
        rows = rows / tokens.clamp(min=1)
    if mode == "seq-mean-token-sum-norm":
        rows = rows / (mask.shape[1] if horizon is None else horizon)
    counted = len(mask) if empty_rows == "count" else max(int((tokens > 0).sum()), 1)
    return rows.sum() / counted
