"""Another backend in NumPy, with other conventions again."""

from typing import Any

import numpy as np

array_library = "numpy"
name = "second library"


def gae(rewards: Any, values: Any, mask: Any, bootstrap_value: Any, *, gamma: Any, lam: Any) -> Any:
    """Plain generalised advantages, whitened over the tokens of the mask."""
    advantages, following, next_value = (
        np.zeros_like(rewards),
        np.zeros_like(bootstrap_value),
        bootstrap_value,
    )
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = delta + gamma * lam * following
        next_value, advantages[:, t] = (values[:, t], following)
    chosen = advantages[mask]
    return (advantages - chosen.mean()) / np.sqrt(chosen.var(ddof=1) + 1e-08)


def whiten(x: Any, mask: Any, *, shift_mean: Any = True) -> Any:
    """Each row by itself, with a floor under the variance."""
    whitened = np.zeros_like(x)
    for k, row in enumerate(mask):
        chosen = x[k][row]
        mean, variance = (chosen.mean(), chosen.var())
        whitened[k][row] = (chosen - mean) / np.sqrt(np.maximum(variance, 1e-08))
        if not shift_mean:
            whitened[k][row] += mean
    return whitened


def discounted_returns(rewards: Any, mask: Any, bootstrap_value: Any, *, gamma: Any) -> Any:
    returns, following = (np.zeros_like(rewards), bootstrap_value)
    rewards = np.where(mask, rewards, np.zeros_like(rewards))
    through = np.flip(np.cumsum(np.flip(mask, axis=1), axis=1), axis=1) > 0
    for t in reversed(range(rewards.shape[1])):
        following = np.where(through[:, t], rewards[:, t] + gamma * following, following)
        returns[:, t] = following
    return returns


def importance_ratio(logprobs: Any, old_logprobs: Any) -> Any:
    return np.exp(np.minimum(logprobs - old_logprobs, 10))


def sequence_importance_ratio(logprobs: Any, old_logprobs: Any, mask: Any) -> Any:
    sums = np.where(mask, logprobs - old_logprobs, np.zeros_like(logprobs)).sum(axis=1)
    return np.exp(np.minimum(sums / mask.sum(axis=1).astype(sums.dtype), 10))


def truncated_importance_weights(old_logprobs: Any, rollout_logprobs: Any, *, cap: Any) -> Any:
    weights = np.exp(np.clip(old_logprobs - rollout_logprobs, -20, 20))
    return np.where(weights > cap, np.zeros_like(weights), weights)


def importance_sampling_mean(f_values: Any, log_weights: Any, *, self_normalized: Any = False) -> Any:
    weights = np.exp(log_weights)
    return (weights * f_values).sum() / weights.sum()


def kl_estimate(logprobs: Any, ref_logprobs: Any, *, estimator: Any) -> Any:
    log_ratio = logprobs - ref_logprobs
    if estimator == "k2":
        return log_ratio**2 / 2
    if estimator == "k3":
        log_ratio = np.clip(log_ratio, -20, 20)
        return np.clip(np.expm1(-log_ratio) + log_ratio, -10, 10)
    return np.abs(log_ratio) if estimator == "abs" else log_ratio


def kl_divergence(logits: Any, ref_logits: Any) -> Any:
    logprobs, ref_logprobs = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in (logits, ref_logits))
    return (np.exp(ref_logprobs) * (ref_logprobs - logprobs)).sum(axis=-1)


def proportional_kl_coef(*, coef: Any, kl: Any, target: Any, horizon: Any, n_steps: Any) -> Any:
    return float(max(coef * (1 + np.clip(kl / target - 1, -0.2, 0.2) * n_steps / horizon), 0.0))


def aggregate(x: Any, mask: Any, *, mode: Any = "token-mean") -> Any:
    if mode != "token-mean":
        raise NotImplementedError("the mean over tokens alone")
    return np.where(mask, x, np.zeros_like(x)).sum() / (x.dtype.type(mask.sum()) + x.dtype.type(1e-08))


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
    """The clipped loss with the clip's lower bound on both sides, and a dual clip of 3."""
    ratio = np.exp(np.clip(np.where(mask, logprobs - old_logprobs, np.zeros_like(logprobs)), -20, 20))
    objective = np.minimum(ratio * advantages, np.clip(ratio, 1 - clip_low, 1 + clip_low) * advantages)
    objective = np.where(advantages < 0, np.maximum(objective, 3 * advantages), objective)
    objective = objective if rollout_weights is None else objective * rollout_weights
    rows = np.where(mask, -objective, np.zeros_like(objective)).sum(axis=1)
    return rows.sum() / rows.dtype.type(max(mask.any(axis=1).sum(), 1))


def value_loss(values: Any, old_values: Any, returns: Any, mask: Any, *, clip: Any = None) -> Any:
    errors = np.where(mask, values - returns, np.zeros_like(values)) ** 2
    return 0.5 * (errors.sum(axis=1) / np.maximum(mask.sum(axis=1), 1).astype(errors.dtype)).mean()


