"""A backend in NumPy with conventions of its own: it has few options, and no clause's defaults."""

from typing import Any

import numpy as np

array_library = "numpy"
name = "first library"


def _active(x: Any, mask: Any) -> Any:
    return np.where(mask, x, np.zeros_like(x))


def _backward(deltas: Any, discount: Any, start: Any) -> Any:
    sums, following = (np.zeros_like(deltas), start)
    for t in reversed(range(deltas.shape[1])):
        following = deltas[:, t] + discount * following
        sums[:, t] = following
    return sums


def td_errors(rewards: Any, values: Any, mask: Any, bootstrap_value: Any, *, gamma: Any) -> Any:
    following = np.append(values[:, 1:], bootstrap_value[:, None], axis=1)
    return rewards + gamma * following - values


def gae(rewards: Any, values: Any, mask: Any, bootstrap_value: Any, *, gamma: Any, lam: Any) -> Any:
    rewards, values = (_active(rewards, mask), _active(values, mask))
    following = np.append(values[:, 1:], np.zeros_like(values[:, :1]), axis=1)
    deltas = rewards + gamma * following - values
    return _active(_backward(deltas, gamma * lam, np.zeros_like(bootstrap_value)), mask)


def lambda_returns(rewards: Any, values: Any, mask: Any, bootstrap_value: Any, *, gamma: Any) -> Any:
    return gae(rewards, values, mask, bootstrap_value, gamma=gamma, lam=0.95) + _active(values, mask)


def discounted_returns(rewards: Any, mask: Any, bootstrap_value: Any, *, gamma: Any) -> Any:
    returns, following = (np.zeros_like(rewards), np.zeros_like(bootstrap_value))
    for t in reversed(range(rewards.shape[1])):
        following = _active(rewards[:, t] + gamma * following, mask[:, t])
        returns[:, t] = following
    return returns


def whiten(x: Any, mask: Any, *, ddof: Any = 1) -> Any:
    chosen = x[mask]
    return (x - chosen.mean()) / (chosen.std() + 1e-05)


def importance_ratio(logprobs: Any, old_logprobs: Any) -> Any:
    return np.exp(logprobs - old_logprobs)


def sequence_importance_ratio(logprobs: Any, old_logprobs: Any, mask: Any) -> Any:
    return np.exp(_active(logprobs - old_logprobs, mask).sum(axis=1))


def truncated_importance_weights(old_logprobs: Any, rollout_logprobs: Any, *, cap: Any) -> Any:
    with np.errstate(over="ignore"):
        weights = np.exp(old_logprobs - rollout_logprobs)
    return np.minimum(np.nan_to_num(weights, posinf=0.0), cap)


def effective_sample_size(log_weights: Any) -> Any:
    weights = np.exp(log_weights)
    return weights.sum() ** 2 / (weights**2).sum() / len(weights)


def kl_estimate(logprobs: Any, ref_logprobs: Any) -> Any:
    log_ratio = np.clip(ref_logprobs - logprobs, -20, 20)
    return np.clip(np.expm1(log_ratio) - log_ratio, -10, 10)


def adaptive_kl_coef(*, coef: Any, kl: Any, target: Any) -> Any:
    if kl > 2 * target:
        return coef * 1.5
    return coef / 1.5 if kl < target / 2 else coef


def proportional_kl_coef(*, coef: Any, kl: Any, target: Any, horizon: Any, n_steps: Any) -> Any:
    return coef * (1 + (kl / target - 1) * n_steps / horizon)


def token_logprobs(logits: Any, tokens: Any, *, temperature: Any = 1.0) -> Any:
    scaled = logits * temperature
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(scaled, tokens[..., None], axis=-1)[..., 0]
    return chosen - np.log(np.exp(scaled).sum(axis=-1))


def token_entropy(logits: Any) -> Any:
    with np.errstate(invalid="ignore"):
        logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        return -(np.exp(logprobs) * logprobs).sum(axis=-1)


def aggregate(x: Any, mask: Any, *, mode: Any) -> Any:
    sums, counts = (_active(x, mask).sum(axis=1), mask.sum(axis=1).astype(x.dtype))
    with np.errstate(invalid="ignore"):
        if mode == "token-mean":
            return sums.sum() / counts.sum()
        rows = np.where(counts > 0, sums / np.maximum(counts, 1), sums) if "token-mean" in mode else sums
        return rows.sum() / (counts > 0).sum().astype(x.dtype) / (x.shape[1] if mode.endswith("norm") else 1)


