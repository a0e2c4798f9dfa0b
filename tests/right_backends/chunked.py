"""A right backend in PyTorch: micro-batches, and chunks of the vocabulary, as they are where memory is short.

A loss is the sum of its rows' sums, each row a micro-batch, over the divisor of the whole batch. What needs
the weights of a whole distribution takes them in chunks, with a running maximum.
"""

from collections.abc import Callable, Iterator
from functools import wraps

import torch
from torch import Tensor

from tests.right_backends import (
    torch_group,
    torch_importance_sampling,
    torch_policy_loss,
    torch_preference,
    torch_reward,
    torch_value_loss,
)

array_library = "torch"
name = f"chunked (torch {torch.__version__})"

CHUNK, CHUNKS = 2, 64
"""The smallest chunk, and about how many there are at most."""

Loss = Callable[..., Tensor]


def _by_rows(loss: Loss, aggregation: str = "aggregation") -> Loss:
    """Take the rows of a loss one by one, as sums, and divide as the aggregation says."""

    @wraps(loss)
    def of_batch(
        *arrays: Tensor | None, horizon: float | None = None, empty_rows: str = "count", **options: object
    ) -> Tensor:
        mode = options.pop(aggregation, "token-mean")
        sums = torch.stack(
            [loss(*row, **{aggregation: "seq-mean-token-sum"}, **options) for row in _rows(arrays)]
        )
        mask = next(x for x in arrays if x is not None and x.dtype == torch.bool)
        lengths = mask.sum(1)
        if mode == "token-mean":
            return sums.sum() / lengths.sum().clamp(min=1)
        if mode == "seq-mean-token-mean":
            sums = sums / lengths.clamp(min=1)
        if mode == "seq-mean-token-sum-norm":
            sums = sums / (mask.shape[1] if horizon is None else horizon)
        return sums.sum() / (len(mask) if empty_rows == "count" else (lengths > 0).sum().clamp(min=1))

    return of_batch


def _by_samples(mean: Loss) -> Loss:
    """Take the samples of a mean one by one."""

    @wraps(mean)
    def of_batch(*arrays: Tensor, **options: object) -> Tensor:
        parts = [mean(*sample, **options) for sample in _rows(arrays)]
        return torch.stack(parts).sum() / len(parts) if parts else mean(*arrays, **options)

    return of_batch


def _rows(arrays: tuple[Tensor | None, ...]) -> Iterator[list[Tensor | None]]:
    count = max(len(x) for x in arrays if x is not None)
    return ([x if x is None else x[i : i + 1] for x in arrays] for i in range(count))


aggregate = _by_rows(torch_policy_loss.aggregate, "mode")
policy_loss = _by_rows(torch_policy_loss.policy_loss)
kl_penalty_loss = _by_rows(torch_policy_loss.kl_penalty_loss)
value_loss = _by_rows(torch_value_loss.value_loss)
grpo_loss = _by_rows(torch_group.grpo_loss)
reward_model_loss = _by_samples(torch_reward.reward_model_loss)
dpo_loss = _by_samples(torch_preference.dpo_loss)


def importance_sampling_mean(
    f_values: Tensor, log_weights: Tensor, *, self_normalized: bool = False
) -> Tensor:
    if not self_normalized:
        return _by_samples(torch_importance_sampling.importance_sampling_mean)(f_values, log_weights)
    _, total, weighted = _running(log_weights, f_values)
    return weighted / total


def effective_sample_size(log_weights: Tensor) -> Tensor:
    top, total, _ = _running(log_weights, log_weights)
    squares = [(2 * (chunk - top)).exp().sum() for chunk in _chunks(log_weights)]
    return total.square() / torch.stack(squares).sum()


def token_logprobs(logits: Tensor, tokens: Tensor, *, temperature: float = 1.0) -> Tensor:
    scaled = logits / temperature
    top, total, _ = _running(scaled, scaled)
    return scaled.gather(-1, tokens[..., None])[..., 0] - top - total.log()


def token_entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    scaled = logits / temperature
    top = scaled.amax(-1, keepdim=True).detach()
    possible = (scaled - top).exp() > 0
    shifted = torch.where(possible, scaled - top, 0)
    _, total, weighted = _running(scaled, shifted)
    return total.log() - weighted / total


def kl_divergence(logits: Tensor, ref_logits: Tensor) -> Tensor:
    ref_logits = ref_logits.detach()
    possible, excluded = logits > -torch.inf, ref_logits == -torch.inf
    log_ratio = torch.where(possible & ~excluded, logits - ref_logits, 0)
    (top, total, weighted), (ref_top, ref_total, _) = (
        _running(logits, log_ratio),
        _running(ref_logits, logits),
    )
    divergence = weighted / total - (top - ref_top) - (total.log() - ref_total.log())
    return torch.where((possible & excluded).any(-1), torch.inf, divergence)


def _running(log_weights: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The largest log-weight m along the last axis, Σ e^(log w − m), and the sum of that times x."""
    top = torch.full_like(log_weights[..., 0], -torch.inf).detach()
    total, weighted = torch.zeros_like(top), torch.zeros_like(top)
    for chunk, numbers in zip(_chunks(log_weights), _chunks(x), strict=True):
        higher = torch.maximum(top, chunk.amax(-1).detach())
        shift = torch.where(higher > -torch.inf, higher, 0)
        weights, before = (chunk - shift[..., None]).exp(), (top - shift).exp()
        total = total * before + weights.sum(-1)
        weighted = weighted * before + (weights * numbers).sum(-1)
        top = higher
    return top, total, weighted


def _chunks(x: Tensor) -> tuple[Tensor, ...]:
    """Along the last axis."""
    return torch.split(x, max(CHUNK, x.shape[-1] // CHUNKS), -1)
