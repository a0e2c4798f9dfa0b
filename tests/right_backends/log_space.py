"""A right backend in PyTorch: logarithms as long as possible; clips and caps compare logarithms."""

from math import inf, log

import torch
from torch import Tensor

from tests.right_backends.torch_group import _aggregate, _at_level

array_library = "torch"
name = f"log space (torch {torch.__version__})"


def sequence_importance_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    log_ratio = torch.where(mask, logprobs - old_logprobs.detach(), 0)
    return (log_ratio / mask.sum(1, keepdim=True).clamp(min=1)).sum(1).exp()


def truncated_importance_weights(
    old_logprobs: Tensor, rollout_logprobs: Tensor, *, cap: float, mode: str = "truncate"
) -> Tensor:
    log_weights = (old_logprobs - rollout_logprobs).detach()
    if mode == "truncate":
        return log_weights.clamp(max=log(cap)).exp()
    return torch.where(log_weights > log(cap), 0.0, log_weights.exp())


def importance_sampling_mean(
    f_values: Tensor, log_weights: Tensor, *, self_normalized: bool = False
) -> Tensor:
    if not self_normalized:
        return (log_weights.exp() / len(log_weights)) @ f_values
    return (log_weights - log_weights.logsumexp(0)).exp() @ f_values


def effective_sample_size(log_weights: Tensor) -> Tensor:
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()


def kl_divergence(logits: Tensor, ref_logits: Tensor) -> Tensor:
    ref_logits = ref_logits.detach()
    possible, excluded = logits > -torch.inf, ref_logits == -torch.inf
    difference = torch.where(possible & ~excluded, logits - ref_logits, 0)
    total, ref_total = logits.logsumexp(-1), ref_logits.logsumexp(-1)
    divergence = (logits.softmax(-1) * difference).sum(-1) - total + ref_total
    return torch.where((possible & excluded).any(-1), torch.inf, divergence)


def token_logprobs(logits: Tensor, tokens: Tensor, *, temperature: float = 1.0) -> Tensor:
    scaled = logits / temperature
    return scaled.gather(-1, tokens[..., None])[..., 0] - scaled.logsumexp(-1)


def token_entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    scaled = logits / temperature
    scaled = scaled - scaled.detach().amax(-1, keepdim=True)
    probabilities = scaled.softmax(-1)
    # What is no more likely than 0 is so far down that float16 could overflow in the gradient.
    weighted = probabilities * torch.where(probabilities > 0, scaled, 0)
    return scaled.logsumexp(-1) - weighted.sum(-1)


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
    log_ratio = _bounded(_at_level(log_ratio, mask, ratio_level), log_ratio_clip)
    advantages = torch.where(mask, advantages, 0).detach()
    objective = _clipped(log_ratio, advantages, clip_low, clip_high, dual_clip)
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
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0)
    gained, lost = (advantages > 0) & mask, (advantages < 0) & mask
    clipped = gained & (log_ratio > _log(1 + clip_high)) | lost & (log_ratio < _log(1 - clip_low))
    beyond = lost & (log_ratio > (inf if dual_clip is None else log(dual_clip)))
    numbers = {"approx_kl": -log_ratio, "clip_fraction": clipped, "dual_clip_fraction": beyond}
    return {
        key: _aggregate(x.to(logprobs.dtype), mask, "token-mean", None, "count") for key, x in numbers.items()
    }


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
    chosen, rejected = policy_chosen - ref_chosen.detach(), policy_rejected - ref_rejected.detach()
    match loss_type:
        case "hinge":
            losses = (1 - beta * (chosen - rejected)).relu()
        case "ipo":
            losses = (chosen - rejected - 1 / (2 * beta)).square()
        case _:
            losses = (1 - label_smoothing) * _softplus(-beta * (chosen - rejected))
            losses = losses + label_smoothing * _softplus(beta * (chosen - rejected))
    return losses.mean() if len(losses) else losses.sum()


def reward_model_loss(chosen: Tensor, rejected: Tensor, *, margin: float = 0.0) -> Tensor:
    losses = _softplus(margin - (chosen - rejected))
    return losses.mean() if len(losses) else losses.sum()


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
    log_ratio = torch.where(mask, logprobs - old_logprobs.detach(), 0)
    log_ratio = _bounded(_at_level(log_ratio, mask, ratio_level), log_ratio_clip)
    to_ref = torch.where(mask, ref_logprobs.detach() - logprobs, 0)
    objective = _clipped(log_ratio, advantages.detach()[:, None].expand_as(mask), clip_low, clip_high, None)
    loss = _aggregate(-objective, mask, aggregation, horizon, empty_rows)
    penalty = _aggregate(to_ref.expm1() - to_ref, mask, aggregation, horizon, empty_rows)
    return loss + kl_coef * penalty


def _clipped(
    log_ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float, dual_clip: float | None
) -> Tensor:
    """The objective: a bound of the ratio, where the logarithm is beyond the bound's."""
    positive = advantages > 0
    above, below = positive & (log_ratio > _log(1 + clip_high)), ~positive & (log_ratio < _log(1 - clip_low))
    dual = ~positive & (log_ratio > (inf if dual_clip is None else log(dual_clip)))
    ratio = torch.where(above | below | dual, 0, log_ratio).exp()
    for held, bound in ((above, 1 + clip_high), (below, 1 - clip_low), (dual, dual_clip or 0.0)):
        ratio = torch.where(held, bound, ratio)
    return ratio * advantages


def _log(bound: float) -> float:
    """The logarithm of a bound of the ratio, which is never below a bound of 0 or less."""
    return log(bound) if bound > 0 else -inf


def _bounded(log_ratio: Tensor, bound: float | None) -> Tensor:
    return log_ratio if bound is None else log_ratio.clamp(-bound, bound)


def _softplus(x: Tensor) -> Tensor:
    """log(1 + e^x); PyTorch's gradient divides by 1 + e^(-x), which overflows in float16."""
    wide = x.float() if x.dtype == torch.float16 else x
    return torch.logaddexp(torch.zeros_like(wide), wide).to(x.dtype)
