"""Conventions of the clipped and the penalised policy loss, and of their metrics."""

from typing import Any

import numpy as np

from conformance.conventions.aggregation import AGGREGATION, NOTHING_ACTIVE, how_aggregated, of_nothing
from conformance.conventions.family import Convention, Family, Observation, values
from conformance.conventions.inputs import (
    EMPTY_ROW,
    FULL,
    NOTHING,
    PADDED,
    dense,
    logprobs,
    rows_apart,
    rows_far,
)
from reference import clipping, kl, numbers, policy_loss

RATIO_CLIP = Convention("log_ratio_clip", {"20": 20.0, "10": 10.0, "none": None}, "ppo.log-ratio-clamp")


LEVEL = Convention("ratio_level", values(*clipping.RATIO_LEVELS), "ppo.ratio-level")


def _policy_loss(
    logprobs: Any,
    old_logprobs: Any,
    advantages: Any,
    mask: Any,
    rollout_weights: Any = None,
    *,
    bound: str = "smaller",
    exchanged: bool = False,
    signs: str = "negative",
    weights: str = "after",
    nothing: str = "zero",
    **options: Any,
) -> Any:
    """The clipped loss with other bounds, or weights elsewhere."""
    if nothing == "nan" and not mask.any():
        return of_nothing(logprobs)
    rollout_weights = None if weights == "ignored" else rollout_weights
    arrays, clips = (logprobs, old_logprobs, advantages, mask), _clips(options, bound, exchanged)
    before = weights == "before" and rollout_weights is not None
    if not before and bound in ("smaller", "one bound") and signs == "negative":
        return policy_loss.policy_loss(*arrays, rollout_weights, **{**options, **clips})
    nowhere = numbers.zeros(mask.shape, like=logprobs)
    how = {name: options[name] for name in ("ratio_level", "log_ratio_clip") if name in options}
    new, old = (numbers.where(mask, x, nowhere) for x in arrays[:2])
    ratio = clipping.policy_ratio(new, old, mask, **how)
    advantages = numbers.where(mask, advantages, nowhere)
    if rollout_weights is not None:
        rollout_weights = numbers.where(mask, rollout_weights, nowhere)
        ratio = ratio * rollout_weights if before else ratio
    objective = _objective(ratio, advantages, bound, signs, clips)
    if rollout_weights is not None and not before:
        objective = rollout_weights * objective
    return policy_loss.aggregate(-objective, mask, **how_aggregated(options))


def _clips(options: dict[str, Any], bound: str, exchanged: bool) -> dict[str, Any]:
    clips = {name: options.get(name) for name in ("clip_low", "clip_high", "dual_clip")}
    if bound == "one bound":
        clips["clip_high"] = clips["clip_low"]
    elif exchanged:
        clips["clip_low"], clips["clip_high"] = clips["clip_high"], clips["clip_low"]
    return clips


def _objective(ratio: Any, advantages: Any, bound: str, signs: str, clips: dict[str, Any]) -> Any:
    if bound == "no bound":
        return ratio * advantages
    clipped = numbers.clip(ratio, 1 - clips["clip_low"], 1 + clips["clip_high"]) * advantages
    if bound == "clipped":
        return clipped
    if signs == "both" and clips["dual_clip"] is not None:
        return numbers.minimum(numbers.minimum(ratio, clips["dual_clip"]) * advantages, clipped)
    return clipping.clipped_objective(ratio, advantages, **clips)


def _policy_loss_gradient(
    upstream: Any,
    logprobs: Any,
    old_logprobs: Any,
    advantages: Any,
    mask: Any,
    rollout_weights: Any = None,
    *,
    bound: str = "smaller",
    exchanged: bool = False,
    signs: str = "negative",
    weights: str = "after",
    nothing: str = "zero",
    **options: Any,
) -> Any:
    """Its gradient; observed without weights, where both signs of the dual clip agree."""
    arrays, clips = (logprobs, old_logprobs, advantages, mask), _clips(options, bound, exchanged)
    if bound in ("smaller", "one bound"):
        return policy_loss.policy_loss_gradient(upstream, *arrays, **{**options, **clips})
    nowhere = numbers.zeros(mask.shape, like=logprobs)
    how = {name: options[name] for name in ("ratio_level", "log_ratio_clip") if name in options}
    new, old, slope = (numbers.where(mask, x, nowhere) for x in arrays[:3])
    if bound == "clipped":
        ratio = clipping.policy_ratio(new, old, mask, **how)
        slope = numbers.kink(ratio, 1 - clips["clip_low"], nowhere, slope)
        slope = numbers.kink(ratio, 1 + clips["clip_high"], slope, nowhere)
    shares = policy_loss.aggregate_gradient(upstream, slope, mask, **how_aggregated(options))
    return clipping.policy_ratio_gradient(-slope * shares, new, old, mask, **how)


