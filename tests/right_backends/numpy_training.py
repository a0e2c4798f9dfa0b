"""A right backend in NumPy: gradients by hand, token by token; a clip without ε, and Adam with ε scaled."""

from collections.abc import Callable
from typing import Any

import numpy as np

array_library = "numpy"
name = "gradients by hand"
options = {
    "train_step": {
        "algorithm": ("ppo", "grpo", "dpo", "reward-model"),
        "clip_eps": (0.0,),
        "aggregation": ("token-mean", "seq-mean-token-mean"),
        "value_clip": (None,),
    }
}

Token = tuple[int, int]
Slopes = Callable[[np.ndarray, list[int]], dict[Token, tuple[Any, Any]]]


def train_step(
    parameters: np.ndarray,
    ref_logits: np.ndarray,
    states: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    mask: np.ndarray,
    bootstrap_value: np.ndarray,
    group_ids: np.ndarray,
    *,
    algorithm: str,
    learning_rate: float,
    optimizer: str,
    max_grad_norm: float | None,
    clip_eps: float,
    beta1: float,
    beta2: float,
    adam_eps: float,
    epochs: int,
    minibatch_rows: int | None,
    **others: Any,
) -> np.ndarray:
    table, one = parameters.copy(), parameters.dtype.type(1)
    slopes = _slopes(
        table.copy(),
        ref_logits,
        states,
        actions,
        rewards,
        mask,
        bootstrap_value,
        group_ids,
        algorithm,
        **others,
    )
    first, second, count = np.zeros_like(table), np.zeros_like(table), 0
    for _ in range(epochs):
        for start in range(0, len(states), minibatch_rows or len(states)):
            rows = list(range(len(states)))[start : start + (minibatch_rows or len(states))]
            gradient = _gathered(table, states, actions, slopes(table, rows))
            norm = np.linalg.norm(gradient)
            if max_grad_norm is not None and norm > max_grad_norm:
                gradient = gradient / norm * max_grad_norm
            count += 1
            if optimizer == "sgd":
                table -= learning_rate * gradient
                continue
            first += (1 - beta1) * (gradient - first)
            second += (1 - beta2) * (gradient * gradient - second)
            root = np.sqrt(1 - one * beta2**count)
            rate = learning_rate * root / (1 - beta1**count)
            table -= (rate * first / (np.sqrt(second) + adam_eps * root)).astype(table.dtype)
    return table


def _gathered(
    table: np.ndarray, states: np.ndarray, actions: np.ndarray, slopes: dict[Token, tuple[Any, Any]]
) -> np.ndarray:
    """The gradient of the table, of slopes in log-probabilities and in values."""
    gradient = np.zeros_like(table)
    for token, (in_logprob, in_value) in slopes.items():
        state, action = states[token], actions[token]
        gradient[state, :-1] -= in_logprob * _softmax(table[state, :-1])
        gradient[state, action] += in_logprob
        gradient[state, -1] += in_value
    return gradient


