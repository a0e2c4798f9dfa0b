"""The clauses of the chapter `contract` on how a call is made: again, on views, recorded, differentiated."""

from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.marks import clauses, operations
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, judged, permitted, permitted_gradients
from conformance.relations import (
    FEW_TOKENS,
    base_gradients,
    is_right,
    right_gradients,
    same_bits,
)
from conformance.reproduction import Call
from conformance.run import Run
from reference.numbers.formats import FORMATS

NOTES = {
    "alone": "this call is differentiated in this argument alone",
    "strided": "where the library has views, the arrays were such, of every second number in wider ones",
    "sliced": "where the library has views, the arrays were cut out of larger ones",
    "mixed": "where the library has views, arrays lay differently: the first transposed, the second strided",
    "expanded": "where it can, the library had one number for each row of equal ones (strides of 0)",
    "again": "before its backward pass came another call, and the pass was made twice, where that can be",
    "unrecorded": "where the library records calls for a backward pass, this one was not recorded",
    "refilled": "where the library's arrays can be written into, these had held others in the call before",
    "one array": "arguments that are the same here were one and the same array",
}
"""What a call was given, or how, that its code does not show."""
LARGE, SMALL = (
    {name: 2.0**power for name, power in powers.items()}
    for powers in (
        {"float64": 17, "float32": 17, "bfloat16": 17, "float16": 7},
        {"float64": -24, "float32": -24, "bfloat16": -24, "float16": -4},
    )
)
"""Upstream gradients as a loss is scaled for half precision, and as a mean over many leaves them."""
TRAINING = ("train_step",)
"""The operations that differentiate by themselves, and need what the library records."""
WITH_CONSTANTS = tuple(name for name, op in OPERATIONS.items() if op.constant or op.differentiable)
DIFFERENTIABLE = tuple(name for name, op in OPERATIONS.items() if op.differentiable)


@clauses("contract.constants")
@operations(*WITH_CONSTANTS)
def test_constants(run: Run) -> None:
    """No gradient flows into a constant, nor through one; the others get theirs, for a random upstream."""

    def check(case: Case) -> None:
        operation = OPERATIONS[case.operation]
        real = [a.name for a in operation.arguments if a.kind in ("real", "optional")]
        names = [name for name in real if case.arguments[name] is not None]
        upstream = run.upstream(case)
        found = run.gradients(case, names, upstream) if names else {}
        constants = [name for name in names if name not in operation.differentiable]
        leaks = [name for name in constants if np.nan_to_num(found[name], nan=1.0).any()]
        leaking = Call(case, leaks[0], upstream) if leaks else case
        run.seen(leaking, not leaks, f"a gradient flows into {', '.join(leaks)}: detach it")
        right_for_ones = right_gradients(run, case, np.ones(upstream.shape))
        allowed = permitted_gradients(case, upstream) if right_for_ones else {}
        for name in right_for_ones:
            run.judge(case, found[name], allowed[name], name, upstream)

    run.over(("generic", "adversarial"), check, FEW_TOKENS, inputs=5)


@clauses("contract.pure")
def test_pure(run: Run) -> None:
    """No state between calls, the same bits twice, read-only and strided inputs accepted and unchanged."""
    unrecorded = () if run.operation in TRAINING else ("unrecorded",)

    def check(case: Case) -> None:
        allowed, first = run.permitted_base(case), run.call(case)
        run.call(case.with_arguments(**{name: _reversed(x) for name, x in case.arguments.items()}))
        again = run.call(case)
        if run.backend.device == "cpu":
            same = all(same_bits(first[i], again[i]) for i in judged(case, first))
            run.seen(case, same, f"called twice: first {first.tolist()}, then {again.tolist()}")
        else:
            run.judge(case, again, allowed)
            run.tally.limitations.add(f"on {run.backend.device}, two calls are not compared bit by bit")
        for way in ("strided", "sliced", "mixed", "refilled", *unrecorded):
            run.judge(case, run.call(case, way), allowed, note=NOTES[way])
        if run.operation not in DIFFERENTIABLE and (rows := _by_row(case)):
            of_rows = case.with_arguments(**rows)
            if is_right(of_rows, run.call(of_rows), right := permitted(of_rows)):
                run.judge(of_rows, run.call(of_rows, "expanded"), right, note=NOTES["expanded"])
        if twins := _twins(case):
            of_one = case.with_arguments(**twins)
            run.judge(of_one, run.call(of_one), permitted(of_one), note=NOTES["one array"])

    run.over(("generic", "adversarial"), check, FEW_TOKENS, inputs=5)


