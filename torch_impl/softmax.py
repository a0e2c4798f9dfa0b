"""The softmax of rows of logits, a chunk at a time: statistics of each row, and gradients through them.

Shapes: N positions, V tokens of the vocabulary; logits (N, V), or (B, T, V) with N = B · T. Half precision is
computed in float32. Beyond its result a function needs the memory of a few chunks, whatever N is.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from torch_impl.precision import wide_dtype

CHUNK = {"cpu": 2**17}
"""Logits of a chunk by the kind of device: on the CPU as many as stay in the cache of a core."""
CHUNK_ELSEWHERE = 2**24

NOTHING = -1000.0
"""A logarithm whose exponential is 0 in every dtype: it stands in for -inf where 0 · -∞ would be NaN."""


def statistics(
    logits: Tensor, tokens: Tensor | None, temperature: float, *, entropy: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the softmax of logits / τ in each position: log p of the token, entropy, largest logit, log Σ exp.

    Shape (N,) each, in the dtype of the computation; the largest logit is divided by τ, and Σ is over what
    is above it. What was not asked for is log Σ exp with the other sign, or with its own.
    """
    wide, positions = wide_dtype(logits.dtype), logits.shape[:-1].numel()
    tops, totals = (torch.empty(positions, dtype=wide, device=logits.device) for _ in range(2))
    chosen, above = torch.zeros_like(tops), torch.zeros_like(tops)
    for chunk, rows in _chunks(logits):
        shifted, tops[chunk] = _shifted(rows, temperature)
        if tokens is not None:
            chosen[chunk] = shifted.gather(1, tokens[chunk, None])[:, 0]
        if entropy:
            weights = shifted.exp()
            sums = weights.sum(dim=1)
            above[chunk] = weights.mul_(shifted.clamp_(min=NOTHING)).sum(dim=1) / sums
        else:
            sums = shifted.exp_().sum(dim=1)
        totals[chunk] = sums.log_()
    return chosen - totals, totals - above, tops, totals


def slopes(
    logits: Tensor,
    tokens: Tensor | None,
    known: Sequence[Tensor] | Tensor,
    of_logprobs: Tensor | None,
    of_entropies: Tensor | None,
    temperature: float,
    out: Tensor | None = None,
) -> Tensor:
    """The gradient in the logits, shape (N, V), of log p of the token and of the entropy H.

    Those are ([v = token] - p_v) / τ and -p_v (log p_v + H) / τ, each times its upstream, shape (N,); None
    where there is none. `known` is what :func:`statistics` found. `out` may be the logits themselves.
    """
    _, entropies, tops, totals = known
    by_token, by_entropy = (None if x is None else x / temperature for x in (of_logprobs, of_entropies))
    if out is None:
        out = torch.empty(len(tops), logits.shape[-1], dtype=logits.dtype, device=logits.device)
    for chunk, rows in _chunks(logits):
        logprobs, _ = _shifted(rows, temperature, tops[chunk])
        logprobs -= totals[chunk, None]
        if by_entropy is not None:
            factors = logprobs.clamp(min=NOTHING).add_(entropies[chunk, None]).mul_(by_entropy[chunk, None])
            if by_token is not None:
                factors += by_token[chunk, None]
            found = logprobs.exp_().mul_(factors).neg_()
        else:
            assert by_token is not None
            found = logprobs.exp_().mul_(-by_token[chunk, None])
        if by_token is not None and tokens is not None:
            found.scatter_add_(1, tokens[chunk, None], by_token[chunk, None])
        out[chunk] = found
    return out


def _chunks(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some positions, counted over all rows, and their logits, about a chunk of them; none are copied."""
    together = logits.ndim == 2 or logits.stride(0) == logits.shape[1] * logits.stride(1)
    parts = [logits.view(-1, logits.shape[-1])] if together else logits.unbind()
    count = max(1, CHUNK.get(logits.device.type, CHUNK_ELSEWHERE) // max(1, logits.shape[-1]))
    start = 0
    for part in parts:
        for begin in range(0, len(part), count):
            rows = part[begin : begin + count]
            yield slice(start, start + len(rows)), rows
            start += len(rows)


def _shifted(rows: Tensor, temperature: float, tops: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits / τ less the largest of each row, and these, in the dtype of the computation."""
    scaled = rows.to(wide_dtype(rows.dtype))
    if temperature != 1.0:
        scaled = scaled / temperature
    tops = scaled.amax(dim=1) if tops is None else tops
    return torch.sub(scaled, tops[:, None], out=None if scaled is rows else scaled), tops
