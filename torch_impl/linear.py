"""From hidden states and the output head to log-probabilities and losses, without the logits of all tokens.

Shapes: B rows, T positions, D features, V tokens of the vocabulary. Logits are `hidden` times the transposed
`weight`, in their common dtype, of which no more are there at once than a chunk's: gradients take them up
again. float16 and bfloat16 products accumulate in float32 as the device's library does it, the softmax is
computed in float32, and results are rounded once. Gradients are written down and cannot be differentiated.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from torch_impl import checks, softmax
from torch_impl.precision import wide_dtype, without_autocast

CHUNK = {"cpu": 2**23}
"""Logits of a chunk by the kind of device: products of a few hundred rows, which libraries are fast at."""
CHUNK_ELSEWHERE = 2**30


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    *,
    temperature: float = 1.0,
    vocabulary: int | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the tokens, and entropies, under the softmax of hidden · weightᵀ / τ.

    Clauses: `ppo.token-logprobs`, `ppo.entropy`.

    Parameters
    ----------
    hidden : (B, T, D) floating
        What the output head is applied to.
    weight : (V, D) floating
        The output head.
    tokens : (B, T) integer
        The token of each position, 0 ... V-1. Not checked: that would wait for the device.
    temperature : float, above 0
        τ, by which the logits are divided.
    vocabulary : int, 1 ... V, or None
        How many rows of `weight` are tokens; those behind them are padding, of probability 0, and get no
        gradient. None: all.
    dtype : torch.dtype or None
        Of what is returned; None: that of `hidden`. Ratios of policies need float32.

    Returns
    -------
    two of (B, T)
        Log-probabilities and entropies in nats.

    Raises
    ------
    ValueError
        For a temperature that is not above 0, a vocabulary that `weight` does not have, tokens that are no
        integers, shapes or dtypes that disagree.
    """
    weight = _checked(hidden, weight, tokens, temperature, vocabulary)
    both: tuple[Tensor, Tensor] = _LogProbabilities.apply(hidden, weight, tokens, temperature, dtype)  # type: ignore[no-untyped-call]
    return both


Objective = Callable[[Tensor, Tensor, slice], Tensor]
"""Log-probabilities and entropies of some rows, and which rows these are, to a scalar."""


def linear_objective(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    objective: Objective,
    *,
    whole_rows: bool = True,
    temperature: float = 1.0,
    vocabulary: int | None = None,
) -> Tensor:
    """A sum over rows of what `objective` makes of their log-probabilities and entropies.

    The gradient is taken in the forward pass, while the logits are there: a quarter of the products of
    :func:`linear_logprobs` is saved. Where whole rows are asked for and the logits of one row are more than a
    chunk, they are computed once more after all. For a loss that is no sum, as a mean over all tokens, the
    objective is divided by what is known before.

    Parameters
    ----------
    hidden, weight, tokens, temperature, vocabulary
        As for :func:`linear_logprobs`.
    objective : function
        Called with log-probabilities and entropies of some rows, (b, T) each, and the slice of the batch that
        these rows are; returns a scalar, by differentiable operations on the two.
    whole_rows : bool
        False for an objective that is a sum over tokens: it is called with those of some positions, (n,)
        each, and their slice of all B · T.

    Returns
    -------
    scalar
        The sum, in the dtype of the computation, with gradients for `hidden` and `weight`.

    Raises
    ------
    ValueError
        As for :func:`linear_logprobs`, and for an objective that returns no scalar.
    """
    weight = _checked(hidden, weight, tokens, temperature, vocabulary)
    total: Tensor = _Objective.apply(hidden, weight, tokens, objective, temperature, whole_rows)  # type: ignore[no-untyped-call]
    return total


class _LogProbabilities(torch.autograd.Function):
    """Log-probabilities and entropies; the gradient computes the logits once more."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        tokens: Tensor,
        temperature: float,
        dtype: torch.dtype | None,
    ) -> tuple[Tensor, Tensor]:
        """Keep what the softmax of each position is made of."""
        head = _Head(hidden.detach(), weight.detach(), tokens, temperature)
        known, _ = head.statistics(slice(0, tokens.numel()))
        ctx.temperature = temperature
        ctx.save_for_backward(hidden, weight, tokens, known)
        logprobs, entropies = (x.view(tokens.shape).to(dtype or hidden.dtype) for x in known[:2])
        return logprobs, entropies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Through the logits of each chunk."""
        hidden, weight, tokens, known = ctx.saved_tensors
        head = _Head(hidden, weight, tokens, ctx.temperature, ctx.needs_input_grad)
        above = [x.flatten().to(known.dtype) for x in upstream]
        head.differentiate(slice(0, tokens.numel()), known, above[0], above[1])
        return *head.gradients(), None, None, None


