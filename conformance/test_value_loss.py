"""The clauses of the chapter `value_loss`: the critic's loss, its clip, and its gradient."""

import numpy as np

from conformance.cases import VALUE_REGIONS, Case
from conformance.marks import clauses, operations
from conformance.run import Run
from conformance.zones import with_every_value


@clauses("vf.loss", "vf.target")
@operations("value_loss")
def test_loss(run: Run) -> None:
    """½ (V - R)², aggregated."""
    run.over(VALUE_REGIONS, run.conforms, clip=None)
    for empty_rows in ("count", "drop"):
        run.over(("empty-rows",), run.conforms, aggregation="seq-mean-token-mean", empty_rows=empty_rows)


@clauses("vf.loss-gradient")
@operations("value_loss")
def test_gradient(run: Run) -> None:
    """V - R over the token's divisor."""
    run.over(VALUE_REGIONS, run.differentiates, clip=None)


@clauses("vf.clip")
@operations("value_loss")
def test_clip(run: Run) -> None:
    """½ of the larger of two squared errors."""
    for clip in (0.2, 0.0, 1.0):
        run.over(VALUE_REGIONS, run.conforms, clip=clip)


@clauses("vf.clip-cases", "vf.clip-boundary")
@operations("value_loss")
def test_gradient_of_clip(run: Run) -> None:
    """0 where the clipped branch is the larger and V is outside, the plain gradient elsewhere."""
    for clip in (0.2, 0.0, 1.0):
        run.over(VALUE_REGIONS, run.differentiates, clip=clip)


@clauses("vf.clip", "vf.clip-cases", "vf.clip-boundary")
@operations("value_loss")
def test_every_zone_of_the_clip(run: Run) -> None:
    """V inside the range, on its edge and outside, with R on every side of it, all in one batch."""

    def check(case: Case) -> None:
        zoned = with_every_value(case)
        run.conforms(zoned)
        run.differentiates(zoned)

    for clip in (0.5, 0.2, 0.0):
        run.over(("exact", "generic"), check, inputs=3, clip=clip)


@clauses("vf.advantage-to-zero")
@operations("value_loss")
def test_at_the_old_values(run: Run) -> None:
    """At V = V_old the loss is half the squared advantage, with any clip."""

    def check(case: Case) -> None:
        old = case.arguments["old_values"]
        run.conforms(case.with_arguments(values=np.array(old)))
        run.differentiates(case.with_arguments(values=np.array(old)))

    run.over(VALUE_REGIONS, check)