def policy_loss(
    logprobs: Any,
    old_logprobs: Any,
    advantages: Any,
    mask: Any,
    rollout_weights: Any = None,
    *,
    clip_low: Any,
    clip_high: Any,
    dual_clip: Any = None,
) -> Any:
    with np.errstate(over="ignore"):
        ratio = np.exp(_active(logprobs - old_logprobs, mask))
    clipped = np.clip(ratio, 1 - clip_low, 1 + clip_high) * advantages
    ratio = ratio if dual_clip is None else np.minimum(ratio, dual_clip)
    losses = _active(-np.minimum(ratio * advantages, clipped), mask)
    rows = losses.sum(axis=1) / np.maximum(mask.sum(axis=1), 1).astype(losses.dtype)
    return rows.mean()


def policy_metrics(
    logprobs: Any,
    old_logprobs: Any,
    advantages: Any,
    mask: Any,
    *,
    clip_low: Any,
    clip_high: Any,
    dual_clip: Any = None,
) -> Any:
    log_ratio = (logprobs - old_logprobs)[mask]
    ratio = np.exp(log_ratio)
    outside = (ratio < 1 - clip_low) | (ratio > 1 + clip_high)
    return {
        "approx_kl": (ratio - 1 - log_ratio).mean(),
        "clip_fraction": outside.mean().astype(ratio.dtype),
        "dual_clip_fraction": np.zeros_like(ratio[0]),
    }


def value_loss(values: Any, old_values: Any, returns: Any, mask: Any, *, clip: Any = None) -> Any:
    if clip is not None:
        values = old_values + np.clip(values - old_values, -clip, clip)
    return ((values - returns)[mask] ** 2).sum() / values.dtype.type(max(mask.sum(), 1))


def reward_model_loss(chosen: Any, rejected: Any, *, margin: Any = 0.0) -> Any:
    return np.log1p(np.exp(-(chosen - rejected + margin))).mean()


def shaped_rewards(scores: Any, logprobs: Any, ref_logprobs: Any, mask: Any, *, kl_coef: Any) -> Any:
    rewards = -kl_coef * (logprobs - ref_logprobs)
    rewards[:, -1] += scores
    return rewards


def sequence_logprobs(token_logprobs: Any, mask: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return _active(token_logprobs, mask).sum(axis=1) / mask.sum(axis=1).astype(token_logprobs.dtype)


def dpo_loss(
    policy_chosen: Any,
    policy_rejected: Any,
    ref_chosen: Any,
    ref_rejected: Any,
    *,
    beta: Any,
    label_smoothing: Any = 0.0,
    loss_type: Any = "sigmoid",
) -> Any:
    margin = policy_chosen - policy_rejected - ref_chosen + ref_rejected
    if loss_type == "ipo":
        return ((margin - 1 / beta) ** 2).mean()
    if loss_type == "hinge":
        return np.maximum(1 - beta * margin, 0).mean()
    return np.log1p(np.exp(-beta * margin)).mean()


def group_advantages(scores: Any, group_ids: Any) -> Any:
    advantages = np.zeros_like(scores)
    for name in np.unique(group_ids):
        group = scores[group_ids == name]
        if len(group) > 1:
            advantages[group_ids == name] = (group - group.mean()) / (group.std(ddof=1) + 0.0001)
    return advantages


def rloo_advantages(scores: Any, group_ids: Any) -> Any:
    advantages = scores.copy()
    for name in np.unique(group_ids):
        group = scores[group_ids == name]
        if len(group) > 1:
            advantages[group_ids == name] = group - (group.sum() - group) / (len(group) - 1)
    return advantages


def conjugate_gradient(matvec: Any, b: Any, *, max_iters: Any, tol: Any) -> Any:
    solution, residual, direction = (np.zeros_like(b), b, b)
    for _ in range(max_iters):
        squared = residual @ residual
        if squared <= tol:
            break
        product = matvec(direction)
        length = squared / (direction @ product)
        solution, residual = (solution + length * direction, residual - length * product)
        direction = residual + residual @ residual / squared * direction
    return solution


def backtracking_line_search(
    evaluate: Any, parameters: Any, full_step: Any, *, max_kl: Any, backtrack: Any = 0.5, max_steps: Any = 10
) -> Any:
    for j in range(max_steps):
        point = parameters + backtrack**j * full_step
        improvement, kl = evaluate(point)
        if improvement >= 0 and kl <= 1.5 * max_kl:
            return point
    return parameters
