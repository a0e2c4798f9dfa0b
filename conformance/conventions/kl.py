"""Conventions of KL estimates, of the full divergence, and of adaptive coefficients."""

from typing import Any

from conformance.conventions.family import Convention, Family, Observation, values
from conformance.conventions.inputs import beside, dense, far, logprobs
from reference import kl, numbers


def _given(options: dict[str, Any], clamped: str) -> dict[str, Any]:
    """The options of the reference: the clamps act on every estimator, or on k3 alone."""
    if clamped == "k3" and options["estimator"] != "k3":
        return {"estimator": options["estimator"]}
    return options


def _estimate(
    logprobs: Any,
    ref_logprobs: Any,
    *,
    reversed_: bool = False,
    clamped: str = "all",
    through: str = "value",
    **options: Any,
) -> Any:
    """The estimate of the log-ratio or of its opposite."""
    policies = (ref_logprobs, logprobs) if reversed_ else (logprobs, ref_logprobs)
    return kl.kl_estimate(*policies, **_given(options, clamped))


def _estimate_gradient(
    upstream: Any,
    logprobs: Any,
    ref_logprobs: Any,
    *,
    reversed_: bool = False,
    clamped: str = "all",
    through: str = "value",
    **options: Any,
) -> Any:
    """The derivative of the value, that of k2 whatever the value, or none."""
    if through == "nothing":
        return numbers.zeros(logprobs.shape, like=logprobs)
    if through == "k2":
        return kl.kl_estimate_gradient(upstream, logprobs, ref_logprobs, estimator="k2")
    if reversed_:
        return -kl.kl_estimate_gradient(upstream, ref_logprobs, logprobs, **_given(options, clamped))
    return kl.kl_estimate_gradient(upstream, logprobs, ref_logprobs, **_given(options, clamped))


def _divergence(logits: Any, ref_logits: Any, *, reversed_: bool = False) -> Any:
    return kl.kl_divergence(ref_logits, logits) if reversed_ else kl.kl_divergence(logits, ref_logits)


def _adaptive(*, coef: Any, kl: Any, target: Any, factor: float = 2.0, band: float = 1.5) -> Any:
    """The coefficient times or over a factor, outside a band around the target."""
    raised = numbers.where(numbers.less(band * target, kl), factor * coef, coef)
    return numbers.where(numbers.less(band * kl, target), coef / factor, raised)


def _proportional(
    *,
    coef: Any,
    kl: Any,
    target: Any,
    horizon: Any,
    n_steps: Any,
    clip: float | None = 0.2,
    floor: bool = False,
) -> Any:
    """The proportional controller with its error clipped elsewhere, or a coefficient that stays positive."""
    error = kl / target - 1
    if clip is not None:
        error = numbers.clip(error / clip, -1, 1) * clip
    moved = coef * (1 + error * n_steps / horizon)
    return numbers.maximum(moved, 0 * moved) if floor else moved


def _tokens(*log_ratios: float) -> dict[str, Any]:
    ref = logprobs(1, 3, 5)
    return (
        {"logprobs": ref + beside(0 * ref, 2), "ref_logprobs": ref} if not log_ratios else _far(*log_ratios)
    )


def _far(*log_ratios: float) -> dict[str, Any]:
    new = logprobs(1, 3, 5)
    return {"logprobs": new, "ref_logprobs": far(new, *log_ratios)}


def _measured(kl: float, **options: float) -> dict[str, float]:
    return {"coef": 0.1, "kl": kl, "target": 1.0, **options}


REVERSED = {
    "π on the left, the reference on the right": False,
    "the reference on the left, π on the right": True,
}
PACE = {"horizon": 1000.0, "n_steps": 100.0}

FAMILIES = (
    Family(
        "kl_estimate",
        (
            Convention("estimator", values(*kl.ESTIMATORS), "kl.estimators"),
            Convention(
                "reversed_",
                {"ℓ = log π - log π_ref": False, "ℓ = log π_ref - log π": True},
                "kl.estimators",
            ),
            Convention("log_ratio_clip", {"none": None, "20": 20.0, "10": 10.0}, "kl.clamps"),
            Convention("value_clip", {"none": None, "10": 10.0}, "kl.clamps"),
            Convention(
                "clamped",
                {"every estimator clamped alike": "all", "k3 alone clamped": "k3"},
                "kl.clamps",
                unless={"estimator": tuple(kl.ESTIMATORS)},
                unless_all={"log_ratio_clip": None, "value_clip": None},
            ),
            Convention(
                "through",
                {
                    "the gradient is the value's": "value",
                    "the gradient is k2's, whatever the value": "k2",
                    "no gradient": "nothing",
                },
                "kl.estimator-gradients",
            ),
        ),
        _estimate,
        (
            Observation("near the reference", _tokens(), vary=("estimator",), main=True),
            Observation("between 5 and 15 nats away", _far(-5.0, 12.0, 15.0, -8.0), vary=None),
            Observation("25 nats away", _far(-25.0, 25.0), vary=("estimator",)),
            Observation("the gradient", _tokens(), vary=("estimator",), gradient=True),
        ),
        _estimate_gradient,
    ),
    Family(
        "kl_divergence",
        (Convention("reversed_", REVERSED, "kl.full"),),
        _divergence,
        (
            Observation(
                "plain logits", {"logits": dense(0, 2, 3, 4), "ref_logits": dense(1, 2, 3, 4)}, main=True
            ),
        ),
    ),
    Family(
        "adaptive_kl_coef",
        (
            Convention(
                "factor", {"by a factor of 2": 2.0, "by a factor of 1.5": 1.5}, "kl.adaptive-coefficient"
            ),
            Convention(
                "band",
                {"outside [target/1.5, 1.5 target]": 1.5, "outside [target/2, 2 target]": 2.0},
                "kl.adaptive-coefficient",
            ),
        ),
        _adaptive,
        tuple(
            Observation(f"a divergence of {x}", {}, _measured(x), main=True)
            for x in (0.1, 0.6, 1.0, 1.75, 3.0)
        ),
    ),
    Family(
        "proportional_kl_coef",
        (
            Convention(
                "clip",
                {"the error within ±0.2": 0.2, "the error not clipped": None, "the error within ±0.1": 0.1},
                "kl.proportional-coefficient",
            ),
            Convention(
                "floor",
                {"the coefficient may become negative": False, "the coefficient at least 0": True},
                "kl.proportional-sign",
            ),
        ),
        _proportional,
        (
            *(
                Observation(f"a divergence of {x}", {}, _measured(x, **PACE), main=True)
                for x in (0.25, 0.95, 1.05, 3.0)
            ),
            Observation("a long time", {}, _measured(0.25, horizon=100.0, n_steps=1000.0)),
        ),
    ),
)
