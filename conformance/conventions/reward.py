"""Conventions of the reward model's loss and of shaped rewards."""

from typing import Any

import numpy as np

from conformance.conventions.family import Convention, Family, Observation, values
from conformance.conventions.inputs import HOLES, PADDED, beside, dense, far, logprobs
from reference import kl, numbers, reward


def _pair_loss(chosen: Any, rejected: Any, *, margin: Any = 0.0, sign: int = 1, over: str = "mean") -> Any:
    """The loss with the margin on the other side, or summed over pairs."""
    loss = reward.reward_model_loss(chosen, rejected, margin=sign * margin)
    return loss * len(chosen) if over == "sum" else loss


def _shaped(
    scores: Any,
    logprobs: Any,
    ref_logprobs: Any,
    mask: Any,
    *,
    kl_coef: Any,
    estimator: str = "k1",
    place: str = "last active",
    sign: int = 1,
    clamps: bool = False,
    clamped: str = "all",
) -> Any:
    """Shaped rewards with the score elsewhere, or another penalty."""
    nothing = numbers.zeros(mask.shape, like=logprobs)
    new, ref = (numbers.where(mask, x, nothing) for x in (logprobs, ref_logprobs))
    if (place, sign, clamps) == ("last active", 1, False):
        return reward.shaped_rewards(scores, new, ref, mask, kl_coef=kl_coef, estimator=estimator)
    bounds = BOUNDS if clamps and (clamped == "all" or estimator == "k3") else {}
    penalties = kl_coef * kl.kl_estimate(new, ref, estimator=estimator, **bounds)
    where = {
        "last active": reward.last_active(mask),
        "last column": np.arange(mask.shape[1]) == mask.shape[1] - 1 + 0 * mask,
        "every token": mask,
    }[place]
    return numbers.where(where, scores[:, None], nothing) - sign * numbers.where(mask, penalties, nothing)


BOUNDS = {"log_ratio_clip": 20.0, "value_clip": 10.0}


def _responses(mask: Any, *log_ratios: float) -> dict[str, Any]:
    new = logprobs(0, 3, 5)
    ref = far(new, *log_ratios) if log_ratios else beside(new, 1)
    return {"scores": dense(2, 3), "logprobs": new, "ref_logprobs": ref, "mask": mask}


FAMILIES = (
    Family(
        "reward_model_loss",
        (
            Convention("margin", values(0.0), "rm.bradley-terry"),
            Convention(
                "sign",
                {"the margin subtracted": 1, "the margin added": -1},
                "rm.bradley-terry",
                unless={"margin": (0.0,)},
            ),
            Convention(
                "over", {"the mean over pairs": "mean", "the sum over pairs": "sum"}, "rm.bradley-terry"
            ),
        ),
        _pair_loss,
        (Observation("plain pairs", {"chosen": dense(0, 4), "rejected": dense(1, 4)}, vary=None, main=True),),
    ),
    Family(
        "shaped_rewards",
        (
            Convention("kl_coef", values(0.1), "rm.shaping"),
            Convention("estimator", values(*kl.ESTIMATORS), "rm.shaping"),
            Convention(
                "place",
                {
                    "the score on the last active token": "last active",
                    "the score on the last column": "last column",
                    "the score on every active token": "every token",
                },
                "rm.last-token",
            ),
            Convention("sign", {"the penalty subtracted": 1, "the penalty added": -1}, "rm.shaping"),
            Convention(
                "clamps",
                {
                    "no clamp": False,
                    "log-ratio within ±20 and value within ±10": True,
                },
                "kl.clamps",
            ),
            Convention(
                "clamped",
                {"every estimator clamped alike": "all", "k3 alone clamped": "k3"},
                "kl.clamps",
                unless={"estimator": tuple(kl.ESTIMATORS), "clamps": (False,)},
            ),
        ),
        _shaped,
        (
            Observation("padded rows", _responses(PADDED), vary=None, main=True),
            Observation("rows with holes", _responses(HOLES), main=True),
            Observation("far from the reference", _responses(PADDED, -4.0, 15.0, -6.0), vary=("estimator",)),
        ),
    ),
)
