"""From logits to log-probabilities and entropy.

Shapes: B rows, T positions, V tokens of the vocabulary. Logits are real or -inf, and at least one in each
position is real. float16 and bfloat16 logits are computed in float32 and rounded once at the end. The
definitions are those of the chapter `ppo` of the spec.

Positions are gone through in chunks: beyond results and gradients, memory is that of a chunk, whatever B and
T are. On the CPU a chunk has about 2¹⁷ logits, which stay in a core's cache, elsewhere 2²⁴. The gradient is
written down, not recorded, and cannot itself be differentiated.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from torch_impl import checks

CHUNK = {"cpu": 2**17}
"""Logits of a chunk by the kind of device."""
CHUNK_ELSEWHERE = 2**24

NOTHING = -1000.0
"""A logarithm whose exponential is 0 in every dtype: it stands in for -inf where 0 · -∞ would be NaN."""


def token_logprobs(logits: Tensor, tokens: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of the tokens under the softmax of logits / τ.

    Clauses: `ppo.token-logprobs`, `ppo.token-logprobs-extremes`.

    Parameters
    ----------
    logits : (B, T, V) floating
        Logits, real or -inf.
    tokens : (B, T) integer
        The token of each position, 0 ... V-1. Not checked: that would wait for the device.
    temperature : float, above 0
        τ, by which the logits are divided.

    Returns
    -------
    (B, T)
        Log-probabilities in nats, in the dtype of `logits`.

    Raises
    ------
    ValueError
        For a temperature that is not above 0, tokens that are no integers, shapes that disagree.
    """
    _check(logits, temperature)
    checks.integers("tokens", tokens, tuple(logits.shape[:-1]), like="logits")
    logprobs: Tensor = _Softmax.apply(logits, tokens, temperature, False)[0]  # type: ignore[no-untyped-call]
    return logprobs


def token_entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Entropy -Σ p log p of the softmax of logits / τ.

    Clauses: `ppo.entropy`, `ppo.entropy-extremes`.

    Parameters
    ----------
    logits : (B, T, V) floating
        Logits, real or -inf.
    temperature : float, above 0
        τ, by which the logits are divided.

    Returns
    -------
    (B, T)
        Entropies in nats, in the dtype of `logits`.

    Raises
    ------
    ValueError
        For a temperature that is not above 0, or logits of another shape.
    """
    _check(logits, temperature)
    entropies: Tensor = _Softmax.apply(logits, None, temperature, True)[1]  # type: ignore[no-untyped-call]
    return entropies


def token_logprobs_and_entropy(
    logits: Tensor, tokens: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Both :func:`token_logprobs` and :func:`token_entropy`, for little more than the price of one."""
    _check(logits, temperature)
    checks.integers("tokens", tokens, tuple(logits.shape[:-1]), like="logits")
    both: tuple[Tensor, Tensor] = _Softmax.apply(logits, tokens, temperature, True)  # type: ignore[no-untyped-call]
    return both


class _Softmax(torch.autograd.Function):
    """Log-probabilities of tokens and entropies of all positions, and their gradient in the logits."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, tokens: Tensor | None, temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor]:
        """Keep of each position what its softmax is made of: the largest logit, log Σ exp, the entropy."""
        wide, positions = _wide(logits.dtype), logits.shape[:-1].numel()
        tops, totals = (torch.empty(positions, dtype=wide, device=logits.device) for _ in range(2))
        chosen, entropies = torch.zeros_like(tops), torch.zeros_like(tops)
        for chunk, rows in _chunks(logits):
            shifted, tops[chunk] = _shifted(rows, temperature)
            if tokens is not None:
                chosen[chunk] = shifted.gather(1, tokens.flatten()[chunk].long()[:, None])[:, 0]
            if entropy:
                weights = shifted.exp()
                sums = weights.sum(dim=1)
                shifted.clamp_(min=NOTHING)
                entropies[chunk] = -(weights.mul_(shifted).sum(dim=1) / sums)
            else:
                sums = shifted.exp_().sum(dim=1)
            totals[chunk] = sums.log_()
        logprobs, entropies = chosen - totals, entropies + totals
        ctx.temperature, ctx.entropy = temperature, entropy
        ctx.save_for_backward(logits, tokens, tops, totals, entropies)
        shape = logits.shape[:-1]
        return logprobs.view(shape).to(logits.dtype), entropies.view(shape).to(logits.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        """([v = token] - p_v) / τ times one upstream, and -p_v (log p_v + H) / τ times the other."""
        logits, tokens, tops, totals, entropies = ctx.saved_tensors
        of_logprob, of_entropy = (x.flatten().to(tops.dtype) / ctx.temperature for x in upstream)
        gradient = torch.empty(len(tops), logits.shape[-1], dtype=logits.dtype, device=logits.device)
        for chunk, rows in _chunks(logits):
            logprobs, _ = _shifted(rows, ctx.temperature, tops[chunk])
            logprobs -= totals[chunk, None]
            if ctx.entropy:
                slopes = logprobs.clamp(min=NOTHING).add_(entropies[chunk, None])
                slopes.mul_(of_entropy[chunk, None])
                if tokens is not None:
                    slopes += of_logprob[chunk, None]
                slopes.mul_(logprobs.exp_()).neg_()
            else:
                slopes = logprobs.exp_().mul_(-of_logprob[chunk, None])
            if tokens is not None:
                slopes.scatter_add_(1, tokens.flatten()[chunk].long()[:, None], of_logprob[chunk, None])
            gradient[chunk] = slopes
        return gradient.view(logits.shape), None, None, None


def _chunks(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some positions, counted over all rows, and their logits, about a chunk of them; none are copied."""
    batch, length, vocabulary = logits.shape
    together = batch <= 1 or logits.stride(0) == length * logits.stride(1)
    parts = [logits.detach().view(-1, vocabulary)] if together else logits.detach().unbind()
    count = max(1, CHUNK.get(logits.device.type, CHUNK_ELSEWHERE) // max(1, vocabulary))
    start = 0
    for part in parts:
        for begin in range(0, len(part), count):
            rows = part[begin : begin + count]
            yield slice(start, start + len(rows)), rows
            start += len(rows)


def _shifted(rows: Tensor, temperature: float, tops: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits / τ less the largest of each row, and these, in the dtype of the computation."""
    wide = _wide(rows.dtype)
    scaled = rows.to(wide, copy=True) if temperature == 1.0 else rows.to(wide) / temperature
    tops = scaled.amax(dim=1) if tops is None else tops
    return scaled.sub_(tops[:, None]), tops


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the computation."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _check(logits: Tensor, temperature: float) -> None:
    checks.positive("temperature", temperature)
    checks.floating("logits", logits, (None, None, None))
