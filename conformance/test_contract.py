"""The clauses of the chapter `contract`: what holds of every operation."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from conformance.answers import Answer, answers, hold
from conformance.backend import Limited
from conformance.cases import MASK_REGIONS, Case
from conformance.extremes import in_reach, with_slopes
from conformance.marks import clauses, operations
from conformance.messages import element
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, judged, permitted
from conformance.parts import denominator, part, parts, rows_of, with_a_part_without_tokens
from conformance.relations import (
    BATCHED,
    BOUNDED,
    FEW_TOKENS,
    IN_ORDER,
    conforms_and_differentiates_there,
    gradients,
    having,
    right_gradients,
    same_bits,
)
from conformance.reproduction import Call
from conformance.run import Run
from conformance.values import consistent, option_values, reads
from reference.numbers.formats import FORMATS

ANY_MASK = ("adversarial", "holes", "empty-rows")


MASKED = having("mask")
MASKED_WITH_GRADIENT = tuple(name for name in MASKED if OPERATIONS[name].differentiable)
MEANS = (
    "aggregate", "policy_loss", "policy_metrics", "kl_penalty_loss", "value_loss", "reward_model_loss",
    "dpo_loss", "grpo_loss", "importance_sampling_mean",
)  # fmt: skip
"""The operations that are means over tokens, rows or samples."""
STATISTICS = ("whiten", "group_advantages", "rloo_advantages")
"""The operations whose rows depend on each other by their definition."""
BY_ROWS = tuple(
    name
    for name in BATCHED
    if OPERATIONS[name].result[:1] in (("B",), ("N",)) and name not in (*STATISTICS, *MEANS)
)
EXTREME = tuple(
    name
    for name, operation in OPERATIONS.items()
    if name == "reward_model_loss"
    or any(
        a.domain in ("logit", "log-weight") or (a.beside and a.kind == "real") for a in operation.arguments
    )
)
"""The operations that take log-ratios, log-weights, logits or scores of pairs."""
WITH_OPTIONS = tuple(name for name, op in OPERATIONS.items() if op.options)


@clauses("contract.masked-garbage")
@operations(*MASKED)
def test_masked_garbage(run: Run) -> None:
    """±10⁴ under the mask changes no bit of results and gradients at active positions."""
    run.over(ANY_MASK, lambda case: _masked_values_do_not_matter(run, case, (1e4, -1e4)), inputs=10)


@clauses("contract.masked-nonfinite")
@operations(*MASKED)
def test_masked_nonfinite(run: Run) -> None:
    """Nor do NaN and ±inf: multiplying by the mask is not masking."""
    fillings = (np.nan, np.inf, -np.inf)
    run.over(ANY_MASK, lambda case: _masked_values_do_not_matter(run, case, fillings), inputs=10)


@clauses("contract.masked-gradient")
@operations(*MASKED_WITH_GRADIENT)
def test_masked_gradient(run: Run) -> None:
    """No gradient at masked positions, whatever lies there."""
    names = list(OPERATIONS[run.operation].differentiable)

    def check(case: Case) -> None:
        mask = case.arguments["mask"]
        for filled in (case, _filled(case, (np.nan, np.inf))):
            upstream = run.upstream(case)
            for name, got in run.gradients(filled, names, upstream).items():
                masked = np.where(mask, 0.0, got)
                told = f"gradient in {name}: {got.tolist()}, expected 0 where masked"
                run.seen(Call(filled, name, upstream), not masked.any(), told)

    run.over(("holes", "empty-rows"), check, FEW_TOKENS, inputs=5)


@clauses("contract.mask-holes")
@operations(*MASKED)
def test_mask_holes(run: Run) -> None:
    """Holes anywhere, rows without any True, a batch without any True, one True in all; gradients too."""
    run.over(MASK_REGIONS, conforms_and_differentiates_there(run))


@clauses("contract.padding")
@operations(*MASKED)
def test_padding(run: Run) -> None:
    """Masked columns appended left or right change nothing, in value and gradient."""

    def check(case: Case) -> None:
        case = _with_own_horizon(case)
        allowed = run.permitted_base(case)
        upstream = run.upstream(case)
        slopes = right_gradients(run, case, upstream)
        for left, right in ((0, 3), (2, 0)):
            padded = case.with_arguments(**_padded(case, left, right))
            side = f"{left} masked columns on the left" if left else f"{right} masked columns on the right"
            note = f"the call has {side}; without them it is right"
            got, read = _cut(case, run.call(padded), left, right)
            run.judge(case, got, allowed, note=note, made=Call(padded, read=read))
            for name, found in gradients(run, padded, list(slopes), upstream).items():
                got, read = _cut(case, found, left, right)
                run.judge(
                    case, got, slopes[name], name, upstream, note, Call(padded, name, upstream, read=read)
                )

    run.over(("generic", "adversarial", "truncated"), check, inputs=10)


@clauses("contract.permutation")
@operations(*(name for name in BATCHED if name not in IN_ORDER))
def test_permutation(run: Run) -> None:
    """Permuting the rows permutes the result and its gradients."""

    def check(case: Case) -> None:
        operation = OPERATIONS[case.operation]
        order = _another_order(rows_of(case))
        back = np.argsort(order)
        allowed, upstream = run.permitted_base(case), run.upstream(case)
        slopes = right_gradients(run, case, upstream) if case.region == "generic" else {}
        permuted = part(case, order)
        rows_of_their_own = bool(operation.result) and not operation.keys
        note = f"the call has its rows in the order {order.tolist()}; in order it is right"
        read = f"{{answer}}[{back.tolist()}]"
        got, made = run.call(permuted), Call(permuted)
        if rows_of_their_own:
            got, made = got[back], Call(permuted, read=read)
        run.judge(case, got, allowed, note=note, made=made)
        moved = upstream[order] if rows_of_their_own else upstream
        for name, gradient in gradients(run, permuted, list(slopes), moved).items():
            made = Call(permuted, name, moved, read=read)
            run.judge(case, gradient[back], slopes[name], name, upstream, note, made)

    run.over(("generic", "adversarial"), check, FEW_TOKENS, inputs=5)


@clauses("contract.partition")
@operations(*MEANS)
def test_parts_of_a_mean(run: Run) -> None:
    """Σ part · its denominator = whole · its denominator, one part without tokens; and their gradients."""
    fixed = {"self_normalized": False} if run.operation == "importance_sampling_mean" else {}

    def check(case: Case) -> None:
        whole = with_a_part_without_tokens(case)
        run.permitted_base(whole)
        got, slopes = run.call(whole), right_gradients(run, whole, run.upstream(whole))
        names = OPERATIONS[case.operation].keys or ("result",)
        sums = dict.fromkeys(names, Answer.of(0))
        for rows in parts(rows_of(whole)):
            piece = part(whole, rows)
            found = answers(run.call(piece), permitted(piece))
            sums = {n: sums[n] + denominator(piece) * x for n, x in zip(names, found.flat, strict=True)}
            if slopes:
                run.differentiates(piece)
        told = {f"Σ over parts of {name} · denominator": x for name, x in sums.items()}
        story = f"whole      · its denominator: {(denominator(whole) * got).tolist()!r}"
        pieces = ", ".join(str(rows.tolist()) for rows in parts(rows_of(whole)))
        note = f"note       the code gives the whole; the parts are its rows {pieces}"
        hold(run, Call(whole), told, story, note)

    run.over(("exact", "empty-rows"), check, FEW_TOKENS, inputs=5, **fixed)


@clauses("contract.partition")
@operations(*BY_ROWS)
def test_parts_of_rows(run: Run) -> None:
    """The rows of a part are those of the whole."""

    def check(case: Case) -> None:
        whole = with_a_part_without_tokens(case)
        allowed = run.permitted_base(whole)
        for rows in parts(rows_of(whole)):
            piece = part(whole, rows)
            its_own = Permitted(allowed.balls[rows], allowed.exact[rows], allowed.format)
            run.judge(piece, run.call(piece), its_own)

    run.over(("empty-rows",), check, FEW_TOKENS, inputs=5)


@clauses("contract.extremes")
@operations(*EXTREME)
def test_extremes(run: Run) -> None:
    """Log-ratios of ±30, ±90, ±800, logits of ±10⁴ and -∞, scores 10³ apart: values and gradients."""
    run.over(("extremes",), conforms_and_differentiates_there(run, in_reach, with_slopes), FEW_TOKENS)


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
            for other in choices[name] if reads(case.operation, case.options, name) else ():
                variant = case.with_options(**{name: other})
                if variant.options != consistent(case.operation, variant.options, case.arguments):
                    continue
                if other == value or not _apart(case, allowed, permitted(variant), got):
                    continue
                same = np.array_equal(got, run.call(variant), equal_nan=True)
                story = f"{name}={other!r} and {name}={value!r} give the same: {name} is ignored"
                run.seen(case, not same, story)

    run.over(
        ("generic", "holes", "empty-rows"), check, FEW_TOKENS, inputs=4, **BOUNDED.get(run.operation, {})
    )


def _masked_values_do_not_matter(run: Run, case: Case, fillings: tuple[float, ...]) -> None:
    """Compare results and gradients with fillings at masked positions, bit by bit, with zeros there.

    Off the CPU, where the same call may give other bits again, they have to be permitted.
    """
    clean = _filled(case, (0.0,))
    if run.backend.device != "cpu":
        _masked_values_are_permitted(run, clean, _each_filling(case, fillings))
        return
    with_zeros = _result_and_gradients(run, clean)
    for filled in _each_filling(case, fillings):
        for name, got in _result_and_gradients(run, filled).items():
            zeros = with_zeros[name]
            wrong = [i for i in judged(case, got) if not same_bits(got[i], zeros[i])]
            told = [
                f"{element(i, name)} is {got[i].item()!r}, and {zeros[i].item()!r} with zeros there"
                for i in wrong[:1]
            ]
            upstream = run.upstream(filled, seed=0) if name else None
            run.seen(Call(filled, name, upstream), not wrong, *told)


def _masked_values_are_permitted(run: Run, clean: Case, filled: Iterable[Case]) -> None:
    """Judge results and gradients by what is permitted with zeros at masked positions."""
    allowed, upstream = run.permitted_base(clean), run.upstream(clean, seed=0)
    slopes = right_gradients(run, clean, upstream)
    for case in filled:
        run.judge(case, run.call(case), allowed)
        for name, got in gradients(run, case, list(slopes), upstream).items():
            run.judge(case, got, slopes[name], name, upstream)


def _each_filling(case: Case, fillings: tuple[float, ...]) -> Iterator[Case]:
    """Each argument gets each filling, and two that stand side by side never the same one."""
    for turn in range(len(fillings)):
        turned = fillings[turn:] + fillings[:turn]
        yield _filled(case, tuple(float(x) for x in FORMATS[case.dtype].round(np.array(turned))))


def _result_and_gradients(run: Run, case: Case) -> dict[str, np.ndarray]:
    """The result of a call, under "", and its gradients, if there are any; masks alone choose upstream."""
    names = list(OPERATIONS[case.operation].differentiable)
    return {"": run.call(case)} | gradients(run, case, names, run.upstream(case, seed=0))


def _with_own_horizon(case: Case) -> Case:
    """Give a horizon where the default, the padded width, would count padding; or another mode."""
    if case.options.get("aggregation", case.options.get("mode")) != "seq-mean-token-sum-norm":
        return case
    if "horizon" not in case.options:
        return case.with_options(aggregation="token-mean")
    return case.with_options(horizon=7) if case.options["horizon"] is None else case


def _filled(case: Case, fillings: tuple[float, ...]) -> Case:
    """Put fillings, in turns, at masked positions, and where a row without active tokens has one number."""
    mask = case.arguments["mask"]
    takes_part = {("B", "T"): mask, ("B",): mask.any(axis=1)}
    filled = {
        a: case.arguments[a.name] for a in OPERATIONS[case.operation].arguments if a.shape in takes_part
    }
    numbers = {a: x for a, x in filled.items() if x is not None and x.dtype == np.float64}
    return case.with_arguments(
        **{
            a.name: np.where(takes_part[a.shape], x, fillings[k % len(fillings)])
            for k, (a, x) in enumerate(numbers.items())
        }
    )


def _cut(case: Case, got: np.ndarray, left: int, right: int) -> tuple[np.ndarray, str]:
    """Take appended columns away again; and how that is written."""
    if not OPERATIONS[case.operation].of_tokens or got.ndim != 2:
        return got, "{answer}"
    stop = got.shape[1] - right
    return got[:, left:stop], f"{{answer}}[:, {left}:{stop}]"


def _padded(case: Case, left: int, right: int) -> dict[str, Any]:
    """Append masked columns to the arrays of tokens: ones, False in a mask, 0 in what is counted from 0."""
    found = {a.name: case.arguments[a.name] for a in OPERATIONS[case.operation].arguments if "T" in a.shape}
    return {
        name: x
        if x is None
        else np.pad(x, ((0, 0), (left, right)), constant_values=x.dtype.type(x.dtype == np.float64))
        for name, x in found.items()
    }


def _another_order(rows: int) -> np.ndarray:
    """An order of the rows that leaves none of three or more, nor of two, where it is."""
    return np.roll(np.arange(rows), 1)


def _apart(case: Case, allowed: Permitted, other: Permitted, got: np.ndarray) -> bool:
    """Whether two permitted sets are disjoint at some specified element."""
    return any(allowed.excludes(other, i) for i in judged(case, got))
