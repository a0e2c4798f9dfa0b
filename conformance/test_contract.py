"""The clauses of the chapter `contract`: what holds of every operation."""

import numpy as np

from conformance.backend import Limited
from conformance.cases import MASK_REGIONS, OPTION_VALUES, SHAPE_REGIONS, Case
from conformance.marks import clauses, operations
from conformance.oracle import Permitted, judged, permitted
from conformance.protocol import OPERATIONS
from conformance.run import Run
from reference.numbers.formats import FORMATS

ANY_MASK = ("adversarial", "holes", "empty-rows")
CONSTANTS = tuple(name for name, operation in OPERATIONS.items() if operation.constant)


@clauses("contract.masked-garbage")
def test_masked_garbage(run: Run) -> None:
    """±10⁴ under the mask changes no bit at active positions."""
    run.over(ANY_MASK, lambda case: _masked_values_do_not_matter(run, case, (1e4, -1e4)))


@clauses("contract.masked-nonfinite")
def test_masked_nonfinite(run: Run) -> None:
    """Nor do NaN and ±inf: multiplying by the mask is not masking."""
    run.over(ANY_MASK, lambda case: _masked_values_do_not_matter(run, case, (np.nan, np.inf, -np.inf)))


@clauses("contract.mask-holes")
def test_mask_holes(run: Run) -> None:
    """Holes anywhere, rows without any True, a batch without any True, one True in all."""
    run.over(MASK_REGIONS, run.conforms_there)


@clauses("contract.padding")
def test_padding(run: Run) -> None:
    """Masked columns appended left or right change nothing."""

    def check(case: Case) -> None:
        allowed = run.permitted_base(case)
        for left, right in ((0, 3), (2, 0)):
            padded = {name: _pad(x, left, right) for name, x in case.arguments.items()}
            got = run.call(case.with_arguments(**padded))
            run.judge(case, got[:, left : got.shape[1] - right], allowed)

    run.over(("generic", "adversarial", "truncated"), check)


@clauses("contract.permutation")
def test_permutation(run: Run) -> None:
    """Permuting the rows permutes the result."""

    def check(case: Case) -> None:
        order = np.roll(np.arange(len(case.arguments["mask"]))[::-1], 1)
        permuted = {name: x[order] for name, x in case.arguments.items()}
        allowed = run.permitted_base(case)
        got = run.call(case.with_arguments(**permuted))
        run.judge(case, got[np.argsort(order)], allowed)

    run.over(("generic", "adversarial"), check)


@clauses("contract.constants")
@operations(*CONSTANTS)
def test_constants(run: Run) -> None:
    """No gradient flows through a result that is a constant of the loss."""

    def check(case: Case) -> None:
        names = [a.name for a in OPERATIONS[case.operation].arguments if a.kind == "real"]
        found = run.gradients(case, names)
        leaks = [name for name in names if np.nan_to_num(found[name], nan=1.0).any()]
        run.seen(case, not leaks, f"a gradient flows into {', '.join(leaks)}: detach the result")

    run.over(("generic", "holes"), check)


@clauses("contract.options-used")
def test_options_used(run: Run) -> None:
    """An option at another value changes the result where the permitted answers do not overlap."""
    limits = run.backend.limits(run.operation)
    choices = {name: limits.get(name, OPTION_VALUES[name][1]) for name in OPERATIONS[run.operation].options}

    def check(case: Case) -> None:
        if all(len(values) == 1 for values in choices.values()):
            raise Limited("no option can be varied")
        allowed, got = permitted(case), run.call(case)
        for name, value in case.options.items():
            for other in choices[name]:
                variant = case.with_options(**{name: other})
                if other == value or not _apart(case, allowed, permitted(variant), got):
                    continue
                same = np.array_equal(got, run.call(variant), equal_nan=True)
                run.seen(
                    case, not same, f"{name}={other!r} and {name}={value!r} give the same: {name} is ignored"
                )

    run.over(("generic", "holes", "truncated"), check)


@clauses("contract.pure")
def test_pure(run: Run) -> None:
    """No state between calls, the same bits twice, read-only and strided inputs accepted and unchanged."""

    def check(case: Case) -> None:
        allowed, first = run.permitted_base(case), run.call(case)
        others = {name: x if x.dtype == bool else x[::-1] for name, x in case.arguments.items()}
        run.call(case.with_arguments(**others))
        again = run.call(case)
        if run.backend.device == "cpu":
            same = all(_same_bits(first[i], again[i]) for i in judged(case, first))
            run.seen(case, same, f"called twice: first {first.tolist()}, then {again.tolist()}")
        else:
            run.judge(case, again, allowed)
        run.judge(case, run.call(case, layout="strided"), allowed)

    run.over(("generic", "adversarial"), check)


@clauses("contract.shapes")
def test_shapes(run: Run) -> None:
    """B = T, B = 1, T = 1: no silent broadcast; the result's shape, dtype and device as stated."""
    run.over(SHAPE_REGIONS, run.conforms_there)


def _masked_values_do_not_matter(run: Run, case: Case, fillings: tuple[float, ...]) -> None:
    """Call with each filling at masked positions of every array and compare bit by bit with zeros there."""
    mask = case.arguments["mask"]
    clean = run.call(_filled(case, mask, 0.0))
    for filling in fillings:
        filled = _filled(case, mask, float(FORMATS[case.dtype].round(filling)))
        got = run.call(filled)
        wrong = [i for i in judged(case, got) if not _same_bits(got[i], clean[i])]
        run.seen(
            filled,
            not wrong,
            *(
                f"at {i}: {float(got[i])!r}, and {float(clean[i])!r} with zeros under the mask"
                for i in wrong[:1]
            ),
        )


def _filled(case: Case, mask: np.ndarray, filling: float) -> Case:
    arrays = case.arguments.items()
    return case.with_arguments(
        **{
            name: np.where(mask, x, filling)
            for name, x in arrays
            if x.shape == mask.shape and x.dtype != bool
        }
    )


def _pad(x: np.ndarray, left: int, right: int) -> np.ndarray:
    """Append masked columns to an array of rows; they hold ones, and False in a mask."""
    if x.ndim < 2:
        return x
    return np.pad(x, ((0, 0), (left, right)), constant_values=x.dtype.type(x.dtype != bool))


def _apart(case: Case, allowed: Permitted, other: Permitted, got: np.ndarray) -> bool:
    """Whether two permitted sets are disjoint at some specified element."""
    intervals = [(allowed.bounds(i), other.bounds(i)) for i in judged(case, got)]
    return any(a[1] < b[0] or b[1] < a[0] for a, b in intervals)


def _same_bits(x: float, y: float) -> bool:
    return bool(x == y or (x != x and y != y))
