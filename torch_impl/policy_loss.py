"""Policy losses: aggregation, the clipped and the penalised loss, metrics.

Shapes: B rows, T positions; `mask` is True at the tokens that the policy produced. What lies under mask
False does not matter, NaN included, neither to a loss nor to its gradient. Old log-probabilities,
advantages and rollout weights are constants: no gradient flows into them. float16 and bfloat16 inputs are
computed in float32 and rounded once at the end. The definitions are those of the chapter `ppo` of the spec.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_impl import checks
from torch_impl.one_pass import row_sums
from torch_impl.precision import bits, keep, select, widen

MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")
EMPTY_ROWS = ("count", "drop")
LARGEST_LOGARITHM = 80.0
"""The exponential of this is finite in every dtype of the computation."""
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
    sums = select(mask, widen(x)).sum(dim=1)
    return aggregate_sums(sums, mask, mode, horizon, empty_rows).to(x.dtype)


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
    checks.choice("aggregation", aggregation, MODES)
    if rollout_weights is not None:
        checks.floating("rollout_weights", rollout_weights, tuple(mask.shape), like="logprobs")
    x, old = at_level(logprobs, old_logprobs, mask, ratio_level)
    clips = Clips(clip_low, clip_high, dual_clip, log_ratio_clip)

    def terms(x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        log_ratio = x if old is None else x - widen(old[rows])
        factors = -widen(advantages.detach()[rows])
        loss, slope = clips.act(log_ratio, factors)
        if rollout_weights is None:
            return loss, slope
        weights = widen(rollout_weights.detach()[rows])
        return loss * weights, slope * weights

    sums = row_sums(x, mask, terms)
    return aggregate_sums(sums, mask, aggregation, horizon, empty_rows).to(logprobs.dtype)


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
    Clips(clip_low, clip_high, dual_clip)
    log_ratio, advantages = _log_ratio(logprobs, old_logprobs, mask), select(mask, widen(advantages))
    ratio = log_ratio.exp()
    punished = advantages < 0
    clipped = ((advantages > 0) & (ratio > 1 + clip_high)) | (punished & (ratio < 1 - clip_low))
    beyond = torch.zeros_like(punished) if dual_clip is None else punished & (ratio > dual_clip)
    means = {"approx_kl": -log_ratio, "clip_fraction": clipped, "dual_clip_fraction": beyond}
    return {name: aggregate(x.to(ratio.dtype), mask).to(logprobs.dtype) for name, x in means.items()}


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

    def terms(x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        term = (x - widen(old_logprobs.detach()[rows])).exp() * -widen(advantages.detach()[rows])
        return term, term

    sums = row_sums(logprobs, mask, terms) + kl_coef * select(mask, widen(kl)).sum(dim=1)
    return aggregate_sums(sums, mask, aggregation).to(logprobs.dtype)


@dataclass(frozen=True)
class Clips:
    """What holds the ratio: ε on both sides, the dual clip, the clip of the log-ratio."""

    low: float
    high: float
    dual: float | None = None
    log_ratio: float | None = None

    def __post_init__(self) -> None:
        checks.non_negative("clip_low", self.low)
        checks.non_negative("clip_high", self.high)
        if self.dual is not None:
            checks.above_one("dual_clip", self.dual)
        if self.log_ratio is not None:
            checks.positive("log_ratio_clip", self.log_ratio)

    def act(self, log_ratio: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """The ratio, held where it would make the loss smaller than the clips allow, times the factors -A.

        And the derivative in the log-ratio: the same, 0 where the ratio or its logarithm is held.
        """
        free = None
        if self.log_ratio is None:
            ratio = log_ratio.exp()
        else:
            inner = log_ratio.clamp(-self.log_ratio, self.log_ratio)
            free = torch.eq(inner, log_ratio, out=torch.empty_like(inner))
            ratio = inner.exp_()
        plain = ratio * factors
        loss = ratio.clamp_(1 - self.low, 1 + self.high).mul_(factors)
        loss = torch.maximum(plain, loss, out=loss)
        if self.dual is not None:
            loss = torch.minimum(loss, (self.dual * factors).clamp_(min=0.0), out=loss)
        if self.log_ratio is None or self.log_ratio > LARGEST_LOGARITHM:
            loss = torch.where(factors == 0, 0.0 * factors, loss)  # not 0 · ∞
        unheld = torch.eq(plain, loss, out=torch.empty_like(plain))
        return loss, keep(plain, bits(unheld if free is None else unheld.mul_(free), plain.dtype))


def aggregate_sums(
    sums: Tensor,
    mask: Tensor,
    mode: str,
    horizon: float | None = None,
    empty_rows: str = "count",
) -> Tensor:
    """Aggregate the sums of rows, shape (B,), in the dtype of the computation; the mode has been checked."""
    checks.choice("empty_rows", empty_rows, EMPTY_ROWS)
    if horizon is not None:
        checks.positive("horizon", horizon)
    lengths = mask.sum(dim=1)
    if mode == "token-mean":
        return sums.sum() / lengths.sum().clamp(min=1)
    if mode == "seq-mean-token-mean":
        sums = sums / lengths.clamp(min=1)
    if mode == "seq-mean-token-sum-norm":
        sums = sums / (mask.shape[1] if horizon is None else horizon)
    counted = torch.ones_like(lengths) if empty_rows == "count" else (lengths > 0).long()
    return sums.sum() / counted.sum().clamp(min=1)


def at_level(
    logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, level: str
) -> tuple[Tensor, Tensor | None]:
    """What the ratio of each token is a function of, shape (B, T), and what is subtracted from it first.

    Log-probabilities and the old ones; or a row's mean log-ratio, with its gradient or the token's.
    """
    checks.choice("ratio_level", level, RATIO_LEVELS)
    if level == "token":
        return logprobs, old_logprobs.detach()
    log_ratio = _log_ratio(logprobs, old_logprobs, mask)
    mean = log_ratio.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    if level == "sequence":
        return mean.expand_as(log_ratio), None
    return mean.detach() + (log_ratio - log_ratio.detach()), None


def _log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    return select(mask, widen(logprobs)) - select(mask, widen(old_logprobs.detach()))


def _check_rows(logprobs: Tensor, mask: Tensor, **others: Tensor) -> None:
    """Check the arguments that the losses share: rows of numbers and their mask."""
    checks.floating("logprobs", logprobs, (None, None))
    shape = tuple(logprobs.shape)
    for name, x in others.items():
        checks.floating(name, x, shape, like="logprobs")
    checks.boolean("mask", mask, shape, like="logprobs")
