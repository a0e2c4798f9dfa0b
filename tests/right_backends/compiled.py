"""A right backend in PyTorch under `torch.compile`: what inductor makes of it, whole graphs or an error.

It needs a C++ compiler. Each choice of modes takes seconds to compile, and is kept on disk for the next run.
So that little else is compiled, arrays are padded to few sizes (a mean over rows leaves the empty ones out),
numbers among the options are 0-d tensors, and recursions are scans by doubling.

Half precision is rounded where eager PyTorch rounds it. Otherwise inductor takes an objective that it keeps
rounded, and one that it computes again unrounded, for equal in one place and for different in another, and
the gradient of their minimum is halved (torch 2.13 on the CPU, `policy_loss` at the level of sequences).
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
import torch._inductor.config
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.functional import pad

from tests.right_backends import (
    torch_group,
    torch_importance_sampling,
    torch_kl,
    torch_policy_loss,
    torch_preference,
    torch_reward,
    torch_value_loss,
)

array_library = "torch"
name = f"compiled (torch {torch.__version__})"

CONFIG: Any = torch._dynamo.config
CONFIG.recompile_limit = CONFIG.accumulated_recompile_limit = 10_000
CONFIG.fail_on_recompile_limit_hit = True
INDUCTOR: Any = torch._inductor.config
INDUCTOR.emulate_precision_casts = True

torch.compile(torch.sin)(torch.ones(8))  # the first compilation takes long, and loading may

SIZES = (64, 2056)

MODES = ("token-mean", "seq-mean-token-mean")
LOSS = {"aggregation": MODES, "empty_rows": ("drop",), "horizon": (None,)}
RATIO = {"log_ratio_clip": (20.0, 0.5)}
options = {
    "aggregate": {"mode": MODES, "empty_rows": ("drop",), "horizon": (None,)},
    "policy_loss": {**LOSS, **RATIO},
    "kl_penalty_loss": {"aggregation": ("token-mean",)},
    "value_loss": LOSS,
    "grpo_loss": {**LOSS, **RATIO},
    "n_step_advantages": {"n": (1, 3)},
}


def _compiled(function: Callable[..., Any], fill: float | None = 0.0) -> Callable[..., Any]:
    """Call what is compiled, on arrays padded with a number, and cut its result; None pads nothing."""
    compiled = torch.compile(function, fullgraph=True, dynamic=fill is None)

    @wraps(function)
    def operation(*arrays: Any, **given: Any) -> Any:
        padded = [x if x is None or fill is None else _padded(x, fill) for x in arrays]
        numbers = {
            k: torch.tensor(x, dtype=torch.float64) if type(x) is float else x for k, x in given.items()
        }
        result = compiled(*padded, **numbers)
        assert counters["stats"]["unique_graphs"]
        assert not counters["graph_break"]
        if isinstance(result, dict):
            return result
        shape = max((x.shape for x in arrays if x is not None), key=len)
        return result[tuple(map(slice, shape[: result.ndim]))]

    return operation


def _padded(x: Tensor, fill: float) -> Tensor:
    """Behind the numbers of each axis, more; behind ids of groups, another id."""
    if max(x.shape, default=0) > SIZES[-1]:
        raise NotImplementedError(f"an axis of at most {SIZES[-1]}")
    behind = [next(size for size in SIZES if n <= size) - n for n in x.shape]
    if not x.is_floating_point():
        fill = torch.iinfo(x.dtype).min if x.ndim == 1 else 0
    return pad(x, [n for more in reversed(behind) for n in (0, more)], value=fill)


importance_ratio = _compiled(torch_importance_sampling.importance_ratio)
sequence_importance_ratio = _compiled(torch_importance_sampling.sequence_importance_ratio)
truncated_importance_weights = _compiled(torch_importance_sampling.truncated_importance_weights)
importance_sampling_mean = _compiled(torch_importance_sampling.importance_sampling_mean, None)
effective_sample_size = _compiled(torch_importance_sampling.effective_sample_size, None)
kl_estimate = _compiled(torch_kl.kl_estimate)
kl_divergence = _compiled(torch_kl.kl_divergence, -torch.inf)
token_logprobs = _compiled(torch_policy_loss.token_logprobs, -torch.inf)
aggregate = _compiled(torch_policy_loss.aggregate)
policy_loss = _compiled(torch_policy_loss.policy_loss)
policy_metrics = _compiled(torch_policy_loss.policy_metrics)
kl_penalty_loss = _compiled(torch_policy_loss.kl_penalty_loss)
value_loss = _compiled(torch_value_loss.value_loss)
reward_model_loss = _compiled(torch_reward.reward_model_loss, None)
sequence_logprobs = _compiled(torch_preference.sequence_logprobs)
implicit_rewards = _compiled(torch_preference.implicit_rewards)
dpo_loss = _compiled(torch_preference.dpo_loss, None)
grpo_loss = _compiled(torch_group.grpo_loss)


@partial(_compiled, fill=-torch.inf)
def token_entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """In float32 at least: of float16, inductor rounds the largest logit, and not what it is taken from."""
    wide = logits.float() if logits.dtype.itemsize == 2 else logits
    return torch_policy_loss.token_entropy(wide, temperature=temperature).to(logits.dtype)


@_compiled
def td_errors(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap_value: Tensor, *, gamma: float
) -> Tensor:
    return _td_errors(rewards, values, mask, bootstrap_value, gamma)


@_compiled
def n_step_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap_value: Tensor, *, gamma: float, n: int
) -> Tensor:
    returns = values
    for _ in range(n):
        returns = rewards + gamma * _next(returns, mask, bootstrap_value)
    return returns - values


@_compiled
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
    return _advantages(rewards, values, mask, bootstrap_value, gamma, lam, masked).detach()


@_compiled
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
    return (values + _advantages(rewards, values, mask, bootstrap_value, gamma, lam, masked)).detach()


@_compiled
def discounted_returns(rewards: Tensor, mask: Tensor, bootstrap_value: Tensor, *, gamma: float) -> Tensor:
    return _sums(rewards, mask, bootstrap_value, gamma)


@_compiled
def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True, ddof: int = 1, eps: float = 1e-8) -> Tensor:
    wide, count = torch.where(mask, x.float() if x.dtype == torch.float16 else x, 0), mask.sum()
    mean = wide.sum() / count.clamp(min=1)
    centred = torch.where(mask, wide - mean, 0)
    variance = centred.square().sum() / (count - ddof).clamp(min=1)
    whitened = centred / (variance + eps).sqrt() + (0 if shift_mean else mean)
    return torch.where(count > ddof, whitened, 0).to(x.dtype)


@_compiled
def shaped_rewards(
    scores: Tensor,
    logprobs: Tensor,
    ref_logprobs: Tensor,
    mask: Tensor,
    *,
    kl_coef: float,
    estimator: str = "k1",
) -> Tensor:
    penalties = kl_coef * torch_reward._estimate(torch.where(mask, logprobs - ref_logprobs, 0), estimator)
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    return (torch.where(last, scores[:, None], 0) - penalties).detach()


@_compiled
def group_advantages(
    scores: Tensor, group_ids: Tensor, *, scale: str = "std", ddof: int = 1, eps: float = 1e-6
) -> Tensor:
    distances, same = _distances(scores, group_ids)
    centred = distances - _total(distances, same) / same.sum(1)
    deviation = (_total(centred.square(), same) / (same.sum(1) - ddof).clamp(min=1)).sqrt()
    advantages = centred / (deviation + eps) if scale == "std" else centred
    varied = (same & (distances != 0)).any(1)
    return torch.where(varied, advantages, 0).to(scores.dtype)


@_compiled
def rloo_advantages(scores: Tensor, group_ids: Tensor) -> Tensor:
    distances, same = _distances(scores, group_ids)
    others = (same.sum(1) - 1).clamp(min=1)
    return (distances - (_total(distances, same) - distances) / others).to(scores.dtype)


def _advantages(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    gamma: float,
    lam: float,
    masked: str,
) -> Tensor:
    steps = mask
    if masked == "zero":
        rewards, values = torch.where(mask, rewards, 0), torch.where(mask, values, 0)
        steps = mask.flip(1).cumsum(1).flip(1) > 0
    errors = _td_errors(rewards, values, steps, bootstrap_value, gamma)
    return _sums(errors, steps, torch.zeros_like(bootstrap_value), gamma * lam)


def _td_errors(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap_value: Tensor, gamma: float
) -> Tensor:
    return torch.where(mask, rewards + gamma * _next(values, mask, bootstrap_value) - values, 0)


def _next(x: Tensor, mask: Tensor, last: Tensor) -> Tensor:
    """x at the next active position of the row, `last` where there is none."""
    return torch.cat([_sums(x, mask, last, 0.0), last[:, None]], dim=1)[:, 1:]


def _sums(x: Tensor, mask: Tensor, last: Tensor, discount: float) -> Tensor:
    """S_t = x_t + discount · S at the next active position, from `last` behind the row's end."""
    sums, weights = torch.where(mask, x, 0), torch.where(mask, discount, 1.0).to(x.dtype)
    reach = 1
    while reach < x.shape[1]:
        sums = sums + weights * pad(sums[:, reach:], (0, reach))
        weights = weights * pad(weights[:, reach:], (0, reach), value=1.0)
        reach *= 2
    return sums + weights * last[:, None]


def _distances(scores: Tensor, group_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Each reward less the first one of its group, and which rewards are of one group."""
    rewards = (scores.float() if scores.dtype == torch.float16 else scores).detach()
    same = group_ids[:, None] == group_ids
    return rewards - rewards[same.int().argmax(1)], same


def _total(x: Tensor, same: Tensor) -> Tensor:
    """The sum over each one's group."""
    return torch.where(same, x, 0).sum(1)
