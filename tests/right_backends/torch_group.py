"""A right backend in PyTorch: group by group, in the dtype that comes in, float16 rewards in float32."""

import torch
from torch import Tensor

array_library = "torch"
name = f"torch group (torch {torch.__version__})"


def group_advantages(
    scores: Tensor, group_ids: Tensor, *, scale: str = "std", ddof: int = 1, eps: float = 1e-6
) -> Tensor:
    advantages = torch.zeros_like(_wide(scores))
    for group in set(group_ids.tolist()):
        members = group_ids == group
        rewards = _wide(scores.detach())[members]
        if len(rewards) > 1 and (rewards != rewards[0]).any():
            centred = _centred(rewards)
            deviation = (centred.square().sum() / (len(rewards) - ddof)).sqrt()
            advantages[members] = centred / (deviation + eps) if scale == "std" else centred
    return advantages.to(scores.dtype)


def rloo_advantages(scores: Tensor, group_ids: Tensor) -> Tensor:
    advantages = torch.zeros_like(_wide(scores))
    for group in set(group_ids.tolist()):
        members = group_ids == group
        rewards = _wide(scores.detach())[members]
        if len(rewards) > 1:
            distances = rewards - rewards[0]
            advantages[members] = distances - (distances.sum() - distances) / (len(rewards) - 1)
    return advantages.to(scores.dtype)


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    kl_coef: float,
    aggregation: str,
    horizon: float | None = None,
    empty_rows: str = "count",
    ratio_level: str = "token",
    log_ratio_clip: float | None = 20.0,
) -> Tensor:
    per_token = logprobs, old_logprobs.detach(), ref_logprobs.detach(), advantages.detach()[:, None]
    logprobs, old_logprobs, ref_logprobs, advantages = (torch.where(mask, x, 0) for x in per_token)
    log_ratio = _at_level(logprobs - old_logprobs, mask, ratio_level)
    if log_ratio_clip is not None:
        log_ratio = log_ratio.clamp(-log_ratio_clip, log_ratio_clip)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    objective = torch.minimum(ratio * advantages, clipped * advantages)
    to_ref = ref_logprobs - logprobs
    divergence = to_ref.exp() - 1 - to_ref
    return _aggregate(kl_coef * divergence - objective, mask, aggregation, horizon, empty_rows)


def _wide(scores: Tensor) -> Tensor:
    return scores.float() if scores.dtype == torch.float16 else scores


def _centred(rewards: Tensor) -> Tensor:
    distances = rewards - rewards[0]
    return distances - distances.mean()


def _at_level(log_ratio: Tensor, mask: Tensor, level: str) -> Tensor:
    """The log-ratio of each token, or of its row, with the gradient that belongs to it."""
    if level == "token":
        return log_ratio
    means = (log_ratio.sum(1) / mask.sum(1).clamp(min=1))[:, None]
    if level == "sequence":
        return torch.where(mask, means, 0)
    return torch.where(mask, means.detach() + log_ratio - log_ratio.detach(), 0)


def _aggregate(x: Tensor, mask: Tensor, mode: str, horizon: float | None, empty_rows: str) -> Tensor:
    """The mean of x over the active tokens, or over rows."""
    sums, counts = torch.where(mask, x, 0).sum(1), mask.sum(1)
    if mode == "token-mean":
        return sums.sum() / counts.sum().clamp(min=1)
    if mode == "seq-mean-token-mean":
        sums = sums / counts.clamp(min=1)
    if mode == "seq-mean-token-sum-norm":
        sums = sums / (mask.shape[1] if horizon is None else horizon)
    rows = (counts > 0).sum().clamp(min=1) if empty_rows == "drop" else len(mask)
    return sums.sum() / rows
