"""A right backend in PyTorch: autograd on a table, the losses and optimisers written out in its dtype."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

array_library = "torch"
name = f"torch training (torch {torch.__version__})"


def train_step(
    parameters: Tensor,
    ref_logits: Tensor,
    states: Tensor,
    actions: Tensor,
    rewards: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    group_ids: Tensor,
    *,
    algorithm: str,
    learning_rate: float,
    optimizer: str = "sgd",
    max_grad_norm: float | None = None,
    clip_eps: float = 1e-6,
    beta1: float = 0.9,
    beta2: float = 0.999,
    adam_eps: float = 1e-8,
    epochs: int = 1,
    minibatch_rows: int | None = None,
    **options: Any,
) -> Tensor:
    table = parameters.detach().clone().requires_grad_()
    data = (states, actions, torch.where(mask, rewards, 0), mask, bootstrap_value, group_ids)
    if algorithm == "trpo":
        return _trusted(table, *data[:5], **options)
    loss = _losses(table, ref_logits, *data, algorithm, **options)
    if optimizer == "sgd":
        made = _Descent(table, learning_rate)
    else:
        made = _Adam(table, learning_rate, beta1, beta2, adam_eps)
    size = minibatch_rows or len(states)
    for _ in range(epochs):
        for first in range(0, len(states), size):
            rows = slice(first, first + size)
            made.zero_grad()
            loss(table, rows).backward()  # type: ignore[no-untyped-call]
            gradient = table.grad
            if max_grad_norm is not None and gradient is not None:
                norm = gradient.norm()
                gradient.mul_(min(1.0, max_grad_norm / max(float(norm) + clip_eps, 1e-300)))
            made.step()
    return table.detach()


class _Descent:
    """Down the gradient."""

    def __init__(self, table: Tensor, rate: float) -> None:
        self.table, self.rate = table, rate

    def zero_grad(self) -> None:
        self.table.grad = None

    @torch.no_grad()
    def step(self) -> None:
        assert self.table.grad is not None
        self.table -= self.rate * self.table.grad


class _Adam(_Descent):
    """Moments from 0, corrected by the number of the step."""

    def __init__(self, table: Tensor, rate: float, slow: float, square: float, eps: float) -> None:
        super().__init__(table, rate)
        self.slow, self.square, self.eps = slow, square, eps
        self.first, self.second = torch.zeros_like(table), torch.zeros_like(table)
        self.count = 0

    @torch.no_grad()
    def step(self) -> None:
        assert self.table.grad is not None
        self.count += 1
        self.first = self.slow * self.first + (1 - self.slow) * self.table.grad
        self.second = self.square * self.second + (1 - self.square) * self.table.grad.square()
        mean = self.first / (1 - self.slow**self.count)
        square = self.second / (1 - self.square**self.count)
        self.table -= self.rate * mean / (square.sqrt() + self.eps)


def _losses(
    table: Tensor,
    ref_logits: Tensor,
    states: Tensor,
    actions: Tensor,
    rewards: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    group_ids: Tensor,
    algorithm: str,
    *,
    gamma: float,
    lam: float,
    clip_low: float,
    clip_high: float,
    value_clip: float | None,
    value_coef: float,
    kl_coef: float,
    aggregation: str,
    beta: float,
    **others: Any,
) -> Callable[[Tensor, slice], Tensor]:
    """The loss of some rows, with what the table as it is now fixes."""
    old, old_values = _chosen(table[:, :-1], states, actions).detach(), table[:, -1][states].detach()
    ref = _chosen(ref_logits, states, actions)
    advantages = _advantages(rewards, old_values, mask, bootstrap_value, gamma, lam)
    returns = advantages + old_values
    scores = rewards.sum(1)
    relative = _relative(scores, group_ids)[:, None].expand_as(rewards)

    def clipped(table: Tensor, rows: slice, advantages: Tensor) -> Tensor:
        new = _chosen(table[:, :-1], states[rows], actions[rows])
        ratio = (new - old[rows]).clamp(-20, 20).exp()
        bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
        return -torch.minimum(ratio * advantages[rows], bounded * advantages[rows])

    def ppo(table: Tensor, rows: slice) -> Tensor:
        values = table[:, -1][states[rows]]
        errors = (values - returns[rows]).square()
        if value_clip is not None:
            near = old_values[rows] + (values - old_values[rows]).clamp(-value_clip, value_clip)
            errors = torch.maximum(errors, (near - returns[rows]).square())
        policy = clipped(table, rows, advantages)
        return _mean(policy, mask[rows], aggregation) + value_coef * _mean(
            errors / 2, mask[rows], aggregation
        )

    def grpo(table: Tensor, rows: slice) -> Tensor:
        to_ref = ref[rows] - _chosen(table[:, :-1], states[rows], actions[rows])
        divergence = to_ref.exp() - 1 - to_ref
        policy = clipped(table, rows, relative)
        return _mean(policy + kl_coef * divergence, mask[rows], aggregation)

    def dpo(table: Tensor, rows: slice) -> Tensor:
        new = _chosen(table[:, :-1], states[rows], actions[rows])
        log_ratios = torch.where(mask[rows], new - ref[rows], 0).sum(1)
        return -torch.nn.functional.logsigmoid(beta * (log_ratios[::2] - log_ratios[1::2])).mean()

    def reward_model(table: Tensor, rows: slice) -> Tensor:
        behind = mask[rows].flip(1).cumsum(1).flip(1)
        last = mask[rows] & (behind == 1)
        values = torch.where(last, table[:, -1][states[rows]], 0).sum(1)
        return -torch.nn.functional.logsigmoid(values[::2] - values[1::2]).mean()

    return {"ppo": ppo, "grpo": grpo, "dpo": dpo, "reward-model": reward_model}[algorithm]


def _trusted(
    table: Tensor,
    states: Tensor,
    actions: Tensor,
    rewards: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    *,
    gamma: float,
    lam: float,
    max_kl: float,
    cg_iters: int,
    damping: float,
    **others: Any,
) -> Tensor:
    """One step of a trust region."""
    logits, count = table[:, :-1].detach(), mask.sum().clamp(min=1)
    values = table[:, -1][states].detach()
    advantages = _advantages(rewards, values, mask, bootstrap_value, gamma, lam)
    met = torch.stack([((states == s) & mask).sum() for s in range(len(table))])
    visits = met.to(logits.dtype) / count
    policy, old = logits.softmax(1), _chosen(logits, states, actions)

    def gain(candidate: Tensor) -> Tensor:
        ratio = torch.where(mask, _chosen(candidate, states, actions) - old, 0).exp()
        return torch.where(mask, (ratio - 1) * advantages, 0).sum() / count

    def kl(candidate: Tensor) -> Tensor:
        distances = policy * (logits.log_softmax(1) - candidate.log_softmax(1))
        return visits @ distances.sum(1)

    def fisher(vector: Tensor) -> Tensor:
        mean = (policy * vector).sum(1, keepdim=True)
        return visits[:, None] * policy * (vector - mean) + damping * vector

    leaf = logits.clone().requires_grad_()
    [gradient] = torch.autograd.grad(gain(leaf), leaf)
    direction = _solved(fisher, gradient, cg_iters)
    curvature = (direction * fisher(direction)).sum()
    step = (2 * max_kl / curvature).sqrt() * direction if curvature > 0 else direction
    for j in range(10):
        candidate = logits + 0.5**j * step
        if gain(candidate) > 0 and kl(candidate) <= max_kl:
            return torch.cat([candidate, table[:, -1:].detach()], dim=1)
    return table.detach()


def _solved(matvec: Callable[[Tensor], Tensor], b: Tensor, steps: int) -> Tensor:
    """Conjugate gradients from 0."""
    x, residual, direction = torch.zeros_like(b), b, b
    for _ in range(steps):
        if residual.norm() <= 1e-10:
            break
        product = matvec(direction)
        length = residual.square().sum() / (direction * product).sum()
        x, left = x + length * direction, residual - length * product
        direction = left + left.square().sum() / residual.square().sum() * direction
        residual = left
    return x


def _chosen(logits: Tensor, states: Tensor, actions: Tensor) -> Tensor:
    """The log-probability of each action in its state."""
    return logits.log_softmax(1)[states, actions]


def _advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap_value: Tensor, gamma: float, lam: float
) -> Tensor:
    """GAE, from the last token to the first."""
    advantages = torch.zeros_like(rewards)
    next_value, advantage = bootstrap_value, torch.zeros_like(bootstrap_value)
    for t in reversed(range(mask.shape[1])):
        error = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = torch.where(mask[:, t], error + gamma * lam * advantage, advantage)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        advantages[:, t] = torch.where(mask[:, t], advantage, 0)
    return advantages


def _relative(scores: Tensor, group_ids: Tensor) -> Tensor:
    """Distances from the mean of the group, over its deviation."""
    advantages = torch.zeros_like(scores)
    for group in set(group_ids.tolist()):
        members = group_ids == group
        own = scores[members]
        if len(own) > 1 and (own != own[0]).any():
            centred = own - own.sum() / len(own)
            deviation = (centred.square().sum() / (len(own) - 1)).sqrt()
            advantages[members] = centred / (deviation + 1e-6)
    return advantages


def _mean(x: Tensor, mask: Tensor, mode: str) -> Tensor:
    """The mean of x over active tokens, or over rows."""
    sums, counts = torch.where(mask, x, 0).sum(1), mask.sum(1)
    if mode == "token-mean":
        return sums.sum() / counts.sum().clamp(min=1)
    if mode == "seq-mean-token-mean":
        sums = sums / counts.clamp(min=1)
    if mode == "seq-mean-token-sum-norm":
        sums = sums / mask.shape[1]
    return sums.sum() / len(mask)
