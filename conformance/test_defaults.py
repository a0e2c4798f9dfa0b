"""Options that are left out: each means its default, at inputs where other values would show."""

from collections.abc import Callable
from typing import Any

from conformance.cases import Case
from conformance.marks import clauses, operations
from conformance.operations import OPERATIONS
from conformance.protocol import REQUIRED
from conformance.run import Run
from conformance.telling import of_option, telling
from conformance.values import option_values

WITH_DEFAULTS = tuple(
    name for name, op in OPERATIONS.items() if any(x is not REQUIRED for x in op.options.values())
)

ELSEWHERE: dict[str, tuple[Any, ...]] = {
    "whiten.eps": (1e-6,), "group_advantages.eps": (1e-8,), "margin": (1.0,), "dual_clip": (4.0,),
    "value_loss.clip": (0.5,), "value_clip": (0.5,), "cg_tol": (1e-5, 1e-6, 1e-8),
    "trust_region_step.cg_iters": (11,), "trust_region_step.damping": (1.0,), "max_steps": (20,),
    "backtrack": (0.9,), "beta1": (0.8,), "beta2": (0.95, 0.99), "adam_eps": (1e-5,), "clip_eps": (1e-2,),
    "lam": (1.0,), "gamma": (0.99,), "value_coef": (0.1,),
}  # fmt: skip
"""Defaults that an option has in other places, beside the values of its table."""


@clauses("contract.defaults")
@operations(*WITH_DEFAULTS)
def test_options_left_out(run: Run) -> None:
    """A call without an option is the call with its default."""
    limits = run.backend.limits(run.operation)
    for name, default in OPERATIONS[run.operation].options.items():
        if default is not REQUIRED:
            told, _ = telling(run.operation, run.dtype, name, default, others(run.operation, name), limits)
            run.at(_left_out(run, name), *told)


def _left_out(run: Run, name: str) -> Callable[[Case], None]:
    """Check a call without an option, where the call that gives its default is right."""

    def check(case: Case) -> None:
        run.permitted_base(case)
        run.at_default(case, name)

    return check


def others(operation: str, name: str) -> tuple[Any, ...]:
    """What an option may be taken for where it is left out, its default among it."""
    return (*option_values(operation, name), *of_option(ELSEWHERE, operation, name, ()))
