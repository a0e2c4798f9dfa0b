"""From logits to log-probabilities and entropy.

Shapes: B rows, T positions, V tokens of the vocabulary. Logits are real or -inf, and at least one in each
position is real. float16 and bfloat16 logits are computed in float32 and rounded once at the end. The
definitions are those of the chapter `ppo` of the spec.

Positions are gone through in chunks: beyond results and gradients, memory is that of a chunk, whatever B and
T are. The gradient is written down, not recorded, and cannot itself be differentiated.
"""

from typing import Any

import torch
from torch import Tensor

from torch_impl import checks, softmax


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
        """Keep what the softmax of each position is made of."""
        chosen = None if tokens is None else tokens.flatten().long()
        known = softmax.statistics(logits.detach(), chosen, temperature, entropy=entropy)
        ctx.temperature, ctx.entropy = temperature, entropy
        ctx.save_for_backward(logits, chosen, *known)
        logprobs, entropies = (x.view(logits.shape[:-1]).to(logits.dtype) for x in known[:2])
        return logprobs, entropies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradients of both, added up."""
        logits, chosen, *known = ctx.saved_tensors
        of_logprobs, of_entropies = (x.flatten().to(known[0].dtype) for x in upstream)
        found = softmax.slopes(
            logits,
            chosen,
            known,
            None if chosen is None else of_logprobs,
            of_entropies if ctx.entropy else None,
            ctx.temperature,
        )
        return found.view(logits.shape), None, None, None


def _check(logits: Tensor, temperature: float) -> None:
    checks.positive("temperature", temperature)
    checks.floating("logits", logits, (None, None, None))
