"""Extreme inputs of every operation, as far as its clauses say what comes out."""

import math

import numpy as np

from conformance.cases import Case
from reference.numbers.formats import FORMATS

LOSSES_OF_A_RATIO = ("policy_loss", "kl_penalty_loss", "grpo_loss")


def in_reach(case: Case) -> Case:
    """Bring exponentials that no clamp bounds, and that are added up, into the range of the dtype.

    What is left open there is whether a formula whose exponential has overflowed gives ∞ or, by 0 · ∞ or
    ∞ - ∞, NaN; and whether a probability that underflows is one at which a divergence is infinite.
    """
    largest = FORMATS[case.dtype].largest
    arguments, reach = dict(case.arguments), math.log(largest) / 2
    if case.operation == "reward_model_loss":
        arguments = {name: np.sign(x) * FORMATS[case.dtype].round(1e3) for name, x in arguments.items()}
    if "ref_logits" in arguments:
        likely = arguments["logits"].max(axis=-1, keepdims=True)
        certain = np.isneginf(arguments["ref_logits"]) & ~np.isneginf(arguments["logits"])
        arguments["logits"] = np.where(certain, likely, arguments["logits"])
    if case.options.get("self_normalized") is False:
        arguments["log_weights"] = np.minimum(arguments["log_weights"], math.floor(reach))
    if case.operation in LOSSES_OF_A_RATIO and (case.options.get("log_ratio_clip") or np.inf) > reach:
        arguments["old_logprobs"] = _within(case, "old_logprobs", -np.inf, reach)
    if case.operation in ("grpo_loss", "shaped_rewards"):
        low, high = {
            "k1": (-np.inf, np.inf), "abs": (-np.inf, np.inf), "k2": (-(largest**0.5), largest**0.5),
            "k3": (-reach, np.inf),
        }[case.options.get("estimator", "k3")]  # fmt: skip
        arguments["ref_logprobs"] = _within(case, "ref_logprobs", low, high)
    return case.with_arguments(**arguments)


def with_slopes(case: Case) -> Case:
    """Leave out what is left open of gradients; it is the same call where nothing is.

    That is a token of probability 0, an infinite KL, and an exponential that overflows although upstream
    would bring the product back into the range of the dtype.
    """
    arguments, options, form = dict(case.arguments), case.options, FORMATS[case.dtype]
    reach = math.log(form.largest) / 2
    unclamped = (options.get("log_ratio_clip") or np.inf) > reach
    if "tokens" in arguments:
        chosen = np.take_along_axis(arguments["logits"], arguments["tokens"][..., None], axis=-1)[..., 0]
        likely = arguments["logits"].argmax(axis=-1)
        arguments["tokens"] = np.where(np.isneginf(chosen), likely, arguments["tokens"])
    if "ref_logits" in arguments:
        arguments["ref_logits"] = np.maximum(arguments["ref_logits"], form.round(-1e4))
    if case.operation in ("importance_ratio", "sequence_importance_ratio") and unclamped:
        arguments["old_logprobs"] = _within(case, "old_logprobs", -np.inf, reach)
    if case.operation == "kl_estimate" and unclamped and options["value_clip"] is None:
        arguments["ref_logprobs"] = _within(case, "ref_logprobs", -reach, np.inf)
    same = all(x is None or np.array_equal(x, case.arguments[name]) for name, x in arguments.items())
    return case if same else case.with_arguments(**arguments)


def filtered(logits: np.ndarray) -> np.ndarray:
    """Logits with tokens filtered out: the last one and, of more than three, the first two."""
    found: np.ndarray = logits.copy()
    first, last = _left_in(logits)
    found[..., :first] = found[..., last + 1 :] = -np.inf
    return found


def left_by_filter(tokens: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Of each token the nearest one that the filter leaves in."""
    return np.asarray(np.clip(tokens, *_left_in(logits)))


def _left_in(logits: np.ndarray) -> tuple[int, int]:
    """The first and the last token that the filter leaves in."""
    count = logits.shape[-1]
    return 2 if count > 3 else 0, max(count - 2, 0)


def _within(case: Case, beside: str, low: float, high: float) -> np.ndarray:
    """Log-probabilities whose log-ratio lies between two bounds, rounded towards 0 to whole numbers."""
    logprobs, others = case.arguments["logprobs"], case.arguments[beside]
    log_ratio = logprobs - others
    outside = (log_ratio < low) | (log_ratio > high)
    clipped = np.trunc(np.clip(log_ratio, low, high))
    return np.where(outside, FORMATS[case.dtype].round(logprobs - clipped), others)
