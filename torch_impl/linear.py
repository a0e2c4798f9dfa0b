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
from torch_impl.precision import wide_dtype

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

    Returns
    -------
    two of (B, T)
        Log-probabilities and entropies in nats, in the dtype of `hidden`.

    Raises
    ------
    ValueError
        For a temperature that is not above 0, a vocabulary that `weight` does not have, tokens that are no
        integers, shapes or dtypes that disagree.
    """
    weight = _checked(hidden, weight, tokens, temperature, vocabulary)
    both: tuple[Tensor, Tensor] = _Head.apply(hidden, weight, tokens, temperature)  # type: ignore[no-untyped-call]
    return both


Objective = Callable[[Tensor, Tensor, slice], Tensor]
"""Log-probabilities and entropies of some rows, and which rows these are, to a scalar."""


def linear_objective(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    objective: Objective,
    *,
    temperature: float = 1.0,
    vocabulary: int | None = None,
) -> Tensor:
    """A sum over rows of what `objective` makes of their log-probabilities and entropies.

    The gradient is taken in the forward pass, chunk by chunk, while the logits are there: a quarter of the
    products of :func:`linear_logprobs` is saved. For a loss over rows b that is no sum, as a mean over all
    tokens, the objective of a row is divided by what is known before.

    Parameters
    ----------
    hidden, weight, tokens, temperature, vocabulary
        As for :func:`linear_logprobs`.
    objective : function
        Called with log-probabilities and entropies, (b, T) each, of some rows, and the slice of the batch
        that these rows are; returns a scalar, by differentiable operations on the two.

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
    total: Tensor = _Objective.apply(hidden, weight, tokens, objective, temperature)  # type: ignore[no-untyped-call]
    return total


class _Head(torch.autograd.Function):
    """Log-probabilities and entropies; the gradient computes the logits once more."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Keep what the softmax of each position is made of."""
        rows, chosen = hidden.detach().flatten(0, 1), tokens.flatten().long()
        wide = wide_dtype(hidden.dtype)
        known = torch.empty(4, len(rows), dtype=wide, device=hidden.device)
        for chunk in _chunks(len(rows), weight):
            logits = rows[chunk] @ weight.detach().T
            known[:, chunk] = torch.stack(softmax.statistics(logits, chosen[chunk], temperature))
        ctx.temperature = temperature
        ctx.save_for_backward(hidden, weight, chosen, known)
        logprobs, entropies = (x.view(tokens.shape).to(hidden.dtype) for x in known[:2])
        return logprobs, entropies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Through the logits of each chunk."""
        hidden, weight, chosen, known = ctx.saved_tensors
        rows = hidden.flatten(0, 1)
        gradients = _Gradients(rows, weight, ctx.needs_input_grad)
        of_logprobs, of_entropies = (x.flatten().to(known.dtype) for x in upstream)
        for chunk in _chunks(len(rows), weight):
            logits = rows[chunk] @ weight.T
            slopes = softmax.slopes(
                logits,
                chosen[chunk],
                known[:, chunk],
                of_logprobs[chunk],
                of_entropies[chunk],
                ctx.temperature,
                out=logits,
            )
            gradients.add(chunk, slopes)
        of_hidden, of_weight = gradients.found()
        return None if of_hidden is None else of_hidden.view(hidden.shape), of_weight, None, None


class _Objective(torch.autograd.Function):
    """A sum over rows, its gradient taken where the logits are."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, tokens: Tensor, objective: Objective, temperature: float
    ) -> Tensor:
        """Keep the gradients for an upstream of 1."""
        batch, length = tokens.shape
        chosen, wide = tokens.long(), wide_dtype(hidden.dtype)
        gradients = _Gradients(hidden.detach().flatten(0, 1), weight.detach(), ctx.needs_input_grad)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        for few in _chunks(batch, weight, length):
            logits = hidden.detach()[few].flatten(0, 1) @ weight.detach().T
            known = softmax.statistics(logits, chosen[few].flatten(), temperature)
            leaves = [x.view(-1, length).requires_grad_() for x in known[:2]]
            with torch.enable_grad():
                value = objective(leaves[0], leaves[1], few)
                if value.shape:
                    raise ValueError(f"objective must return a scalar, got shape {tuple(value.shape)}")
                above: tuple[Tensor | None, ...] = torch.autograd.grad(value, leaves, allow_unused=True)
            total += value.detach()
            if gradients.wanted:
                of_logprobs, of_entropies = (None if x is None else x.flatten() for x in above)
                slopes = softmax.slopes(
                    logits, chosen[few].flatten(), known, of_logprobs, of_entropies, temperature, out=logits
                )
                gradients.add(slice(few.start * length, few.stop * length), slopes)
        of_hidden, of_weight = gradients.found()
        ctx.save_for_backward(None if of_hidden is None else of_hidden.view(hidden.shape), of_weight)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Upstream times what was kept."""
        of_hidden, of_weight = (
            None if x is None else (x * upstream[0]).to(x.dtype) for x in ctx.saved_tensors
        )
        return of_hidden, of_weight, None, None, None


class _Gradients:
    """The gradients in hidden states, row by row, and in the output head, added up at least in float32."""

    def __init__(self, rows: Tensor, weight: Tensor, wanted: tuple[bool, ...]) -> None:
        self.rows, self.weight = rows, weight
        self.of_rows = torch.empty_like(rows) if wanted[0] else None
        wide = wide_dtype(weight.dtype)
        self.of_weight = torch.zeros_like(weight, dtype=wide) if wanted[1] else None

    @property
    def wanted(self) -> bool:
        """Whether there is any to find."""
        return self.of_rows is not None or self.of_weight is not None

    def add(self, chunk: slice, slopes: Tensor) -> None:
        """Go on from the gradient in the logits of a chunk."""
        if self.of_rows is not None:
            torch.mm(slopes, self.weight, out=self.of_rows[chunk])
        if self.of_weight is not None:
            rows = self.rows[chunk]
            if slopes.dtype == self.of_weight.dtype:
                self.of_weight.addmm_(slopes.T, rows)
            else:
                self.of_weight += slopes.T @ rows

    def found(self) -> tuple[Tensor | None, Tensor | None]:
        """Both, in the dtypes of what they are gradients in; None for what was not wanted."""
        of_weight = None if self.of_weight is None else self.of_weight.to(self.weight.dtype)
        return self.of_rows, of_weight


def _chunks(count: int, weight: Tensor, length: int = 1) -> Iterator[slice]:
    """Slices of so many rows of a length, whose logits make about a chunk."""
    most = CHUNK.get(weight.device.type, CHUNK_ELSEWHERE)
    step = max(1, most // max(1, len(weight) * length))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


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
