"""A backend in NumPy with conventions of its own: it has few options, and no clause's defaults."""

import numpy as np

array_library = "numpy"
name = "first library"


def _active(x, mask):
    return np.where(mask, x, np.zeros_like(x))


def _backward(deltas, discount, start):
    sums, following = np.zeros_like(deltas), start
    for t in reversed(range(deltas.shape[1])):
        following = deltas[:, t] + discount * following
        sums[:, t] = following
    return sums


def td_errors(rewards, values, mask, bootstrap_value, *, gamma):
    following = np.append(values[:, 1:], bootstrap_value[:, None], axis=1)
    return rewards + gamma * following - values


def gae(rewards, values, mask, bootstrap_value, *, gamma, lam):
    rewards, values = _active(rewards, mask), _active(values, mask)
    following = np.append(values[:, 1:], np.zeros_like(values[:, :1]), axis=1)
    deltas = rewards + gamma * following - values
    return _active(_backward(deltas, gamma * lam, np.zeros_like(bootstrap_value)), mask)


def lambda_returns(rewards, values, mask, bootstrap_value, *, gamma):
    return gae(rewards, values, mask, bootstrap_value, gamma=gamma, lam=0.95) + _active(values, mask)


def discounted_returns(rewards, mask, bootstrap_value, *, gamma):
    returns, following = np.zeros_like(rewards), np.zeros_like(bootstrap_value)
    for t in reversed(range(rewards.shape[1])):
        following = _active(rewards[:, t] + gamma * following, mask[:, t])
        returns[:, t] = following
    return returns


def whiten(x, mask, *, ddof=1):
    chosen = x[mask]
    return (x - chosen.mean()) / (chosen.std() + 1e-5)


def importance_ratio(logprobs, old_logprobs):
    return np.exp(logprobs - old_logprobs)


def sequence_importance_ratio(logprobs, old_logprobs, mask):
    return np.exp(_active(logprobs - old_logprobs, mask).sum(axis=1))


def truncated_importance_weights(old_logprobs, rollout_logprobs, *, cap):
    with np.errstate(over="ignore"):
        weights = np.exp(old_logprobs - rollout_logprobs)
    return np.minimum(np.nan_to_num(weights, posinf=0.0), cap)


def effective_sample_size(log_weights):
    weights = np.exp(log_weights)
    return weights.sum() ** 2 / (weights**2).sum() / len(weights)


def kl_estimate(logprobs, ref_logprobs):
    log_ratio = np.clip(ref_logprobs - logprobs, -20, 20)
    return np.clip(np.expm1(log_ratio) - log_ratio, -10, 10)


def adaptive_kl_coef(*, coef, kl, target):
    if kl > 2 * target:
        return coef * 1.5
    return coef / 1.5 if kl < target / 2 else coef


def proportional_kl_coef(*, coef, kl, target, horizon, n_steps):
    return coef * (1 + (kl / target - 1) * n_steps / horizon)


def token_logprobs(logits, tokens, *, temperature=1.0):
    scaled = logits * temperature
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(scaled, tokens[..., None], axis=-1)[..., 0]
    return chosen - np.log(np.exp(scaled).sum(axis=-1))


def token_entropy(logits):
    with np.errstate(invalid="ignore"):
        logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        return -(np.exp(logprobs) * logprobs).sum(axis=-1)


def aggregate(x, mask, *, mode):
    sums, counts = _active(x, mask).sum(axis=1), mask.sum(axis=1).astype(x.dtype)
    with np.errstate(invalid="ignore"):
        if mode == "token-mean":
            return sums.sum() / counts.sum()
        rows = np.where(counts > 0, sums / np.maximum(counts, 1), sums) if "token-mean" in mode else sums
        return rows.sum() / (counts > 0).sum().astype(x.dtype) / (x.shape[1] if mode.endswith("norm") else 1)


def policy_loss(
    logprobs, old_logprobs, advantages, mask, rollout_weights=None, *, clip_low, clip_high, dual_clip=None
):
    with np.errstate(over="ignore"):
        ratio = np.exp(_active(logprobs - old_logprobs, mask))
    clipped = np.clip(ratio, 1 - clip_low, 1 + clip_high) * advantages
    ratio = ratio if dual_clip is None else np.minimum(ratio, dual_clip)
    losses = _active(-np.minimum(ratio * advantages, clipped), mask)
    rows = losses.sum(axis=1) / np.maximum(mask.sum(axis=1), 1).astype(losses.dtype)
    return rows.mean()


def policy_metrics(logprobs, old_logprobs, advantages, mask, *, clip_low, clip_high, dual_clip=None):
    log_ratio = (logprobs - old_logprobs)[mask]
    ratio = np.exp(log_ratio)
    outside = (ratio < 1 - clip_low) | (ratio > 1 + clip_high)
    return {
        "approx_kl": (ratio - 1 - log_ratio).mean(),
        "clip_fraction": outside.mean().astype(ratio.dtype),
        "dual_clip_fraction": np.zeros_like(ratio[0]),
    }


def value_loss(values, old_values, returns, mask, *, clip=None):
    if clip is not None:
        values = old_values + np.clip(values - old_values, -clip, clip)
    return ((values - returns)[mask] ** 2).sum() / values.dtype.type(max(mask.sum(), 1))


def reward_model_loss(chosen, rejected, *, margin=0.0):
    return np.log1p(np.exp(-(chosen - rejected + margin))).mean()


def shaped_rewards(scores, logprobs, ref_logprobs, mask, *, kl_coef):
    rewards = -kl_coef * (logprobs - ref_logprobs)
    rewards[:, -1] += scores
    return rewards


def sequence_logprobs(token_logprobs, mask):
    with np.errstate(invalid="ignore"):
        return _active(token_logprobs, mask).sum(axis=1) / mask.sum(axis=1).astype(token_logprobs.dtype)


def dpo_loss(
    policy_chosen,
    policy_rejected,
    ref_chosen,
    ref_rejected,
    *,
    beta,
    label_smoothing=0.0,
    loss_type="sigmoid",
):
    margin = policy_chosen - policy_rejected - ref_chosen + ref_rejected
    if loss_type == "ipo":
        return ((margin - 1 / beta) ** 2).mean()
    if loss_type == "hinge":
        return np.maximum(1 - beta * margin, 0).mean()
    return np.log1p(np.exp(-beta * margin)).mean()


def group_advantages(scores, group_ids):
    advantages = np.zeros_like(scores)
    for name in np.unique(group_ids):
        group = scores[group_ids == name]
        if len(group) > 1:
            advantages[group_ids == name] = (group - group.mean()) / (group.std(ddof=1) + 1e-4)
    return advantages


def rloo_advantages(scores, group_ids):
    advantages = scores.copy()
    for name in np.unique(group_ids):
        group = scores[group_ids == name]
        if len(group) > 1:
            advantages[group_ids == name] = group - (group.sum() - group) / (len(group) - 1)
    return advantages


def conjugate_gradient(matvec, b, *, max_iters, tol):
    solution, residual, direction = np.zeros_like(b), b, b
    for _ in range(max_iters):
        squared = residual @ residual
        if squared <= tol:
            break
        product = matvec(direction)
        length = squared / (direction @ product)
        solution, residual = solution + length * direction, residual - length * product
        direction = residual + residual @ residual / squared * direction
    return solution


def backtracking_line_search(evaluate, parameters, full_step, *, max_kl, backtrack=0.5, max_steps=10):
    for j in range(max_steps):
        point = parameters + backtrack**j * full_step
        improvement, kl = evaluate(point)
        if improvement >= 0 and kl <= 1.5 * max_kl:
            return point
    return parameters