def _slopes(
    start: np.ndarray,
    ref_logits: np.ndarray,
    states: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    mask: np.ndarray,
    bootstrap_value: np.ndarray,
    group_ids: np.ndarray,
    algorithm: str,
    *,
    gamma: float,
    lam: float,
    clip_low: float,
    clip_high: float,
    value_coef: float,
    kl_coef: float,
    aggregation: str,
    beta: float,
    **others: Any,
) -> Slopes:
    """What a loss has as slopes in each active token's log-probability and value."""
    tokens = {row: [(row, int(t)) for t in np.flatnonzero(mask[row])] for row in range(len(mask))}

    def logprob(logits: np.ndarray, token: Token) -> Any:
        own = logits[states[token]]
        top = own.max()
        return own[actions[token]] - top - np.log(np.exp(own - top).sum())

    def weights(rows: list[int]) -> dict[Token, Any]:
        count = sum(len(tokens[row]) for row in rows)
        each = {row: count if aggregation == "token-mean" else len(tokens[row]) * len(rows) for row in rows}
        return {token: start.dtype.type(1) / each[row] for row in rows for token in tokens[row]}

    def clipped(table: np.ndarray, token: Token, advantage: Any) -> Any:
        log_ratio = logprob(table[:, :-1], token) - old[token]
        ratio = np.exp(np.clip(log_ratio, -20, 20))
        held = ratio > 1 + clip_high if advantage > 0 else ratio < 1 - clip_low
        return 0 if held or abs(log_ratio) > 20 else -ratio * advantage

    def scored(table: np.ndarray, rows: list[int]) -> dict[Token, tuple[Any, Any]]:
        found: dict[Token, tuple[Any, Any]] = {}
        scores = [table[states[tokens[r][-1]], -1] if tokens[r] else 0 * table[0, 0] for r in rows]
        for row, pull in zip(rows, _pulls(np.array(scores), 1.0), strict=True):
            found |= dict.fromkeys(tokens[row][-1:], (0, pull))
        return found

    def preferred(table: np.ndarray, rows: list[int]) -> dict[Token, tuple[Any, Any]]:
        found: dict[Token, tuple[Any, Any]] = {}
        sums = np.zeros(len(rows), dtype=table.dtype)
        for k, row in enumerate(rows):
            for token in tokens[row]:
                sums[k] += logprob(table[:, :-1], token) - logprob(ref_logits, token)
        for row, pull in zip(rows, _pulls(sums, beta), strict=True):
            found |= dict.fromkeys(tokens[row], (pull, 0))
        return found

    def grouped(table: np.ndarray, rows: list[int]) -> dict[Token, tuple[Any, Any]]:
        found: dict[Token, tuple[Any, Any]] = {}
        for (row, t), weight in weights(rows).items():
            to_ref = logprob(ref_logits, (row, t)) - logprob(table[:, :-1], (row, t))
            pull = clipped(table, (row, t), relative[row]) + kl_coef * (1 - np.exp(to_ref))
            found[row, t] = (weight * pull, 0)
        return found

    def sampled(table: np.ndarray, rows: list[int]) -> dict[Token, tuple[Any, Any]]:
        found: dict[Token, tuple[Any, Any]] = {}
        for token, weight in weights(rows).items():
            error = table[states[token], -1] - (advantages[token] + start[states[token], -1])
            found[token] = (weight * clipped(table, token, advantages[token]), weight * value_coef * error)
        return found

    old = {token: logprob(start[:, :-1], token) for row in tokens.values() for token in row}
    relative = _relative(np.where(mask, rewards, 0).sum(axis=1), group_ids)
    advantages: dict[Token, Any] = {}
    for row, own in tokens.items():
        value, advantage = bootstrap_value[row], 0 * bootstrap_value[row]
        for token in reversed(own):
            now = start[states[token], -1]
            advantage = rewards[token] + gamma * value - now + gamma * lam * advantage
            value, advantages[token] = now, advantage
    return {"ppo": sampled, "grpo": grouped, "dpo": preferred, "reward-model": scored}[algorithm]


def _pulls(scores: np.ndarray, beta: float) -> np.ndarray:
    """Slopes of the mean of -log σ(β (chosen - rejected)) in the scores of pairs of rows."""
    error = 1 / (1 + np.exp(beta * (scores[::2] - scores[1::2])))
    return np.stack([-beta * error, beta * error], axis=1).ravel() / max(len(error), 1)


def _relative(scores: np.ndarray, group_ids: np.ndarray) -> np.ndarray:
    advantages = np.zeros_like(scores)
    for group in set(group_ids.tolist()):
        own = scores[group_ids == group]
        if len(own) > 1 and (own != own[0]).any():
            advantages[group_ids == group] = (own - own.mean()) / (own.std(ddof=1) + 1e-6)
    return advantages


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())
