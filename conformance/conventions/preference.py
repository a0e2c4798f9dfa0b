"""Conventions of sequence log-probabilities and of the DPO family."""

from typing import Any

import numpy as np

from conformance.conventions.family import Convention, Family, Observation, values
from conformance.conventions.inputs import EMPTY_ROW, PADDED, beside, logprobs
from reference import numbers, preference


def _sequence(token_logprobs: Any, mask: Any, *, average: bool = False, empty: str = "zero") -> Any:
    """Sums or means; a mean of nothing is 0 or NaN."""
    found = preference.sequence_logprobs(token_logprobs, mask, average=average)
    if empty == "nan" and average:
        return numbers.where(mask.any(axis=1), found, numbers.full(found.shape, np.nan, like=found))
    return found


def _implicit(policy_logprobs: Any, ref_logprobs: Any, *, beta: Any, reversed_: bool = False) -> Any:
    first, second = (ref_logprobs, policy_logprobs) if reversed_ else (policy_logprobs, ref_logprobs)
    return preference.implicit_rewards(first, second, beta=beta)


def _dpo(
    policy_chosen: Any,
    policy_rejected: Any,
    ref_chosen: Any,
    ref_rejected: Any,
    *,
    beta: Any,
    label_smoothing: Any = 0.0,
    loss_type: str = "sigmoid",
    target: str = "half",
    smoothing: str = "conservative",
    reference: bool = True,
    over: str = "mean",
) -> Any:
    """The loss with another target of IPO, another smoothing, no reference, or summed over pairs."""
    pairs = (policy_chosen, policy_rejected, ref_chosen, ref_rejected)
    if not reference:
        pairs = (policy_chosen, policy_rejected, 0 * ref_chosen, 0 * ref_rejected)
    loss = _one_loss(pairs, beta, label_smoothing, loss_type, target, smoothing)
    return loss * len(policy_chosen) if over == "sum" else loss


def _one_loss(
    pairs: tuple[Any, ...], beta: Any, label_smoothing: Any, loss_type: str, target: str, smoothing: str
) -> Any:
    if loss_type == "ipo" and target != "half":
        return preference.dpo_loss(*pairs, beta=beta / 2, loss_type="ipo")
    if loss_type != "sigmoid":
        return preference.dpo_loss(*pairs, beta=beta, loss_type=loss_type)
    if smoothing == "conservative":
        return preference.dpo_loss(*pairs, beta=beta, label_smoothing=label_smoothing)
    chosen, rejected, ref_chosen, ref_rejected = pairs
    as_labelled = preference.dpo_loss(*pairs, beta=beta)
    turned = preference.dpo_loss(rejected, chosen, ref_rejected, ref_chosen, beta=beta)
    share = 1 - 2 * label_smoothing
    return ((1 - label_smoothing) * as_labelled - label_smoothing * turned) / share


def _pairs() -> dict[str, Any]:
    chosen, rejected = 3 * logprobs(0, 4), 3 * logprobs(1, 4)
    return {
        "policy_chosen": chosen,
        "policy_rejected": rejected,
        "ref_chosen": beside(chosen, 2, scale=1.0),
        "ref_rejected": beside(rejected, 3, scale=1.0),
    }


BETA = Convention("beta", values(0.1), "dpo.loss")

FAMILIES = (
    Family(
        "sequence_logprobs",
        (
            Convention("average", values(False, True), "dpo.sum-of-logprobs"),
            Convention(
                "empty",
                {
                    "0 as the mean of a row without tokens": "zero",
                    "NaN as the mean of a row without tokens": "nan",
                },
                "dpo.sum-of-logprobs",
                unless={"average": (False,)},
            ),
        ),
        _sequence,
        (
            Observation(
                "padded rows", {"token_logprobs": logprobs(0, 3, 5), "mask": PADDED}, vary=None, main=True
            ),
            Observation(
                "a row without tokens",
                {"token_logprobs": logprobs(0, 3, 5), "mask": EMPTY_ROW},
                vary=("average",),
            ),
        ),
    ),
    Family(
        "implicit_rewards",
        (
            BETA,
            Convention(
                "reversed_",
                {"policy over reference": False, "reference over policy": True},
                "dpo.implicit-reward",
            ),
        ),
        _implicit,
        (
            Observation(
                "plain responses",
                {"policy_logprobs": logprobs(0, 4), "ref_logprobs": beside(logprobs(0, 4), 1)},
                vary=None,
                main=True,
            ),
        ),
    ),
    Family(
        "dpo_loss",
        (
            BETA,
            Convention("loss_type", values(*preference.LOSS_TYPES), "dpo.loss"),
            Convention(
                "label_smoothing", values(0.0), "dpo.loss-label-smoothing", {"loss_type": ("hinge", "ipo")}
            ),
            Convention(
                "smoothing",
                {"conservative smoothing of labels": "conservative", "robust smoothing of labels": "robust"},
                "dpo.loss-label-smoothing",
                {"loss_type": ("hinge", "ipo"), "label_smoothing": (0.0,)},
            ),
            Convention(
                "target",
                {"the target of IPO is 1/(2β)": "half", "the target of IPO is 1/β": "whole"},
                "dpo.loss-ipo",
                {"loss_type": ("sigmoid", "hinge")},
            ),
            Convention(
                "reference", {"less the reference's margin": True, "the reference ignored": False}, "dpo.loss"
            ),
            Convention("over", {"the mean over pairs": "mean", "the sum over pairs": "sum"}, "dpo.loss"),
        ),
        _dpo,
        (
            Observation("plain pairs", _pairs(), vary=("loss_type", "beta"), main=True),
            Observation("doubtful labels", _pairs(), {"label_smoothing": 0.1}),
        ),
    ),
)
