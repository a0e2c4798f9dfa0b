"""Conventions of the value loss."""

from typing import Any

from conformance.conventions.aggregation import AGGREGATION, NOTHING_ACTIVE, of_nothing
from conformance.conventions.family import Convention, Family, Observation
from conformance.conventions.inputs import EMPTY_ROW, NOTHING, PADDED, dense
from reference import numbers, value_loss


def _value_loss(
    values: Any,
    old_values: Any,
    returns: Any,
    mask: Any,
    *,
    factor: int = 1,
    bound: str = "larger",
    nothing: str = "zero",
    **options: Any,
) -> Any:
    """The loss, or twice it; of the larger error, or of the clipped one."""
    if nothing == "nan" and not mask.any():
        return of_nothing(values)
    if bound == "clipped" and options.get("clip") is not None:
        nowhere = numbers.zeros(mask.shape, like=values)
        values, old_values = (numbers.where(mask, x, nowhere) for x in (values, old_values))
        values = value_loss.clip_values(values, old_values, clip=options.pop("clip"))
    return factor * value_loss.value_loss(values, old_values, returns, mask, **options)


def _critic(mask: Any) -> dict[str, Any]:
    return {"values": dense(0, 3, 5), "old_values": dense(1, 3, 5), "returns": dense(2, 3, 5), "mask": mask}


FAMILIES = (
    Family(
        "value_loss",
        (
            Convention(
                "factor", {"half the squared error": 1, "the squared error, without the half": 2}, "vf.loss"
            ),
            Convention("clip", {"none": None, "0.2": 0.2}, "vf.clip"),
            Convention(
                "bound",
                {
                    "the larger of the clipped and the unclipped error": "larger",
                    "the clipped error alone": "clipped",
                },
                "vf.clip",
                unless={"clip": (None,)},
            ),
            *AGGREGATION,
            NOTHING_ACTIVE,
        ),
        _value_loss,
        (
            Observation("padded rows", _critic(PADDED), vary=("clip", "aggregation"), main=True),
            Observation("a row without tokens", _critic(EMPTY_ROW), vary=("aggregation",)),
            Observation(
                "a row without tokens, means of means",
                _critic(EMPTY_ROW),
                {"aggregation": "seq-mean-token-mean"},
                vary=("empty_rows",),
            ),
            Observation(
                "a horizon", _critic(PADDED), {"aggregation": "seq-mean-token-sum-norm"}, vary=("horizon",)
            ),
            Observation("no tokens", _critic(NOTHING)),
        ),
    ),
)
