"""The clauses of the chapter `contract`: what holds of every operation."""

import contextlib
from typing import Any

import numpy as np

from conformance.backend import Limited
from conformance.cases import MASK_REGIONS, SHAPE_REGIONS, Case
from conformance.marks import clauses, operations
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, judged, permitted
from conformance.run import Run
from conformance.values import consistent, option_values
from reference.numbers.formats import FORMATS

ANY_MASK = ("adversarial", "holes", "empty-rows")


def _having(*wanted: str) -> tuple[str, ...]:
    """The operations that have arguments of these kinds or shapes in the protocol."""
    traits = {
        name: {a.kind for a in operation.arguments} | {"".join(a.shape) for a in operation.arguments}
        for name, operation in OPERATIONS.items()
    }
    return tuple(name for name, found in traits.items() if found.intersection(wanted))


MASKED = _having("mask")
BATCHED = _having("BT", "B", "N", "BTV")
WITH_CONSTANTS = tuple(name for name, op in OPERATIONS.items() if op.constant or op.differentiable)
WITH_OPTIONS = tuple(name for name, op in OPERATIONS.items() if op.options)


@clauses("contract.masked-garbage")
@operations(*MASKED)
def test_masked_garbage(run: Run) -> None:
    """±10⁴ under the mask changes no bit of results and gradients at active positions."""
    run.over(ANY_MASK, lambda case: _masked_values_do_not_matter(run, case, (1e4, -1e4)))


@clauses("contract.masked-nonfinite")
@operations(*MASKED)
def test_masked_nonfinite(run: Run) -> None:
    """Nor do NaN and ±inf: multiplying by the mask is not masking."""
    run.over(ANY_MASK, lambda case: _masked_values_do_not_matter(run, case, (np.nan, np.inf, -np.inf)))


@clauses("contract.mask-holes")
@operations(*MASKED)
def test_mask_holes(run: Run) -> None:
    """Holes anywhere, rows without any True, a batch without any True, one True in all."""
    run.over(MASK_REGIONS, run.conforms_there)


@clauses("contract.padding")
@operations(*MASKED)
def test_padding(run: Run) -> None:
    """Masked columns appended left or right change nothing."""

    def check(case: Case) -> None:
        case = _with_own_horizon(case)
        allowed = run.permitted_base(case)
        for left, right in ((0, 3), (2, 0)):
            padded = {name: _pad(x, left, right) for name, x in case.arguments.items()}
            got = run.call(case.with_arguments(**padded))
            run.judge(case, got[:, left : got.shape[1] - right] if got.ndim == 2 else got, allowed)

    run.over(("generic", "adversarial", "truncated"), check)


@clauses("contract.permutation")
@operations(*BATCHED)
def test_permutation(run: Run) -> None:
    """Permuting the rows permutes the result."""

    def check(case: Case) -> None:
        rows = len(next(iter(case.arguments.values())))
        order = np.roll(np.arange(rows)[::-1], 1)
        permuted = {name: None if x is None else x[order] for name, x in case.arguments.items()}
        allowed = run.permitted_base(case)
        got = run.call(case.with_arguments(**permuted))
        operation = OPERATIONS[case.operation]
        rows_of_their_own = bool(operation.result) and not operation.keys
        run.judge(case, got[np.argsort(order)] if rows_of_their_own else got, allowed)

    run.over(("generic", "adversarial"), check)


@clauses("contract.constants")
@operations(*WITH_CONSTANTS)
def test_constants(run: Run) -> None:
    """No gradient flows into what is a constant of the loss, nor through a result that is one."""

    def check(case: Case) -> None:
        operation = OPERATIONS[case.operation]
        real = [a.name for a in operation.arguments if a.kind in ("real", "optional")]
        names = [n for n in real if n not in operation.differentiable and case.arguments[n] is not None]
        found = run.gradients(case, names, run.upstream(case)) if names else {}
        leaks = [name for name in names if np.nan_to_num(found[name], nan=1.0).any()]
        run.seen(case, not leaks, f"a gradient flows into {', '.join(leaks)}: detach it")

    run.over(("generic", "adversarial"), check)


