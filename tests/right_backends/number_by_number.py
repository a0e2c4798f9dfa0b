"""A right backend in NumPy scalars, beside token_lists: loops over numbers, sums from the first to the last.

Every operation rounds to the dtype that comes in; float16 rewards of a group are float32 inside.
"""

from collections.abc import Callable, Iterable
from math import inf
from typing import Any, TypeAlias

import numpy as np

array_library = "numpy"
name = "number by number"

Number: TypeAlias = Any
"""A scalar of the dtype."""

Function = Callable[[np.ndarray], np.ndarray]


def importance_ratio(
    logprobs: np.ndarray, old_logprobs: np.ndarray, *, log_ratio_clip: float | None = 20.0
) -> np.ndarray:
    ratios = np.empty_like(logprobs)
    for i in np.ndindex(ratios.shape):
        ratios[i] = np.exp(_clipped(logprobs[i] - old_logprobs[i], log_ratio_clip))
    return ratios


def sequence_importance_ratio(logprobs: np.ndarray, old_logprobs: np.ndarray, mask: np.ndarray) -> np.ndarray:
    ratios = np.ones_like(logprobs[:, 0])
    for b, row in enumerate(_rows(mask)):
        log_ratios = [logprobs[b, t] - old_logprobs[b, t] for t in row]
        ratios[b] = np.exp(_sum(log_ratios, ratios) / max(len(row), 1))
    return ratios


def truncated_importance_weights(
    old_logprobs: np.ndarray, rollout_logprobs: np.ndarray, *, cap: float, mode: str = "truncate"
) -> np.ndarray:
    weights = np.empty_like(old_logprobs)
    for i in np.ndindex(weights.shape):
        weight = np.exp(old_logprobs[i] - rollout_logprobs[i])
        weights[i] = weight if weight <= cap else cap if mode == "truncate" else 0
    return weights


def importance_sampling_mean(
    f_values: np.ndarray, log_weights: np.ndarray, *, self_normalized: bool = False
) -> Number:
    shift = max(log_weights) if self_normalized else log_weights.dtype.type(0)
    weights = [np.exp(x - shift) for x in log_weights]
    divisor = _sum(weights, f_values) if self_normalized else len(weights)
    return _sum((w * f for w, f in zip(weights, f_values, strict=True)), f_values) / divisor


def effective_sample_size(log_weights: np.ndarray) -> Number:
    weights = [np.exp(x - max(log_weights)) for x in log_weights]
    return _sum(weights, log_weights) ** 2 / _sum((w * w for w in weights), log_weights)


def kl_estimate(
    logprobs: np.ndarray,
    ref_logprobs: np.ndarray,
    *,
    estimator: str = "k1",
    log_ratio_clip: float | None = None,
    value_clip: float | None = None,
) -> np.ndarray:
    estimates = np.empty_like(logprobs)
    for i in np.ndindex(estimates.shape):
        log_ratio = _clipped(logprobs[i] - ref_logprobs[i], log_ratio_clip)
        estimates[i] = _clipped(_estimate(log_ratio, estimator), value_clip)
    return estimates


def kl_divergence(logits: np.ndarray, ref_logits: np.ndarray) -> np.ndarray:
    divergences = np.empty_like(logits[..., 0])
    for i in np.ndindex(divergences.shape):
        pairs = zip(_log_softmax(logits[i]), _log_softmax(ref_logits[i]), strict=True)
        divergences[i] = _sum((np.exp(p) * (p - q) for p, q in pairs if np.exp(p) > 0), logits)
    return divergences


def adaptive_kl_coef(*, coef: float, kl: float, target: float) -> float:
    return coef / 2 if kl < target / 1.5 else coef * 2 if kl > target * 1.5 else coef


def proportional_kl_coef(*, coef: float, kl: float, target: float, horizon: float, n_steps: float) -> float:
    return coef + coef * min(max(kl / target - 1, -0.2), 0.2) * n_steps / horizon


