"""KL divergences: estimators on sampled tokens, the full divergence from logits, adaptive coefficients.

Shapes: B rows, T positions, V tokens of the vocabulary. All divergences are KL(π‖ref), the policy on the
left, in nats. The reference policy is a constant: no gradient flows into it. float16 and bfloat16 inputs
are computed in float32 and rounded once at the end. The definitions are those of the chapter `kl` of the
spec.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torch_impl import checks
from torch_impl.precision import widen


class _K3(torch.autograd.Function):
    """expm1(-ℓ) + ℓ with the slope -expm1(-ℓ), which autograd would make of 1 and lose near ℓ = 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(log_ratio: Tensor) -> Tensor:
        """The estimate."""
        return torch.expm1(-log_ratio) + log_ratio

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep the log-ratio."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        """Upstream times the slope; 0 where upstream is 0, though the slope overflows."""
        [above], [log_ratio] = upstream, ctx.saved_tensors
        return torch.where(above == 0, above, -above * torch.expm1(-log_ratio))


_ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda log_ratio: log_ratio,
    "k2": lambda log_ratio: log_ratio.square() / 2,
    "k3": lambda log_ratio: _K3.apply(log_ratio),  # type: ignore[no-untyped-call]
    "abs": torch.abs,
}


def kl_estimate(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    *,
    estimator: str = "k1",
    log_ratio_clip: float | None = None,
    value_clip: float | None = None,
) -> Tensor:
    """KL estimate of each sampled token, a function of ℓ = log π(a) - log π_ref(a) alone.

    Clauses: `kl.estimators`, `kl.estimator-gradients`, `kl.clamps`.

    Parameters
    ----------
    logprobs, ref_logprobs : (B, T) floating
        Log-probability of each sampled token under the policy and under the reference policy, in nats.
    estimator : "k1", "k2", "k3" or "abs"
        ℓ, ℓ²/2, e^{-ℓ} - 1 + ℓ or |ℓ|.
    log_ratio_clip : float above 0 or None
        c: ℓ is first moved to the nearest point of [-c, c].
    value_clip : float above 0 or None
        v: the estimate is last moved to the nearest point of [-v, v].

    Returns
    -------
    (B, T)
        The estimates in nats, in the dtype of `logprobs`. Where a clamp acts, the gradient is 0.

    Raises
    ------
    ValueError
        For an unknown estimator, a clamp that is not above 0, shapes that disagree.
    """
    checks.choice("estimator", estimator, tuple(_ESTIMATORS))
    for name, bound in (("log_ratio_clip", log_ratio_clip), ("value_clip", value_clip)):
        if bound is not None:
            checks.positive(name, bound)
    checks.floating("logprobs", logprobs, (None, None))
    checks.floating("ref_logprobs", ref_logprobs, tuple(logprobs.shape), like="logprobs")
    log_ratio = _clamped(widen(logprobs) - widen(ref_logprobs.detach()), log_ratio_clip)
    return _clamped(_ESTIMATORS[estimator](log_ratio), value_clip).to(logprobs.dtype)


def kl_divergence(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """KL(π‖ref) = Σ_a π(a) (log π(a) - log π_ref(a)) of each position, over the whole vocabulary.

    Clauses: `kl.full`, `kl.full-gradient`, `kl.impossible-tokens`.

    Parameters
    ----------
    logits, ref_logits : (B, T, V) floating
        Logits of the policy and of the reference policy; -inf is a token of probability 0, and each
        position has a finite one.

    Returns
    -------
    (B, T)
        The divergences in nats, in the dtype of `logits`; ∞ where the policy gives a token some
        probability and the reference none, with gradient 0.

    Raises
    ------
    ValueError
        For shapes that disagree.
    """
    checks.floating("logits", logits, (None, None, None))
    checks.floating("ref_logits", ref_logits, tuple(logits.shape), like="logits")
    logprobs = torch.log_softmax(widen(logits), dim=-1)
    ref_logprobs = torch.log_softmax(widen(ref_logits.detach()), dim=-1)
    probabilities = logprobs.exp()
    possible, excluded = probabilities > 0, ref_logprobs == -torch.inf
    # Infinite log-ratios are kept out of the sum, because 0 · ∞ would be NaN, in the gradient too.
    log_ratio = torch.where(possible & ~excluded, logprobs - ref_logprobs, 0.0)
    divergence = (probabilities * log_ratio).sum(dim=-1)
    return torch.where((possible & excluded).any(dim=-1), torch.inf, divergence).to(logits.dtype)


def adaptive_kl_coef(*, coef: float, kl: float, target: float) -> float:
    """The next coefficient: half of it where kl < target / 1.5, twice where kl > 1.5 · target, else itself.

    Clause: `kl.adaptive-coefficient`.

    Parameters
    ----------
    coef : float, at least 0
        The coefficient that was in use, in reward units a nat.
    kl : float
        The divergence that was measured, in nats.
    target : float above 0
        The divergence that is wanted, in nats.

    Returns
    -------
    float
        The next coefficient.

    Raises
    ------
    ValueError
        For a negative coef, a target that is not above 0, anything that is not finite.
    """
    _check_controller(coef, kl, target)
    if kl < target / 1.5:
        return coef / 2
    return 2 * coef if kl > 1.5 * target else coef


def proportional_kl_coef(*, coef: float, kl: float, target: float, horizon: float, n_steps: float) -> float:
    """The next coefficient: coef · (1 + e · n_steps / horizon), e = kl / target - 1 clipped to ±0.2.

    Clause: `kl.proportional-coefficient`.

    Parameters
    ----------
    coef, kl, target
        As for :func:`adaptive_kl_coef`.
    horizon : float above 0
        Steps in which an error of 1 would double the coefficient.
    n_steps : float, at least 0
        Steps since the last update, in the unit of `horizon`.

    Returns
    -------
    float
        The next coefficient; negative where e · n_steps < -horizon (`kl.proportional-sign`).

    Raises
    ------
    ValueError
        For a negative coef or n_steps, a target or horizon that is not above 0, anything not finite.
    """
    _check_controller(coef, kl, target)
    checks.positive("horizon", horizon)
    checks.non_negative("n_steps", n_steps)
    error = max(-0.2, min(kl / target - 1, 0.2))
    return coef * (1 + error * n_steps / horizon)


def _clamped(x: Tensor, bound: float | None) -> Tensor:
    return x if bound is None else x.clamp(-bound, bound)


def _check_controller(coef: float, kl: float, target: float) -> None:
    """Check the arguments that both controllers share."""
    checks.non_negative("coef", coef)
    checks.finite("kl", kl)
    checks.positive("target", target)