@clauses("contract.options-used")
@operations(*WITH_OPTIONS)
def test_options_used(run: Run) -> None:
    """An option at another value changes the result where the permitted answers do not overlap."""
    limits = run.backend.limits(run.operation)
    names = OPERATIONS[run.operation].options
    choices = {name: limits.get(name, option_values(run.operation, name)) for name in names}

    def check(case: Case) -> None:
        if all(len(values) == 1 for values in choices.values()):
            raise Limited("no option can be varied")
        allowed, got = permitted(case), run.call(case)
        for name, value in case.options.items():
            for other in choices[name]:
                variant = case.with_options(**{name: other})
                if variant.options != consistent(case.operation, variant.options):
                    continue
                if other == value or not _apart(case, allowed, permitted(variant), got):
                    continue
                same = np.array_equal(got, run.call(variant), equal_nan=True)
                story = f"{name}={other!r} and {name}={value!r} give the same: {name} is ignored"
                run.seen(case, not same, story)

    run.over(("generic", "holes", "truncated"), check)


@clauses("contract.pure")
def test_pure(run: Run) -> None:
    """No state between calls, the same bits twice, read-only and strided inputs accepted and unchanged."""

    def check(case: Case) -> None:
        allowed, first = run.permitted_base(case), run.call(case)
        run.call(case.with_arguments(**{name: _reversed(x) for name, x in case.arguments.items()}))
        again = run.call(case)
        if run.backend.device == "cpu":
            same = all(_same_bits(first[i], again[i]) for i in judged(case, first))
            run.seen(case, same, f"called twice: first {first.tolist()}, then {again.tolist()}")
        else:
            run.judge(case, again, allowed)
        run.judge(case, run.call(case, layout="strided"), allowed)

    run.over(("generic", "adversarial"), check)


@clauses("contract.shapes")
@operations(*BATCHED)
def test_shapes(run: Run) -> None:
    """B = T, B = 1, T = 1, N = 1: no silent broadcast; the result's shape, dtype and device as stated."""
    run.over(SHAPE_REGIONS, run.conforms_there)


def _masked_values_do_not_matter(run: Run, case: Case, fillings: tuple[float, ...]) -> None:
    """Compare results and gradients with each filling at masked positions, bit by bit, with zeros there."""
    mask = case.arguments["mask"]
    clean = _result_and_gradients(run, _filled(case, mask, 0.0))
    for filling in fillings:
        filled = _filled(case, mask, float(FORMATS[case.dtype].round(filling)))
        for name, got in _result_and_gradients(run, filled).items():
            wrong = [i for i in judged(case, got) if not _same_bits(got[i], clean[name][i])]
            run.seen(
                filled,
                not wrong,
                *(
                    f"{name}[{i}] is {got[i].item()!r}, and {clean[name][i].item()!r} with zeros there"
                    for i in wrong[:1]
                ),
            )


def _result_and_gradients(run: Run, case: Case) -> dict[str, np.ndarray]:
    """The result of a call and, where the backend offers them, its gradients; masks alone choose upstream."""
    found = {"result": run.call(case)}
    names = list(OPERATIONS[case.operation].differentiable)
    if names:
        upstream = run.upstream(case, seed=0)
        with contextlib.suppress(Limited):
            found |= {f"gradient in {n}": g for n, g in run.gradients(case, names, upstream).items()}
    return found


def _with_own_horizon(case: Case) -> Case:
    """Give a horizon where the default, the padded width, would count padding; or another mode."""
    if "horizon" not in case.options and case.options.get("aggregation") == "seq-mean-token-sum-norm":
        return case.with_options(aggregation="token-mean")
    return case.with_options(horizon=7) if case.options.get("horizon", 0) is None else case


def _reversed(x: Any) -> Any:
    """An argument read backwards along its rows; masks and what is left out stay."""
    return x if x is None or x.dtype == bool else x[::-1].copy()


def _filled(case: Case, mask: np.ndarray, filling: float) -> Case:
    per_token = {n: x for n, x in case.arguments.items() if np.shape(x) == mask.shape and x.dtype != bool}
    return case.with_arguments(**{name: np.where(mask, x, filling) for name, x in per_token.items()})


def _pad(x: Any, left: int, right: int) -> Any:
    """Append masked columns to an array of rows; they hold ones, and False in a mask."""
    if np.ndim(x) < 2:
        return x
    return np.pad(x, ((0, 0), (left, right)), constant_values=x.dtype.type(x.dtype != bool))


def _apart(case: Case, allowed: Permitted, other: Permitted, got: np.ndarray) -> bool:
    """Whether two permitted sets are disjoint at some specified element."""
    intervals = [(allowed.bounds(i), other.bounds(i)) for i in judged(case, got)]
    return any(a[1] < b[0] or b[1] < a[0] for a, b in intervals)


def _same_bits(x: float, y: float) -> bool:
    return bool(x == y or (x != x and y != y))