def _metrics(
    logprobs: Any,
    old_logprobs: Any,
    advantages: Any,
    mask: Any,
    *,
    estimate: str = "k1",
    fraction: str = "lowered",
    **options: Any,
) -> dict[str, Any]:
    """Metrics with another estimate of the divergence, or counting all tokens outside the bounds."""
    arrays = (logprobs, old_logprobs, advantages, mask)
    metrics = policy_loss.policy_metrics(*arrays, **options)
    new, old = (numbers.where(mask, x, numbers.zeros(x.shape, like=x)) for x in arrays[:2])
    if estimate == "reversed":
        metrics["approx_kl"] = policy_loss.aggregate(new - old, mask)
    elif estimate != "k1":
        metrics["approx_kl"] = policy_loss.aggregate(kl.ESTIMATORS[estimate](old - new), mask)
    if fraction == "outside":
        signs = (numbers.full(mask.shape, sign, like=logprobs) for sign in (1.0, -1.0))
        shares = [
            policy_loss.policy_metrics(new, old, sign, mask, **options)["clip_fraction"] for sign in signs
        ]
        metrics["clip_fraction"] = shares[0] + shares[1]
    return metrics


def _penalised(
    logprobs: Any,
    old_logprobs: Any,
    advantages: Any,
    kl: Any,
    mask: Any,
    *,
    kl_coef: Any,
    sign: int = 1,
    aggregation: str,
    clamp: float | None = None,
    nothing: str = "zero",
) -> Any:
    """The penalised loss with the other sign of the penalty, or with a clamped log-ratio."""
    if nothing == "nan" and not mask.any():
        return of_nothing(logprobs)
    if clamp is not None:
        nowhere = numbers.zeros(mask.shape, like=logprobs)
        new, old = (numbers.where(mask, x, nowhere) for x in (logprobs, old_logprobs))
        logprobs, old_logprobs = numbers.clip(new - old, -clamp, clamp), nowhere
    return policy_loss.kl_penalty_loss(
        logprobs, old_logprobs, advantages, sign * kl, mask, kl_coef=kl_coef, aggregation=aggregation
    )


def _tokens(mask: Any, scale: float = 0.3, seed: int = 0) -> dict[str, Any]:
    new = logprobs(seed, 3, 5)
    return {
        "logprobs": new,
        "old_logprobs": rows_apart(new, seed + 1, scale),
        "advantages": dense(seed + 2, 3, 5),
        "mask": mask,
    }


def _policy(mask: Any, scale: float = 0.3, **arguments: Any) -> dict[str, Any]:
    return {**_tokens(mask, scale), "rollout_weights": None, **arguments}


def _rewarded_far() -> dict[str, Any]:
    """Tokens far on both sides, with negative advantages, which nothing but a clamp holds back."""
    new = logprobs(0, 3, 5)
    return {"old_logprobs": rows_far(new), "advantages": -np.abs(dense(2, 3, 5))}


def _with_divergence(mask: Any, **arguments: Any) -> dict[str, Any]:
    """The arguments in the protocol's order: the divergence stands before the mask."""
    tokens = {**_tokens(mask), **arguments}
    return {**{n: x for n, x in tokens.items() if n != "mask"}, "kl": np.abs(dense(9, 3, 5)), "mask": mask}


SHAPE = ("bound", "clip_low", "clip_high", "exchanged", "ratio_level", "aggregation")


WEIGHTS = np.abs(dense(8, 3, 5)) + 0.5


