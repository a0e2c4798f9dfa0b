"""Policy losses: aggregation, the clipped and the penalised loss, metrics.

Shapes: B rows, T positions; `mask` is True at the tokens that the policy produced. What lies under mask
False does not matter, NaN included, neither to a loss nor to its gradient. Old log-probabilities,
advantages and rollout weights are constants: no gradient flows into them. float16 and bfloat16 inputs are
computed in float32 and rounded once at the end. The definitions are those of the chapter `ppo` of the spec.
"""

import torch
from torch import Tensor

from torch_impl import checks

MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")
EMPTY_ROWS = ("count", "drop")
RATIO_LEVELS = ("token", "sequence", "sequence-token")


def aggregate(
    x: Tensor,
    mask: Tensor,
    *,
    mode: str = "token-mean",
    horizon: float | None = None,
    empty_rows: str = "count",
) -> Tensor:
    """Aggregate per-token numbers to one.

    Clauses: `ppo.aggregation`, `ppo.aggregation-empty-rows`, `ppo.aggregation-horizon`.

    Parameters
    ----------
    x : (B, T) floating
        Any per-token numbers.
    mask : (B, T) bool
        True at the tokens that take part.
    mode : "token-mean", "seq-mean-token-sum", "seq-mean-token-mean" or "seq-mean-token-sum-norm"
        The mean over all active tokens; or the mean over rows of their sums, of their means, or of their
        sums over the horizon.
    horizon : float, above 0, or None
        What "seq-mean-token-sum-norm" divides a row's sum by; None stands for T.
    empty_rows : "count" or "drop"
        Whether a row without active tokens counts as 0 in a mean over rows, or not at all.

    Returns
    -------
    scalar
        In the dtype of `x`; 0 when nothing is active.

    Raises
    ------
    ValueError
        For an unknown mode or `empty_rows`, a horizon that is not above 0, shapes that disagree, a mask that
        is not boolean.
    """
    checks.floating("x", x, (None, None))
    checks.boolean("mask", mask, tuple(x.shape), like="x")
    checks.choice("mode", mode, MODES)
    return _aggregate(_widen(x), mask, mode, horizon, empty_rows).to(x.dtype)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    rollout_weights: Tensor | None = None,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    ratio_level: str = "token",
    aggregation: str = "token-mean",
    horizon: float | None = None,
    empty_rows: str = "count",
    log_ratio_clip: float | None = 20.0,
) -> Tensor:
    """Clipped policy loss: the aggregate of -min(ρA, clip(ρ, 1 - ε_low, 1 + ε_high) A).

    Clauses: `ppo.clip`, `ppo.dual-clip`, `ppo.ratio-level`, `ppo.log-ratio-clamp`, `ppo.rollout-weights`.

    Parameters
    ----------
    logprobs, old_logprobs : (B, T) floating
        Log-probabilities of the tokens under the policy that is trained, and under the one that sampled.
    advantages : (B, T) floating
        A, constants.
    mask : (B, T) bool
        True at the tokens that take part.
    rollout_weights : (B, T) floating or None
        Constants that multiply each token's objective after the clips.
    clip_low, clip_high : float, at least 0
        How far ρ may fall below 1 and rise above it.
    dual_clip : float, above 1, or None
        c: where A < 0 the objective is at least cA.
    ratio_level : "token", "sequence" or "sequence-token"
        Which log-ratio is exponentiated: the token's, its row's mean, or that mean with the token's gradient.
    aggregation, horizon, empty_rows
        As `mode`, `horizon` and `empty_rows` of :func:`aggregate`.
    log_ratio_clip : float, above 0, or None
        The log-ratio that is exponentiated is clipped to so much on either side.

    Returns
    -------
    scalar
        The loss, in the dtype of `logprobs`; 0 when nothing is active.

    Raises
    ------
    ValueError
        For a negative ε, c not above 1, a clip of the log-ratio or a horizon not above 0, an unknown name of
        an option, shapes that disagree, a mask that is not boolean.
    """
    _check_rows(logprobs, mask, old_logprobs=old_logprobs, advantages=advantages)
    _check_clips(clip_low, clip_high, dual_clip)
    checks.choice("aggregation", aggregation, MODES)
    log_ratio = _log_ratio(logprobs, old_logprobs, mask, ratio_level, log_ratio_clip)
    advantages = _constant(mask, advantages)
    free, held = _bounds(log_ratio.detach().exp(), advantages, clip_low, clip_high, dual_clip)
    # Where a bound holds the ratio, exp sees 0: what overflows there cannot turn the gradient into NaN.
    free_ratio = torch.where(free, log_ratio, torch.zeros_like(log_ratio)).exp()
    objective = torch.where(free, free_ratio, held) * advantages
    if rollout_weights is not None:
        checks.floating("rollout_weights", rollout_weights, tuple(mask.shape), like="logprobs")
        objective = objective * _constant(mask, rollout_weights)
    return _aggregate(-objective, mask, aggregation, horizon, empty_rows).to(logprobs.dtype)


