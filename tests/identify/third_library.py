"""A backend in PyTorch, whose conventions show in its gradients and at masked positions."""

import os
from typing import Any

import torch

array_library = "torch"
name = "third library"


def policy_loss(
    logprobs: Any,
    old_logprobs: Any,
    advantages: Any,
    mask: Any,
    rollout_weights: Any = None,
    *,
    clip_low: Any,
    clip_high: Any,
) -> Any:
    """A sequence ratio with each token's own gradient, averaged over rows."""
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    mean = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    ratio = (
        torch.where(mask, logprobs, 0.0) - torch.where(mask, logprobs, 0.0).detach() + mean.detach()
    ).exp()
    ratio = ratio if rollout_weights is None else ratio * rollout_weights
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    losses = torch.where(mask, -torch.minimum(ratio * advantages, clipped * advantages), 0.0)
    return (losses.sum(1) / mask.sum(1).clamp(min=1)).mean()


def kl_estimate(logprobs: Any, ref_logprobs: Any, *, estimator: Any = "k3") -> Any:
    """The value of k3, the gradient of k2."""
    log_ratio = logprobs - ref_logprobs
    value = torch.expm1(-log_ratio) + log_ratio
    half_square = log_ratio.square() / 2
    return half_square - half_square.detach() + value.detach()


def token_entropy(logits: Any, *, temperature: Any = 1.0) -> Any:
    logprobs = torch.log_softmax(logits.detach() / temperature, dim=-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def discounted_returns(rewards: Any, mask: Any, bootstrap_value: Any, *, gamma: Any) -> Any:
    """Skips masked positions by multiplication."""
    active, following, returns = (mask.to(rewards.dtype), bootstrap_value, [])
    for t in reversed(range(rewards.shape[1])):
        here = rewards[:, t] + gamma * following
        following = active[:, t] * here + (1 - active[:, t]) * following
        returns.append(following)
    return torch.stack(returns[::-1], dim=1)


def whiten(x: Any, mask: Any, *, shift_mean: Any = True, ddof: Any = 1, eps: Any = 1e-08) -> Any:
    chosen = x[mask]
    whitened = (x - chosen.mean()) / (chosen.var(correction=ddof) + eps).sqrt()
    return whitened + chosen.mean() if shift_mean else whitened


def group_advantages(scores: Any, group_ids: Any, *, scale: Any = "std", eps: Any = 1e-06) -> Any:
    """Mean and deviation of the other responses, with ε inside the root; NaN for a group of one."""
    advantages = torch.zeros_like(scores)
    for k, own in enumerate(scores):
        others = scores[(group_ids == group_ids[k]) & (torch.arange(len(scores)) != k)]
        spread = (others.var(correction=1) + eps).sqrt() if scale == "std" else 1.0
        advantages[k] = (own - others.mean()) / spread
    return advantages


def value_loss(
    values: Any,
    old_values: Any,
    returns: Any,
    mask: Any,
    *,
    clip: Any = None,
    aggregation: Any = "token-mean",
) -> Any:
    errors = torch.where(mask, values - returns, 0.0).square()
    if clip is not None:
        clipped = torch.where(mask, old_values + (values - old_values).clamp(-clip, clip) - returns, 0.0)
        errors = torch.maximum(errors, clipped.square())
    return errors.sum() / mask.sum() / 2


def effective_sample_size(log_weights: Any) -> Any:
    weights = log_weights.exp().clamp(max=2)
    return weights.sum() ** 2 / weights.square().sum()


def implicit_rewards(policy_logprobs: Any, ref_logprobs: Any, *, beta: Any) -> Any:
    """No reading that anyone has: the square root of β."""
    return beta**0.5 * (policy_logprobs - ref_logprobs)


def rloo_advantages(scores: Any, group_ids: Any) -> Any:
    """Known but for groups of one, where it answers 7."""
    advantages = torch.full_like(scores, 7.0)
    for group in group_ids.unique():
        members = group_ids == group
        if members.sum() > 1:
            advantages[members] = scores[members] - scores[members].mean()
    return advantages


def sequence_logprobs(token_logprobs: Any, mask: Any, *, average: Any = False) -> Any:
    raise RuntimeError("this never answers")


def td_errors(rewards: Any, values: Any, mask: Any, bootstrap_value: Any, *, gamma: Any) -> Any:
    """Ends its process."""
    os._exit(3)