FAMILIES = (
    Family(
        "policy_loss",
        (
            Convention(
                "bound",
                {
                    "the smaller of the clipped and the unclipped product": "smaller",
                    "the clipped product alone": "clipped",
                    "the unclipped product alone": "no bound",
                    "clip_low on both sides": "one bound",
                },
                "ppo.clip",
            ),
            Convention("clip_low", values(0.2), "ppo.clip-asymmetric", {"bound": ("no bound",)}),
            Convention(
                "clip_high", values(0.2, 0.28), "ppo.clip-asymmetric", {"bound": ("no bound", "one bound")}
            ),
            Convention(
                "exchanged",
                {"clip_low below 1, clip_high above": False, "clip_low and clip_high exchanged": True},
                "ppo.clip-asymmetric",
                {"bound": ("no bound", "one bound")},
                {"clip_low": 0.2, "clip_high": 0.2},
            ),
            Convention(
                "dual_clip", {"none": None, "3": 3.0}, "ppo.dual-clip", {"bound": ("clipped", "no bound")}
            ),
            Convention(
                "signs",
                {"a dual clip for A < 0 alone": "negative", "a dual clip for both signs of A": "both"},
                "ppo.dual-clip",
                {"bound": ("clipped", "no bound"), "dual_clip": (None, 3.0)},
            ),
            LEVEL,
            RATIO_CLIP,
            *AGGREGATION,
            NOTHING_ACTIVE,
            Convention(
                "weights",
                {
                    "rollout weights after the clips": "after",
                    "rollout weights in the ratio, before the clips": "before",
                    "rollout weights ignored": "ignored",
                },
                "ppo.rollout-weights",
            ),
        ),
        _policy_loss,
        (
            Observation(
                "padded rows",
                _policy(PADDED),
                main=True,
                sees=SHAPE,
                vary=("clip_low", "clip_high", "ratio_level", "aggregation"),
            ),
            Observation("the gradient", _policy(PADDED), sees=SHAPE, vary=("ratio_level",), gradient=True),
            Observation(
                "far from the old policy",
                _policy(FULL, **_rewarded_far()),
                sees=(*SHAPE, "log_ratio_clip", "dual_clip"),
                vary=("log_ratio_clip", "dual_clip"),
            ),
            Observation(
                "a dual clip inside the bounds",
                _policy(PADDED),
                {"dual_clip": 1.125, "clip_high": 0.5},
                sees=(*SHAPE, "dual_clip", "signs"),
            ),
            Observation(
                "a row without tokens", _policy(EMPTY_ROW), sees=(*SHAPE, "empty_rows"), vary=("aggregation",)
            ),
            Observation(
                "a row without tokens, means of means",
                _policy(EMPTY_ROW),
                {"aggregation": "seq-mean-token-mean"},
                sees=(*SHAPE, "empty_rows"),
                vary=("empty_rows",),
            ),
            Observation(
                "a horizon",
                _policy(PADDED),
                {"aggregation": "seq-mean-token-sum-norm"},
                sees=(*SHAPE, "horizon"),
                vary=("horizon",),
            ),
            Observation(
                "rollout weights",
                _policy(PADDED, rollout_weights=WEIGHTS),
                sees=(*SHAPE, "dual_clip", "signs", "weights"),
            ),
            Observation("no tokens", _policy(NOTHING), sees=("nothing",)),
        ),
        _policy_loss_gradient,
    ),
    Family(
        "policy_metrics",
        (
            Convention("dual_clip", {"none": None, "3": 3.0}, "ppo.dual-clip"),
            Convention(
                "estimate",
                {
                    "approx_kl is k1": "k1",
                    "approx_kl is k1 with the opposite sign": "reversed",
                    "approx_kl is k2": "k2",
                    "approx_kl is k3": "k3",
                },
                "ppo.metrics",
            ),
            Convention(
                "fraction",
                {
                    "clip_fraction counts tokens whose objective is lowered": "lowered",
                    "clip_fraction counts tokens outside the bounds": "outside",
                },
                "ppo.metrics",
            ),
        ),
        _metrics,
        (Observation("padded rows", _tokens(PADDED, scale=1.5), vary=("dual_clip", "clip_low"), main=True),),
    ),
    Family(
        "kl_penalty_loss",
        (
            AGGREGATION[0],
            Convention(
                "sign", {"the divergence added": 1, "the divergence subtracted": -1}, "ppo.kl-penalty"
            ),
            Convention(
                "clamp",
                {"no clamp of the log-ratio": None, "the log-ratio within ±20": 20.0},
                "ppo.kl-penalty",
            ),
            NOTHING_ACTIVE,
        ),
        _penalised,
        (
            Observation("padded rows", _with_divergence(PADDED), vary=None, main=True),
            Observation("far from the old policy", _with_divergence(FULL, **_rewarded_far())),
            Observation("no tokens", _with_divergence(NOTHING)),
        ),
    ),
)