def token_logprobs(logits: np.ndarray, tokens: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    logprobs = np.empty_like(logits[..., 0])
    for i in np.ndindex(logprobs.shape):
        logprobs[i] = _log_softmax([x / temperature for x in logits[i]])[tokens[i]]
    return logprobs


def token_entropy(logits: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    entropies = np.empty_like(logits[..., 0])
    for i in np.ndindex(entropies.shape):
        logs = _log_softmax([x / temperature for x in logits[i]])
        entropies[i] = _sum((-np.exp(p) * p for p in logs if np.exp(p) > 0), logits)
    return entropies


def aggregate(
    x: np.ndarray, mask: np.ndarray, *, mode: str, horizon: float | None = None, empty_rows: str = "count"
) -> Number:
    return _mean(lambda b, t: x[b, t], x, mask, mode, horizon, empty_rows)


def policy_loss(
    logprobs: np.ndarray,
    old_logprobs: np.ndarray,
    advantages: np.ndarray,
    mask: np.ndarray,
    rollout_weights: np.ndarray | None = None,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    ratio_level: str = "token",
    aggregation: str = "token-mean",
    horizon: float | None = None,
    empty_rows: str = "count",
    log_ratio_clip: float | None = 20.0,
) -> Number:
    log_ratios = _log_ratios(logprobs, old_logprobs, mask, ratio_level)

    def loss(b: int, t: int) -> Number:
        ratio, advantage = np.exp(_clipped(log_ratios[b, t], log_ratio_clip)), advantages[b, t]
        objective = _objective(ratio, advantage, clip_low, clip_high)
        if dual_clip is not None and advantage < 0:
            objective = max(objective, dual_clip * advantage)
        return -objective if rollout_weights is None else -objective * rollout_weights[b, t]

    return _mean(loss, logprobs, mask, aggregation, horizon, empty_rows)


def policy_metrics(
    logprobs: np.ndarray,
    old_logprobs: np.ndarray,
    advantages: np.ndarray,
    mask: np.ndarray,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> dict[str, Number]:
    log_ratios = _log_ratios(logprobs, old_logprobs, mask, "token")

    def clipped(b: int, t: int) -> Number:
        ratio, advantage = np.exp(log_ratios[b, t]), advantages[b, t]
        beyond = ratio > 1 + clip_high if advantage > 0 else advantage < 0 and ratio < 1 - clip_low
        return logprobs.dtype.type(beyond)

    def dual(b: int, t: int) -> Number:
        bound = inf if dual_clip is None else dual_clip
        return logprobs.dtype.type(advantages[b, t] < 0 and np.exp(log_ratios[b, t]) > bound)

    numbers = {
        "approx_kl": lambda b, t: -log_ratios[b, t],
        "clip_fraction": clipped,
        "dual_clip_fraction": dual,
    }
    return {key: _mean(number, logprobs, mask, "token-mean") for key, number in numbers.items()}


def kl_penalty_loss(
    logprobs: np.ndarray,
    old_logprobs: np.ndarray,
    advantages: np.ndarray,
    kl: np.ndarray,
    mask: np.ndarray,
    *,
    kl_coef: float,
    aggregation: str,
) -> Number:
    def loss(b: int, t: int) -> Number:
        return kl_coef * kl[b, t] - np.exp(logprobs[b, t] - old_logprobs[b, t]) * advantages[b, t]

    return _mean(loss, logprobs, mask, aggregation)


def value_loss(
    values: np.ndarray,
    old_values: np.ndarray,
    returns: np.ndarray,
    mask: np.ndarray,
    *,
    clip: float | None = None,
    aggregation: str = "token-mean",
    horizon: float | None = None,
    empty_rows: str = "count",
) -> Number:
    def loss(b: int, t: int) -> Number:
        squared = (values[b, t] - returns[b, t]) ** 2
        if clip is not None:
            clipped = old_values[b, t] + _clipped(values[b, t] - old_values[b, t], clip)
            squared = max(squared, (clipped - returns[b, t]) ** 2)
        return squared / 2

    return _mean(loss, values, mask, aggregation, horizon, empty_rows)


def reward_model_loss(chosen: np.ndarray, rejected: np.ndarray, *, margin: float = 0.0) -> Number:
    losses = (_softplus(r - c + margin) for c, r in zip(chosen, rejected, strict=True))
    return _sum(losses, chosen) / max(len(chosen), 1)


def shaped_rewards(
    scores: np.ndarray,
    logprobs: np.ndarray,
    ref_logprobs: np.ndarray,
    mask: np.ndarray,
    *,
    kl_coef: float,
    estimator: str = "k1",
) -> np.ndarray:
    rewards = np.zeros_like(logprobs)
    for b, row in enumerate(_rows(mask)):
        for t in row:
            penalty = kl_coef * _estimate(logprobs[b, t] - ref_logprobs[b, t], estimator)
            rewards[b, t] = scores[b] - penalty if t == row[-1] else -penalty
    return rewards


def sequence_logprobs(token_logprobs: np.ndarray, mask: np.ndarray, *, average: bool = False) -> np.ndarray:
    sums = np.zeros_like(token_logprobs[:, 0])
    for b, row in enumerate(_rows(mask)):
        total = _sum((token_logprobs[b, t] for t in row), sums)
        sums[b] = total / max(len(row), 1) if average else total
    return sums


def implicit_rewards(policy_logprobs: np.ndarray, ref_logprobs: np.ndarray, *, beta: float) -> np.ndarray:
    rewards = np.empty_like(policy_logprobs)
    for i in range(len(rewards)):
        rewards[i] = beta * (policy_logprobs[i] - ref_logprobs[i])
    return rewards


def dpo_loss(
    policy_chosen: np.ndarray,
    policy_rejected: np.ndarray,
    ref_chosen: np.ndarray,
    ref_rejected: np.ndarray,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    loss_type: str = "sigmoid",
) -> Number:
    def loss(i: int) -> Number:
        margin = (policy_chosen[i] - ref_chosen[i]) - (policy_rejected[i] - ref_rejected[i])
        if loss_type == "hinge":
            return max(1 - beta * margin, 0 * margin)
        if loss_type == "ipo":
            return (margin - 1 / (2 * beta)) ** 2
        right, wrong = _softplus(-beta * margin), _softplus(beta * margin)
        return (1 - label_smoothing) * right + label_smoothing * wrong

    return _sum(map(loss, range(len(policy_chosen))), policy_chosen) / max(len(policy_chosen), 1)


def group_advantages(
    scores: np.ndarray, group_ids: np.ndarray, *, scale: str = "std", ddof: int = 1, eps: float = 1e-6
) -> np.ndarray:
    def of_group(rewards: np.ndarray) -> list[Number]:
        if len(rewards) == 1 or len(set(rewards)) == 1:
            return [0 * reward for reward in rewards]
        distances = [reward - rewards[0] for reward in rewards]
        mean = _sum(distances, rewards) / len(rewards)
        centred = [distance - mean for distance in distances]
        if scale == "none":
            return centred
        deviation = np.sqrt(_sum((x * x for x in centred), rewards) / (len(rewards) - ddof))
        return [x / (deviation + eps) for x in centred]

    return _by_group(of_group, scores, group_ids)


def rloo_advantages(scores: np.ndarray, group_ids: np.ndarray) -> np.ndarray:
    def of_group(rewards: np.ndarray) -> list[Number]:
        others = max(len(rewards) - 1, 1)
        return [_sum((reward - other for other in rewards), rewards) / others for reward in rewards]

    return _by_group(of_group, scores, group_ids)


def grpo_loss(
    logprobs: np.ndarray,
    old_logprobs: np.ndarray,
    ref_logprobs: np.ndarray,
    advantages: np.ndarray,
    mask: np.ndarray,
    *,
    clip_low: float,
    clip_high: float,
    kl_coef: float,
    aggregation: str,
    horizon: float | None = None,
    empty_rows: str = "count",
    ratio_level: str = "token",
    log_ratio_clip: float | None = 20.0,
) -> Number:
    log_ratios = _log_ratios(logprobs, old_logprobs, mask, ratio_level)

    def loss(b: int, t: int) -> Number:
        ratio = np.exp(_clipped(log_ratios[b, t], log_ratio_clip))
        divergence = _estimate(logprobs[b, t] - ref_logprobs[b, t], "k3")
        return kl_coef * divergence - _objective(ratio, advantages[b], clip_low, clip_high)

    return _mean(loss, logprobs, mask, aggregation, horizon, empty_rows)


def conjugate_gradient(matvec: Function, b: np.ndarray, *, max_iters: int, tol: float) -> np.ndarray:
    x, residual, direction = np.zeros_like(b), b.copy(), b.copy()
    for _ in range(max_iters):
        square = _dot(residual, residual)
        if np.sqrt(square) <= tol:
            break
        product = matvec(direction)
        length = square / _dot(direction, product)
        for i in range(len(b)):
            x[i] += length * direction[i]
            residual[i] -= length * product[i]
        turn = _dot(residual, residual) / square
        for i in range(len(b)):
            direction[i] = residual[i] + turn * direction[i]
    return x


def trust_region_step(
    matvec: Function,
    gradient: np.ndarray,
    *,
    max_kl: float,
    cg_iters: int = 10,
    cg_tol: float = 1e-10,
    damping: float = 0.0,
) -> np.ndarray:
    def fisher(vector: np.ndarray) -> np.ndarray:
        return np.array([p + damping * v for p, v in zip(matvec(vector), vector, strict=True)], vector.dtype)

    direction = conjugate_gradient(fisher, gradient, max_iters=cg_iters, tol=cg_tol)
    curvature = _dot(direction, fisher(direction))
    length = np.sqrt(2 * max_kl / curvature) if curvature > 0 else 0 * curvature
    return np.array([length * x for x in direction], gradient.dtype)


def backtracking_line_search(
    evaluate: Callable[[np.ndarray], tuple[Number, Number]],
    parameters: np.ndarray,
    full_step: np.ndarray,
    *,
    max_kl: float,
    backtrack: float = 0.5,
    max_steps: int = 10,
) -> np.ndarray:
    for j in range(max_steps):
        steps = zip(parameters, full_step, strict=True)
        point = np.array([x + backtrack**j * step for x, step in steps], parameters.dtype)
        improvement, kl = evaluate(point)
        if improvement > 0 and kl <= max_kl:
            return point
    return parameters.copy()


def _rows(mask: np.ndarray) -> list[list[int]]:
    """The active positions of each row."""
    return [[t for t, active in enumerate(row) if active] for row in mask]


def _sum(numbers: Iterable[Number], like: np.ndarray) -> Number:
    """From the first to the last, in the dtype of another array."""
    total = like.dtype.type(0)
    for number in numbers:
        total = total + number
    return total


def _dot(a: np.ndarray, b: np.ndarray) -> Number:
    return _sum((x * y for x, y in zip(a, b, strict=True)), a)


def _mean(
    number: Callable[[int, int], Number],
    like: np.ndarray,
    mask: np.ndarray,
    mode: str,
    horizon: float | None = None,
    empty_rows: str = "count",
) -> Number:
    """The mean of a function of the active tokens, over tokens or over rows."""
    rows, total = _rows(mask), like.dtype.type(0)
    if mode == "token-mean":
        numbers = (number(b, t) for b, row in enumerate(rows) for t in row)
        return _sum(numbers, like) / max(sum(map(len, rows)), 1)
    for b, row in enumerate(rows):
        of_row = _sum((number(b, t) for t in row), like)
        if mode == "seq-mean-token-mean":
            of_row = of_row / max(len(row), 1)
        if mode == "seq-mean-token-sum-norm":
            of_row = of_row / (mask.shape[1] if horizon is None else horizon)
        total = total + of_row
    return total / (len(rows) if empty_rows == "count" else max(sum(map(bool, rows)), 1))


def _log_ratios(logprobs: np.ndarray, old_logprobs: np.ndarray, mask: np.ndarray, level: str) -> np.ndarray:
    """log π − log π_old of each active token, or the mean of its row."""
    log_ratios = np.zeros_like(logprobs)
    for b, row in enumerate(_rows(mask)):
        own = [logprobs[b, t] - old_logprobs[b, t] for t in row]
        mean = _sum(own, logprobs) / max(len(row), 1)
        for t, log_ratio in zip(row, own, strict=True):
            log_ratios[b, t] = log_ratio if level == "token" else mean
    return log_ratios


def _objective(ratio: Number, advantage: Number, clip_low: float, clip_high: float) -> Number:
    """The lesser of ratio · advantage and of the same with the ratio clipped, by the advantage's sign."""
    if advantage > 0:
        return min(ratio, type(ratio)(1 + clip_high)) * advantage
    if advantage < 0:
        return max(ratio, type(ratio)(1 - clip_low)) * advantage
    return advantage


def _estimate(log_ratio: Number, estimator: str) -> Number:
    if estimator == "k3":
        return np.exp(-log_ratio) - 1 + log_ratio
    return {"k1": log_ratio, "k2": log_ratio * log_ratio / 2, "abs": abs(log_ratio)}[estimator]


def _log_softmax(logits: Iterable[Number]) -> list[Number]:
    logits = np.array(list(logits))
    largest = max(logits)
    shifted = [x - largest for x in logits]
    log_total = np.log(_sum((np.exp(x) for x in shifted), logits))
    return [x - log_total for x in shifted]


def _softplus(x: Number) -> Number:
    """log(1 + e^x)."""
    return max(x, 0 * x) + np.log1p(np.exp(-abs(x)))


def _clipped(x: Number, bound: float | None) -> Number:
    return x if bound is None else min(max(x, type(x)(-bound)), type(x)(bound))


def _by_group(
    of_group: Callable[[np.ndarray], list[Number]], scores: np.ndarray, group_ids: np.ndarray
) -> np.ndarray:
    """Give a function the rewards of each group, and put back what it returns."""
    wide = scores.astype(np.float32) if scores.dtype == np.float16 else scores
    result = np.zeros_like(wide)
    for group in set(group_ids.tolist()):
        members = [i for i, own in enumerate(group_ids) if own == group]
        result[members] = of_group(wide[members])
    return result.astype(scores.dtype)