@torch.no_grad()
def policy_metrics(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> dict[str, Tensor]:
    """Means over active tokens: of log π_old - log π, and of what the clip and the dual clip act on.

    Clause: `ppo.metrics`. Arguments and errors as for :func:`policy_loss`.

    Returns
    -------
    dict of scalars
        `approx_kl`, `clip_fraction` and `dual_clip_fraction`, in the dtype of `logprobs`, without gradient.
    """
    _check_rows(logprobs, mask, old_logprobs=old_logprobs, advantages=advantages)
    _check_clips(clip_low, clip_high, dual_clip)
    log_ratio = _log_ratio(logprobs, old_logprobs, mask, "token", None)
    ratio, advantages = log_ratio.exp(), _constant(mask, advantages)
    punished = advantages < 0
    clipped = ((advantages > 0) & (ratio > 1 + clip_high)) | (punished & (ratio < 1 - clip_low))
    beyond = torch.zeros_like(punished) if dual_clip is None else punished & (ratio > dual_clip)
    means = {"approx_kl": -log_ratio, "clip_fraction": clipped, "dual_clip_fraction": beyond}
    return {
        name: _aggregate(x.to(ratio.dtype), mask, "token-mean", None, "count").to(logprobs.dtype)
        for name, x in means.items()
    }


def kl_penalty_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    kl: Tensor,
    mask: Tensor,
    *,
    kl_coef: float,
    aggregation: str,
) -> Tensor:
    """Penalised policy loss: the aggregate of β KL - ρA, with nothing clipped.

    Clause: `ppo.kl-penalty`.

    Parameters
    ----------
    logprobs, old_logprobs, advantages, mask
        As for :func:`policy_loss`.
    kl : (B, T) floating
        The divergence, or an estimate of it, at each token; gradients flow into it.
    kl_coef : float, at least 0
        β.
    aggregation
        As `mode` of :func:`aggregate`.

    Returns
    -------
    scalar
        The loss, in the dtype of `logprobs`; 0 when nothing is active.

    Raises
    ------
    ValueError
        For a negative β, an unknown aggregation, shapes that disagree, a mask that is not boolean.
    """
    _check_rows(logprobs, mask, old_logprobs=old_logprobs, advantages=advantages, kl=kl)
    checks.non_negative("kl_coef", kl_coef)
    checks.choice("aggregation", aggregation, MODES)
    ratio = _log_ratio(logprobs, old_logprobs, mask, "token", None).exp()
    penalised = kl_coef * _select(mask, _widen(kl)) - ratio * _constant(mask, advantages)
    return _aggregate(penalised, mask, aggregation, None, "count").to(logprobs.dtype)


def _aggregate(x: Tensor, mask: Tensor, mode: str, horizon: float | None, empty_rows: str) -> Tensor:
    """Aggregate in the dtype of the computation; the mode has been checked."""
    checks.choice("empty_rows", empty_rows, EMPTY_ROWS)
    if horizon is not None:
        checks.positive("horizon", horizon)
    x, lengths = _select(mask, x), mask.sum(dim=1)
    if mode == "token-mean":
        return x.sum() / lengths.sum().clamp(min=1)
    rows = x.sum(dim=1)
    if mode == "seq-mean-token-mean":
        rows = rows / lengths.clamp(min=1)
    if mode == "seq-mean-token-sum-norm":
        rows = rows / (mask.shape[1] if horizon is None else horizon)
    counted = torch.ones_like(lengths) if empty_rows == "count" else (lengths > 0).long()
    return rows.sum() / counted.sum().clamp(min=1)


def _log_ratio(
    logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, level: str, bound: float | None
) -> Tensor:
    """The clipped log-ratio of each token at its level, with the gradient of that level. Shape (B, T)."""
    checks.choice("ratio_level", level, RATIO_LEVELS)
    if bound is not None:
        checks.positive("log_ratio_clip", bound)
    limit = torch.inf if bound is None else bound
    log_ratio = _select(mask, _widen(logprobs)) - _constant(mask, old_logprobs)
    if level == "token":
        return log_ratio.clamp(-limit, limit)
    mean = log_ratio.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    if level == "sequence":
        return mean.clamp(-limit, limit).expand_as(log_ratio)
    own = log_ratio - log_ratio.detach()  # 0, with the gradient of the token
    inside = mean.detach().abs() <= limit
    return mean.detach().clamp(-limit, limit) + torch.where(inside, own, torch.zeros_like(own))


def _bounds(
    ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float, dual_clip: float | None
) -> tuple[Tensor, Tensor]:
    """Where the objective follows the ratio, and the ratio at which it is held elsewhere."""
    rewarded, punished = advantages > 0, advantages < 0
    free = (rewarded & (ratio <= 1 + clip_high)) | (punished & (ratio >= 1 - clip_low))
    held = torch.where(punished, ratio.new_full((), 1 - clip_low), ratio.new_full((), 1 + clip_high))
    if dual_clip is None:
        return free, held
    beyond = punished & (ratio > dual_clip)
    return free & ~beyond, torch.where(beyond, ratio.new_full((), dual_clip), held)


def _constant(mask: Tensor, x: Tensor) -> Tensor:
    """Data: the active numbers of x in the dtype of the computation, without gradient."""
    return _select(mask, _widen(x.detach()))


def _select(mask: Tensor, x: Tensor) -> Tensor:
    """x where the mask holds and 0 elsewhere, whatever lies there: multiplying would keep NaN."""
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


def _widen(x: Tensor) -> Tensor:
    """Move half-precision inputs to float32, the dtype of the computation."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _check_rows(logprobs: Tensor, mask: Tensor, **others: Tensor) -> None:
    """Check the arguments that the losses share: rows of numbers and their mask."""
    checks.floating("logprobs", logprobs, (None, None))
    shape = tuple(logprobs.shape)
    for name, x in others.items():
        checks.floating(name, x, shape, like="logprobs")
    checks.boolean("mask", mask, shape, like="logprobs")


def _check_clips(clip_low: float, clip_high: float, dual_clip: float | None) -> None:
    checks.non_negative("clip_low", clip_low)
    checks.non_negative("clip_high", clip_high)
    if dual_clip is not None:
        checks.above_one("dual_clip", dual_clip)
