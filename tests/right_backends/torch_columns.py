"""A right backend in PyTorch: column by column, in the dtype that comes in."""

import torch
from torch import Tensor

array_library = "torch"
name = f"torch columns (torch {torch.__version__})"


def td_errors(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap_value: Tensor, *, gamma: float
) -> Tensor:
    return torch.where(mask, rewards + gamma * _next(values, mask, bootstrap_value) - values, 0)


def n_step_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap_value: Tensor, *, gamma: float, n: int
) -> Tensor:
    returns = values
    for _ in range(n):
        returns = rewards + gamma * _next(returns, mask, bootstrap_value)
    return returns - values


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    *,
    gamma: float,
    lam: float,
    masked: str = "skip",
) -> Tensor:
    steps = mask
    if masked == "zero":
        rewards, values = torch.where(mask, rewards, 0), torch.where(mask, values, 0)
        steps = mask.flip(1).cumsum(1).flip(1) > 0
    errors = rewards + gamma * _next(values, steps, bootstrap_value) - values
    advantages = _sums(errors, steps, torch.zeros_like(bootstrap_value), gamma * lam)
    return torch.where(mask, advantages, 0).detach()


def lambda_returns(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    *,
    gamma: float,
    lam: float,
    masked: str = "skip",
) -> Tensor:
    advantages = gae(rewards, values, mask, bootstrap_value, gamma=gamma, lam=lam, masked=masked)
    return torch.where(mask, advantages + values, 0).detach()


def discounted_returns(rewards: Tensor, mask: Tensor, bootstrap_value: Tensor, *, gamma: float) -> Tensor:
    return _sums(rewards, mask, bootstrap_value, gamma)


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True, ddof: int = 1, eps: float = 1e-8) -> Tensor:
    chosen = x[mask].float() if x.dtype == torch.float16 else x[mask]  # where eps=1e-8 would be 0
    result = torch.zeros_like(x)
    if len(chosen) <= ddof:
        return result
    mean = chosen.mean()
    variance = ((chosen - mean) ** 2).sum() / (len(chosen) - ddof)
    whitened = (chosen - mean) * torch.rsqrt(variance + eps)
    result[mask] = (whitened if shift_mean else whitened + mean).to(x.dtype)
    return result


def _next(x: Tensor, mask: Tensor, last: Tensor) -> Tensor:
    """x at the next active position of the row, `last` where there is none."""
    columns = []
    for t in reversed(range(mask.shape[1])):
        columns.append(last)
        last = torch.where(mask[:, t], x[:, t], last)
    return torch.stack(columns[::-1], dim=1)


def _sums(x: Tensor, mask: Tensor, last: Tensor, discount: float) -> Tensor:
    """S_t = x_t + discount · S at the next active position, from `last` behind the row's end."""
    columns = []
    for t in reversed(range(mask.shape[1])):
        last = torch.where(mask[:, t], x[:, t] + discount * last, last)
        columns.append(last)
    return torch.stack(columns[::-1], dim=1)
