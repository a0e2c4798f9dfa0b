"""The numbers that inputs are made of: tables from simple to nasty, by what an argument means.

The domain of an argument says what its numbers are: "value" (rewards, values, advantages, scores),
"direction" (what a matrix is solved for, not too near to 0), "logprob" (mostly at most 0), "logit",
"log-weight", "weight" (at least 0), "table" (what is trained, of moderate size).
A log-probability that stands beside another one, of an older or a reference policy, is that one less a
log-ratio from a table of its own.
"""

import math
from functools import cache
from typing import Any

import numpy as np

from reference.numbers.formats import Format

CLIP_LOW, CLIP_HIGH = 0.2, 0.28
"""Clip bounds of which the log-ratio tables hold the boundary and its neighbours."""

VALUES = (0.0, 1.0, -1.0, 2.0, 0.5, -2.0, 3.0, -0.5, 4.0, 0.25, -3.0, -4.0, 8.0, 1.5, -0.25, -8.0)
EXACT = {
    "value": VALUES,
    "direction": VALUES,
    "logprob": (0.0, -1.0, -2.0, -0.5, -4.0, -0.25, -3.0, -8.0),
    "logit": (0.0,),
    "log-weight": (0.0,),
    "weight": (1.0, 0.0, 2.0, 0.5, 4.0, 0.25),
    "table": (0.0, 1.0, -1.0, 2.0, 0.5, -2.0, 0.25),
}
"""Small dyadic numbers, by domain; where a formula takes an exponential, only what it takes exactly."""


EXTREME = {
    "logit": (1e4, -1e4, -np.inf),
    "log-weight": (30.0, -30.0, 90.0, -90.0, 800.0, -800.0),
}
"""What the region "extremes" adds to a table; for log-ratios see below."""


def least(form: Format) -> float:
    """How near to 0 directions and dense weights come: squares have reciprocals, and products keep bits."""
    return float(form.largest**-0.125)


def numbers_of(
    domain: str, form: Format, exact: bool, largest: float, extreme: bool = False
) -> tuple[float, ...]:
    """The table of a domain, ordered from simple to nasty, each a number of the format."""
    table = EXACT[domain] if exact else _nasty(domain, form, largest)
    return table + tuple(float(form.round(x)) for x in EXTREME.get(domain, ()) if extreme)


@cache
def _nasty(domain: str, form: Format, largest: float) -> tuple[float, ...]:
    ulp = 2 * form.unit_roundoff
    near_one = (1 + ulp, 1 - ulp / 2)
    small = (
        0.0,
        1.0,
        0.5,
        2.0,
        0.25,
        3.0,
        0.1,
        1 / 3,
        0.9,
        *near_one,
        1e-3,
        10.0,
        20.0,
        88.0,
        1e-6,
        1e3,
        1e4,
    )
    match domain:
        case "logprob":
            values = [-x for x in small if x <= 1e3]
        case "table":
            values = [sign * x for x in small if x <= 3.0 for sign in (1.0, -1.0)]
        case "weight":
            values = [x for x in (1.0, 0.0, *small) if x <= 1e3]
        case "log-weight":
            # An exponential times the largest of other numbers is one of the dtype, and so is a sum of many.
            largest = math.log(form.largest) / 2
            values = [sign * x for x in small for sign in (1.0, -1.0)]
        case "value":
            # Below the normal range, products that a clip compares round to the same number.
            normal = [x for x in small if x == 0.0 or x >= 2.0**form.min_exponent]
            values = [sign * x for x in normal for sign in (1.0, -1.0)]
        case "direction":
            values = [sign * x for x in small if x == 0.0 or x >= least(form) for sign in (1.0, -1.0)]
        case _:
            values = [sign * x for x in small for sign in (1.0, -1.0)]
    return tuple(dict.fromkeys(float(form.round(x)) for x in values if abs(x) <= largest))


@cache
def log_ratios(form: Format, exact: bool, extreme: bool) -> tuple[float, ...]:
    """Log-ratios: 0, in and out of the clip bounds, on them and beside them; extremes on request."""
    if exact:
        return (0.0,)
    bounds = [float(form.round(np.log(x))) for x in (1 - CLIP_LOW, 1 + CLIP_LOW, 1 + CLIP_HIGH, 3.0)]
    beside = [b * (1 + k * 4 * form.unit_roundoff) for b in bounds for k in (0, 1, -1)]
    values = [0.0, 0.1, -0.1, 0.5, -0.5, 1e-3, -1e-3, 2.0, -2.0, *beside, 5.0, -5.0]
    values += [20.0, -20.0, 30.0, -30.0, 90.0, -90.0, 800.0, -800.0] if extreme else []
    return tuple(float(form.round(x)) for x in values)


MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")


def _same(*values: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The same values for exact inputs and for the others."""
    return values, values


OPTIONS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "gamma": ((1.0, 0.0, 0.5), (1.0, 0.99, 0.0, 0.5, 0.9, 0.997)),
    "lam": ((1.0, 0.0, 0.5), (0.95, 1.0, 0.0, 0.5, 0.9, 0.25)),
    "masked": _same("skip", "zero"),
    "n": ((1, 2, 3), (1, 2, 3, 5, 17, 37)),
    "shift_mean": _same(True, False),
    "ddof": _same(1, 0),
    "eps": ((1e-8, 1e-5), (1e-8, 1e-5, 1e-3, 1.0)),
    "group_advantages.eps": ((1e-6, 1e-4), (1e-6, 1e-4, 1e-9, 0.5)),
    "scale": _same("std", "none"),
    "log_ratio_clip": ((20.0, None, 0.5, 40.0), (20.0, None, 0.6, 40.0)),
    "kl_estimate.log_ratio_clip": ((None, 20.0, 0.5), (None, 20.0, 0.6)),
    "value_clip": ((None, 10.0, 0.25), (None, 10.0, 0.3)),
    "estimator": _same("k1", "k2", "k3", "abs"),
    "cap": ((2.0, 1.0, 0.5, 8.0), (2.0, 1.0, 0.5, 8.1)),
    "truncated_importance_weights.mode": _same("truncate", "mask"),
    "self_normalized": _same(False, True),
    "coef": ((0.5, 1.0, 0.125, 0.0), (0.1, 0.5, 1.0, 0.0)),
    "kl": ((0.5, 1.5, 2.0, -0.5, 0.875), (0.5, 1.5, 2.0, 0.0, 0.3, 1.1, -1.1, 0.7, 0.45)),
    "target": ((1.0, 0.75, 3.0), (1.0, 0.75, 0.4)),
    "proportional_kl_coef.horizon": ((1024.0, 64.0), (10000.0, 64.0)),
    "n_steps": ((64.0, 256.0), (64.0, 100.0)),
    "temperature": ((1.0, 0.5, 2.0), (1.0, 0.7, 2.0, 0.5, 1.3, 0.4)),
    "mode": _same(*MODES),
    "aggregation": _same(*MODES),
    "horizon": ((None, 8, 32), (None, 7, 100, 2.5)),
    "empty_rows": _same("count", "drop"),
    "clip_low": ((0.5, 0.0, 0.25), (CLIP_LOW, 0.0, 1.0, 1.5)),
    "clip_high": ((0.5, 0.0, 1.0), (CLIP_HIGH, CLIP_LOW, 0.0)),
    "dual_clip": ((None, 2.0, 4.0), (None, 3.0, 1.6)),
    "ratio_level": _same("token", "sequence", "sequence-token"),
    "kl_coef": ((0.5, 0.0, 1.0, 4.0), (0.1, 0.0, 1.0, 3.0)),
    "clip": ((None, 0.5, 0.0, 1.0), (None, 0.2, 0.0, 1.0)),
    "margin": ((0.0, 1.0, -0.5), (0.0, 0.3, -1.0)),
    "average": _same(False, True),
    "beta": ((0.5, 1.0, 2.0), (0.1, 0.5, 1.0, 0.01)),
    "label_smoothing": ((0.0, 0.25, 1.0), (0.0, 0.1, 0.5, 0.9)),
    "loss_type": _same("sigmoid", "hinge", "ipo"),
    "max_iters": _same(10, 1, 2),
    "tol": _same(0.0, 0.5),
    "max_kl": ((0.5, 2.0, 0.0), (0.01, 0.5, 0.0)),
    "cg_iters": _same(10, 1, 2),
    "cg_tol": _same(0.0),
    "damping": ((0.0, 1.0), (0.0, 0.1)),
    "backtrack": ((0.5, 0.25), (0.5, 0.8)),
    "max_steps": _same(10, 1, 3),
    "algorithm": _same("ppo", "grpo", "dpo", "reward-model", "trpo"),
    "learning_rate": ((0.5, 1.0, 0.25), (0.1, 0.5)),
    "optimizer": _same("sgd", "adam"),
    "max_grad_norm": ((None, 4.0, 0.5), (None, 0.1, 8.0)),
    "clip_eps": _same(1e-6, 0.0, 0.125),
    "beta1": ((0.5,), (0.9, 0.5)),
    "beta2": ((0.5,), (0.999, 0.5)),
    "adam_eps": ((0.5,), (1e-8, 0.01)),
    "epochs": _same(1, 2),
    "minibatch_rows": _same(None, 2),
    "train_step.gamma": ((1.0, 0.5), (1.0, 0.9)),
    "train_step.lam": ((1.0, 0.5), (0.95, 0.5)),
    "train_step.clip_low": ((0.5, 0.25), (0.2, 0.1)),
    "train_step.clip_high": ((0.5, 1.0), (0.2, 0.28)),
    "train_step.value_clip": ((None, 0.5), (None, 0.2)),
    "value_coef": ((0.5, 1.0), (0.5, 1.0)),
    "train_step.kl_coef": ((0.5,), (0.04, 1.0)),
    "train_step.max_kl": ((0.5,), (0.01, 0.5)),
    "train_step.cg_iters": _same(1, 2, 10),
    "train_step.damping": ((1.0, 0.0), (0.1, 0.0)),
}
"""Values of each option: those for exact inputs, and those for the others, simplest first."""

FAR: dict[str, tuple[Any, ...]] = {
    "gamma": (0.1, 1), "lam": (0.1, 1), "whiten.eps": (0.0, 1), "group_advantages.eps": (0.0, 1),
    "whiten.ddof": (2,), "n_steps": (0.0,), "horizon": (0.5,), "proportional_kl_coef.horizon": (),
    "log_ratio_clip": (20, None, 60.0), "kl_estimate.log_ratio_clip": (20, 60.0),
    "value_clip": (100.0,), "train_step.value_clip": (), "cap": (2, 100.0), "margin": (1, 5.0),
    "clip_high": (5.0,), "train_step.clip_high": (), "dual_clip": (10.0,), "value_loss.clip": (3.0, 1),
    "temperature": (100.0, 0.01, 2), "beta": (10.0, 1), "kl_coef": (10.0, 1), "epochs": (4,),
    "trust_region_step.max_kl": (1,),
    "learning_rate": (3.0,), "damping": (3.0,), "minibatch_rows": (1, 100),
}  # fmt: skip
"""Values further out, next to nothing, or whole numbers; an entry "operation.option" goes before "option"."""

ORDINARY: dict[str, Any] = {
    "gamma": 0.9, "lam": 0.5, "n": 2, "kl": 0.3, "max_kl": 0.5, "max_iters": 3, "cg_iters": 3,
}  # fmt: skip
"""A plain value of an option, where it is not the first of its table."""


IN_PAIRS = ("dpo", "reward-model")
DESCENT = ("optimizer", "max_grad_norm", "epochs", "minibatch_rows", "learning_rate")
CLIPPED = ("clip_low", "clip_high", "aggregation")
READ: dict[str, tuple[str, ...]] = {
    "ppo": (*DESCENT, *CLIPPED, "gamma", "lam", "value_clip", "value_coef"),
    "grpo": (*DESCENT, *CLIPPED, "kl_coef"),
    "dpo": (*DESCENT, "beta"),
    "reward-model": DESCENT,
    "trpo": ("gamma", "lam", "max_kl", "cg_iters", "damping"),
}
"""What each algorithm of `train_step` reads of its options."""


def reads(operation: str, options: dict[str, Any], name: str) -> bool:
    """Whether an option can matter, the others being what they are."""
    if operation != "train_step" or name == "algorithm":
        return True
    read = {*READ[options["algorithm"]]}
    if "optimizer" in read and options["optimizer"] == "adam":
        read |= {"beta1", "beta2", "adam_eps"}
    if "max_grad_norm" in read and options["max_grad_norm"] is not None:
        read.add("clip_eps")
    return name in read


def consistent(
    operation: str, options: dict[str, Any], arguments: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Set right what only goes together.

    Label smoothing has a meaning for one type of loss alone, and an algorithm that reads pairs is not asked
    about an odd number of rows.
    """
    if operation == "dpo_loss" and options["loss_type"] != "sigmoid":
        return {**options, "label_smoothing": 0.0}
    if operation == "train_step" and options["algorithm"] in IN_PAIRS:
        odd = arguments is not None and len(arguments["states"]) % 2
        count = options["minibatch_rows"]
        even = {"minibatch_rows": count + count % 2} if count else {}
        return {**options, **({"algorithm": "ppo"} if odd else even)}
    return options


def option_values(operation: str, option: str, exact: bool = False) -> tuple[Any, ...]:
    """The values of an option that the suite tries; an entry "operation.option" goes before "option"."""
    return OPTIONS.get(f"{operation}.{option}", OPTIONS.get(option, ((), ())))[0 if exact else 1]


def ordinary_value(operation: str, option: str) -> Any:
    """One plain value of an option."""
    return ORDINARY.get(option, option_values(operation, option)[0])