@clauses("contract.differentiated")
@operations(*DIFFERENTIABLE)
def test_differentiated(run: Run) -> None:
    """A call that is differentiated is right, changes nothing, takes views and any upstream gradient."""

    def check(case: Case) -> None:
        allowed, upstream = run.permitted_base(case), run.upstream(case)
        slopes = base_gradients(run, case, upstream)
        for way in ("strided", "sliced", "mixed", "again"):
            _differentiated(run, case, allowed, upstream, slopes, way)
        for name in slopes if len(slopes) > 1 else ():
            _differentiated(run, case, allowed, upstream, {name: slopes[name]}, "plain", NOTES["alone"])
        for scale in (1.0, LARGE[run.dtype]):
            ones = np.full(upstream.shape, scale)
            of_ones = _of(slopes, permitted_gradients(case, ones))
            _differentiated(run, case, allowed, ones, of_ones, "plain" if scale == 1 else "expanded")

    run.over(("generic", "adversarial"), check, FEW_TOKENS, inputs=4)


@clauses("contract.differentiated")
@operations(*DIFFERENTIABLE)
def test_differentiated_in_what_is_equal(run: Run) -> None:
    """Rows of one number each, expanded; one array in the place of two."""

    def check(case: Case) -> None:
        upstream = run.upstream(case)
        slopes = base_gradients(run, case, upstream)
        of_rows = upstream[..., :1] if upstream.ndim else upstream
        small = FORMATS[run.dtype].round(SMALL[run.dtype] * np.broadcast_to(of_rows, upstream.shape))
        expanded = case.with_arguments(**_by_row(case))
        of_small = _of(slopes, permitted_gradients(expanded, small))
        _differentiated(run, expanded, permitted(expanded), small, of_small, "expanded")
        if twins := _twins(case):
            same = case.with_arguments(**twins)
            right = _of(slopes, permitted_gradients(same, upstream))
            _differentiated(run, same, permitted(same), upstream, right, "plain", NOTES["one array"])

    run.over(("generic", "adversarial"), check, FEW_TOKENS, inputs=4)


def _differentiated(
    run: Run,
    case: Case,
    allowed: Permitted,
    upstream: np.ndarray,
    slopes: dict[str, Permitted],
    way: str,
    note: str = "",
) -> None:
    """Judge the result of a call that is differentiated in some arguments, and its gradients there."""
    note, names = note or NOTES.get(way, ""), list(slopes)
    found = run.slopes(case, names, upstream, way)
    if found.result is not None:
        told = "; ".join(filter(None, ["this call is differentiated; one that is not is right", note]))
        run.judge(case, found.result, allowed, note=told, made=Call(case, recorded=names[0]))
    for name in names:
        run.judge(case, found.gradients[name], slopes[name], name, upstream, note=note)


def _of(some: dict[str, Permitted], others: dict[str, Permitted]) -> dict[str, Permitted]:
    """Other permitted sets of the same arguments."""
    return {name: others[name] for name in some}


def _by_row(case: Case) -> dict[str, np.ndarray]:
    """Arguments of tokens with one number in each row, that of its first token."""
    found = {
        a.name: case.arguments[a.name] for a in OPERATIONS[case.operation].arguments if a.shape == ("B", "T")
    }
    return {
        name: np.broadcast_to(x[:, :1], x.shape).copy()
        for name, x in found.items()
        if x is not None and x.dtype == np.float64
    }


def _twins(case: Case) -> dict[str, np.ndarray]:
    """Arguments in whose place another one of the call can stand: what is old, or a reference, now."""
    pairs = {a.name: a.beside or a.name.removeprefix("old_") for a in OPERATIONS[case.operation].arguments}
    real = {name: x for name, x in case.arguments.items() if x is not None and x.dtype == np.float64}
    return {
        name: real[other] for name, other in pairs.items() if other != name and {name, other} <= real.keys()
    }


def _reversed(x: Any) -> Any:
    """An argument read backwards along its rows; masks and what is left out stay."""
    return x if x is None or x.dtype == bool else x[::-1].copy()