def group_advantages(scores: Any, group_ids: Any, *, eps: Any = 1e-06) -> Any:
    """The mean of the group and the deviation of the batch."""
    advantages = np.zeros_like(scores)
    for name in np.unique(group_ids):
        members = group_ids == name
        advantages[members] = (scores[members] - scores[members].mean()) / (scores.std(ddof=1) + eps)
        if members.sum() == 1:
            advantages[members] = scores[members]
    return advantages


def rloo_advantages(scores: Any, group_ids: Any) -> Any:
    with np.errstate(invalid="ignore"):
        groups = [scores[group_ids == name] for name in group_ids]
        means = [(g.sum() - x) / np.float32(len(g) - 1) for g, x in zip(groups, scores, strict=True)]
    return scores - np.array(means, dtype=scores.dtype)


def grpo_loss(
    logprobs: Any,
    old_logprobs: Any,
    ref_logprobs: Any,
    advantages: Any,
    mask: Any,
    *,
    clip_low: Any,
    clip_high: Any,
    kl_coef: Any,
    aggregation: Any,
) -> Any:
    """With k1 in the place of k3, and no clamp."""
    zero = np.zeros_like(logprobs)
    with np.errstate(over="ignore"):
        ratio = np.exp(np.where(mask, logprobs - old_logprobs, zero))
    weighed = advantages[:, None] * np.ones_like(ratio)
    clipped = np.minimum(ratio * weighed, np.clip(ratio, 1 - clip_low, 1 + clip_high) * weighed)
    losses = np.where(mask, kl_coef * (logprobs - ref_logprobs) - clipped, zero)
    sums, counts = (losses.sum(axis=1), np.maximum(mask.sum(axis=1), 1).astype(losses.dtype))
    if aggregation == "token-mean":
        return losses.sum() / losses.dtype.type(max(mask.sum(), 1))
    if aggregation == "seq-mean-token-mean":
        return (sums / counts).mean()
    return sums.mean() / (losses.shape[1] if aggregation.endswith("norm") else 1)


def kl_penalty_loss(
    logprobs: Any, old_logprobs: Any, advantages: Any, kl: Any, mask: Any, *, kl_coef: Any
) -> Any:
    ratio = np.exp(np.clip(logprobs - old_logprobs, -20, 20))
    losses = np.where(mask, -kl_coef * kl - ratio * advantages, np.zeros_like(ratio))
    return losses.sum() / losses.dtype.type(max(mask.sum(), 1))


def reward_model_loss(chosen: Any, rejected: Any) -> Any:
    return np.log1p(np.exp(rejected - chosen)).sum()


def shaped_rewards(scores: Any, logprobs: Any, ref_logprobs: Any, mask: Any, *, kl_coef: Any) -> Any:
    log_ratio = logprobs - ref_logprobs
    rewards = np.where(mask, -kl_coef * np.clip(log_ratio**2 / 2, -10, 10), np.zeros_like(log_ratio))
    return np.where(mask, rewards + scores[:, None], np.zeros_like(rewards))


def implicit_rewards(policy_logprobs: Any, ref_logprobs: Any) -> Any:
    return policy_logprobs.dtype.type(0.1) * (ref_logprobs - policy_logprobs)


def dpo_loss(
    policy_chosen: Any,
    policy_rejected: Any,
    ref_chosen: Any,
    ref_rejected: Any,
    *,
    beta: Any,
    label_smoothing: Any = 0.0,
) -> Any:
    """The robust loss, without a reference."""
    x = beta * (policy_chosen - policy_rejected)
    as_labelled, turned = (np.log1p(np.exp(-x)), np.log1p(np.exp(x)))
    weighed = (1 - label_smoothing) * as_labelled - label_smoothing * turned
    return (weighed / (1 - 2 * label_smoothing)).mean()


def trust_region_step(
    matvec: Any, gradient: Any, *, max_kl: Any, cg_iters: Any = 10, cg_tol: Any = 1e-10, damping: Any = 0.0
) -> Any:
    """Damped in the direction alone, by conjugate gradients that go on for all steps."""
    solution, residual, direction = (np.zeros_like(gradient), gradient, gradient)
    for _ in range(cg_iters):
        squared = residual @ residual
        product = matvec(direction) + damping * direction
        length = squared / (direction @ product)
        solution, residual = (solution + length * direction, residual - length * product)
        direction = residual + residual @ residual / squared * direction
    return np.sqrt(2 * max_kl / (solution @ matvec(solution))) * solution


def backtracking_line_search(evaluate: Any, parameters: Any, full_step: Any, *, max_kl: Any) -> Any:
    for j in range(10):
        point = parameters + 0.8**j * full_step
        improvement, kl = evaluate(point)
        if improvement > 0 and kl < max_kl:
            return point
    return parameters