class _Objective(torch.autograd.Function):
    """A sum over rows, its gradient taken where the logits are."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        tokens: Tensor,
        objective: Objective,
        temperature: float,
        whole_rows: bool,
    ) -> Tensor:
        """Keep the gradients for an upstream of 1."""
        length = tokens.shape[1] if whole_rows else 1
        shape = (-1, length) if whole_rows else (-1,)
        head = _Head(hidden.detach(), weight.detach(), tokens, temperature, ctx.needs_input_grad)
        total = torch.zeros((), dtype=wide_dtype(hidden.dtype), device=hidden.device)
        for rows in _chunks(slice(0, tokens.numel() // max(length, 1)), weight, length):
            span = slice(rows.start * length, rows.stop * length)
            known, logits = head.statistics(span)
            leaves = [x.view(shape).requires_grad_() for x in known[:2]]
            with torch.enable_grad():
                value = objective(leaves[0], leaves[1], rows)
                if value.shape:
                    raise ValueError(f"objective must return a scalar, got shape {tuple(value.shape)}")
                above: tuple[Tensor | None, ...] = torch.autograd.grad(value, leaves, allow_unused=True)
            total += value.detach()
            of_logprobs, of_entropies = (None if x is None else x.flatten() for x in above)
            head.differentiate(span, known, of_logprobs, of_entropies, logits)
        ctx.save_for_backward(*head.gradients())
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Upstream times what was kept."""
        kept = ctx.saved_tensors
        of_hidden, of_weight = (None if x is None else (x * upstream[0]).to(x.dtype) for x in kept)
        return of_hidden, of_weight, None, None, None, None


class _Head:
    """An output head on the hidden states of positions, whose logits exist a chunk at a time.

    Positions are counted over all rows of the batch. The head's gradient is added up in float32 or wider.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        tokens: Tensor,
        temperature: float,
        wanted: tuple[bool, ...] = (False, False),
    ) -> None:
        self.shape, self.states, self.weight = hidden.shape, hidden.flatten(0, 1), weight
        self.tokens, self.temperature = tokens.flatten().long(), temperature
        self.of_states = torch.zeros_like(self.states) if wanted[0] else None
        wide = wide_dtype(weight.dtype)
        self.of_weight = torch.zeros_like(weight, dtype=wide) if wanted[1] else None

    def statistics(self, span: slice) -> tuple[Tensor, Tensor | None]:
        """What :func:`softmax.statistics` says of some positions, and their logits if they are one chunk."""
        wide = wide_dtype(self.states.dtype)
        known = torch.empty(4, span.stop - span.start, dtype=wide, device=self.states.device)
        chunks, logits = list(_chunks(span, self.weight)), None
        for chunk in chunks:
            logits = self._logits(chunk)
            found = softmax.statistics(logits, self.tokens[chunk], self.temperature)
            known[:, chunk.start - span.start : chunk.stop - span.start] = torch.stack(found)
        return known, logits if len(chunks) == 1 else None

    def differentiate(
        self,
        span: slice,
        known: Tensor,
        of_logprobs: Tensor | None,
        of_entropies: Tensor | None,
        logits: Tensor | None = None,
    ) -> None:
        """Add the gradients that some positions make; logits that are given are written over."""
        unused = of_logprobs is None and of_entropies is None
        if unused or (self.of_states is None and self.of_weight is None):
            return
        for chunk in _chunks(span, self.weight):
            here = slice(chunk.start - span.start, chunk.stop - span.start)
            above = [None if x is None else x[here] for x in (of_logprobs, of_entropies)]
            slopes = self._logits(chunk) if logits is None else logits
            softmax.slopes(
                slopes, self.tokens[chunk], known[:, here], above[0], above[1], self.temperature, out=slopes
            )
            with without_autocast(slopes.device.type):
                self._add(chunk, slopes)

    def _add(self, chunk: slice, slopes: Tensor) -> None:
        if self.of_states is not None:
            torch.mm(slopes, self.weight, out=self.of_states[chunk])
        if self.of_weight is not None and slopes.dtype == self.of_weight.dtype:
            self.of_weight.addmm_(slopes.T, self.states[chunk])
        elif self.of_weight is not None:
            self.of_weight += slopes.T @ self.states[chunk]

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """In hidden states and in the head; None for what was not wanted."""
        of_hidden = None if self.of_states is None else self.of_states.view(self.shape)
        return of_hidden, None if self.of_weight is None else self.of_weight.to(self.weight.dtype)

    def _logits(self, chunk: slice) -> Tensor:
        with without_autocast(self.states.device.type):
            return self.states[chunk] @ self.weight.T


def _chunks(span: slice, weight: Tensor, length: int = 1) -> Iterator[slice]:
    """Slices of a span of rows of this length, at least one each, whose logits make about a chunk."""
    most = CHUNK.get(weight.device.type, CHUNK_ELSEWHERE)
    step = max(1, most // max(1, len(weight) * length))
    starts = range(span.start, span.stop, step)
    return (slice(start, min(start + step, span.stop)) for start in starts)


def _checked(
    hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float, vocabulary: int | None
) -> Tensor:
    """Check the arguments; the part of the output head that belongs to tokens."""
    checks.positive("temperature", temperature)
    checks.floating("hidden", hidden, (None, None, None))
    checks.floating("weight", weight, (None, hidden.shape[2]), like="hidden")
    checks.integers("tokens", tokens, tuple(hidden.shape[:2]), like="hidden")
    if weight.dtype != hidden.dtype:
        raise ValueError(f"weight must have the dtype of hidden, {hidden.dtype}, got {weight.dtype}")
    if vocabulary is None:
        return weight
    checks.integer("vocabulary", vocabulary, at_least=1)
    if vocabulary > len(weight):
        raise ValueError(f"vocabulary must be at most {len(weight)}, the rows of weight, got {vocabulary}")
    return weight[:vocabulary]
