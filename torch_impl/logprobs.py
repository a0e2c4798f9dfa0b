"""From logits to log-probabilities and entropy.

Shapes: B rows, T positions, V tokens of the vocabulary. Logits are real or -inf, and at least one in each
position is real. float16 and bfloat16 logits are computed in float32 and rounded once at the end. The
definitions are those of the chapter `ppo` of the spec.
"""

import torch
from torch import Tensor

from torch_impl import checks


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
    logprobs = _log_softmax(logits, temperature)
    checks.integers("tokens", tokens, tuple(logits.shape[:-1]), like="logits")
    return logprobs.gather(-1, tokens.long()[..., None])[..., 0].to(logits.dtype)


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
    logprobs = _log_softmax(logits, temperature)
    # -inf times its probability, 0, would be NaN: 0 stands in for it, in the value and in the gradient.
    finite = torch.where(logprobs == -torch.inf, torch.zeros_like(logprobs), logprobs)
    return -(logprobs.exp() * finite).sum(dim=-1).to(logits.dtype)


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """Check the logits; log-probabilities of the whole vocabulary, in the dtype of the computation."""
    checks.positive("temperature", temperature)
    checks.floating("logits", logits, (None, None, None))
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return torch.log_softmax(wide / temperature, dim=-1)
