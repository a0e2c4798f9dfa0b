"""Importance sampling: ratios of probabilities, weighted means, effective sample size.

Shapes: B rows, T positions, N samples; `mask` is True at the tokens that count. Inputs under mask False do
not matter, NaN included. float16 and bfloat16 inputs are computed in float32 and rounded once at the end.
Gradients flow into `logprobs` alone: old and rollout log-probabilities are constants. The definitions are
those of the chapter `importance_sampling` of the spec.
"""

import torch
from torch import Tensor

from torch_impl import checks
from torch_impl.precision import widen


def importance_ratio(
    logprobs: Tensor, old_logprobs: Tensor, *, log_ratio_clip: float | None = 20.0
) -> Tensor:
    """Importance ratios ρ = exp(ℓ), ℓ = logprobs - old_logprobs, with ℓ clamped to [-c, c].

    Clauses: `is.ratio`, `is.gradient-of-ratio`, `is.log-ratio-clamp`.

    Parameters
    ----------
    logprobs, old_logprobs : (B, T) floating
        Log-probability of each token now, and under the policy that produced it; nats.
    log_ratio_clip : float above 0, or None
        The bound c of the log-ratio, nats; None does not clamp.

    Returns
    -------
    (B, T)
        ρ of each token, in the dtype of `logprobs`; beyond the clamp its gradient is 0.

    Raises
    ------
    ValueError
        For c that is not positive, or shapes that disagree.
    """
    _check_pair("logprobs", logprobs, "old_logprobs", old_logprobs)
    log_ratio = widen(logprobs) - widen(old_logprobs.detach())
    if log_ratio_clip is not None:
        checks.positive("log_ratio_clip", log_ratio_clip)
        log_ratio = log_ratio.clamp(-log_ratio_clip, log_ratio_clip)
    return log_ratio.exp().to(logprobs.dtype)


def sequence_importance_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Sequence ratios exp(mean of ℓ over the active tokens): the geometric mean of a row's ratios.

    Clauses: `is.sequence-ratio`, `is.sequence-ratio-gradient`.

    Parameters
    ----------
    logprobs, old_logprobs : (B, T) floating
        Log-probability of each token now, and under the policy that produced it; nats.
    mask : (B, T) bool
        True at the tokens that count.

    Returns
    -------
    (B,)
        One ratio a row, in the dtype of `logprobs`; 1 for a row without active tokens.

    Raises
    ------
    ValueError
        For shapes that disagree or a mask that is not boolean.
    """
    _check_pair("logprobs", logprobs, "old_logprobs", old_logprobs)
    checks.boolean("mask", mask, tuple(logprobs.shape), like="logprobs")
    difference = widen(logprobs) - widen(old_logprobs.detach())
    log_ratio = torch.where(mask, difference, torch.zeros_like(difference))
    return (log_ratio.sum(1) / mask.sum(1).clamp(min=1)).exp().to(logprobs.dtype)


@torch.no_grad()
def truncated_importance_weights(
    old_logprobs: Tensor, rollout_logprobs: Tensor, *, cap: float, mode: str = "truncate"
) -> Tensor:
    """Weights w = exp(old_logprobs - rollout_logprobs), cut down to C or dropped above it; a constant.

    Clauses: `is.truncated`, `is.truncated-overflow`, `contract.constants`.

    Parameters
    ----------
    old_logprobs, rollout_logprobs : (B, T) floating
        Log-probability of each token from the trainer before the update, and from the engine that
        sampled it; nats.
    cap : float above 0
        The largest weight C.
    mode : "truncate" or "mask"
        Whether a weight above C becomes C, or 0.

    Returns
    -------
    (B, T)
        Weight of each token, in the dtype of `old_logprobs`; no gradient flows through it.

    Raises
    ------
    ValueError
        For a cap that is not positive, an unknown mode, or shapes that disagree.
    """
    checks.positive("cap", cap)
    checks.choice("mode", mode, ("truncate", "mask"))
    _check_pair("old_logprobs", old_logprobs, "rollout_logprobs", rollout_logprobs)
    weights = (widen(old_logprobs) - widen(rollout_logprobs)).exp()
    if mode == "truncate":
        weights = weights.clamp(max=cap)
    else:
        weights = torch.where(weights <= cap, weights, torch.zeros_like(weights))
    return weights.to(old_logprobs.dtype)


def importance_sampling_mean(
    f_values: Tensor, log_weights: Tensor, *, self_normalized: bool = False
) -> Tensor:
    """Estimate of E_p[f] from samples of q: (1/N) Σ w_i f_i, or Σ w_i f_i / Σ w_i.

    Clauses: `is.estimator`, `is.self-normalised`, `is.self-normalised-shift`.

    Parameters
    ----------
    f_values, log_weights : (N,) floating
        f at each sample, and log w, -∞ where the weight is 0.
    self_normalized : bool
        Whether to divide by the sum of the weights, and not by N.

    Returns
    -------
    scalar
        The estimate, in the dtype of `f_values`.

    Raises
    ------
    ValueError
        For no samples, shapes that disagree, or a `self_normalized` that is no boolean.
    """
    checks.flag("self_normalized", self_normalized)
    _check_samples(log_weights)
    checks.floating("f_values", f_values, tuple(log_weights.shape), like="log_weights")
    log_weights, f = widen(log_weights), widen(f_values)
    weights = log_weights.softmax(0) if self_normalized else log_weights.exp() / len(f)
    return (weights * f).sum().to(f_values.dtype)


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """Effective sample size (Σ w_i)² / Σ w_i², from 1 to N.

    Clause: `is.effective-sample-size`.

    Parameters
    ----------
    log_weights : (N,) floating
        log w of each sample, -∞ where the weight is 0; one at least is finite.

    Returns
    -------
    scalar
        In the dtype of `log_weights`.

    Raises
    ------
    ValueError
        For no samples, or a tensor that is not of shape (N,).
    """
    _check_samples(log_weights)
    shares = widen(log_weights).softmax(0)
    return shares.square().sum().reciprocal().to(log_weights.dtype)


def _check_pair(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Check two batches of log-probabilities."""
    checks.floating(name, x, (None, None))
    checks.floating(other_name, other, tuple(x.shape), like=name)


def _check_samples(log_weights: Tensor) -> None:
    """Check that there is at least one sample."""
    checks.floating("log_weights", log_weights, (None,))
    if not len(log_weights):
        raise ValueError("log_weights must hold at least one sample, got shape (0,)")
