"""The clauses of the chapter `contract`: what holds of every operation."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.answers import Answer, answers, hold
from conformance.backend import Limited
from conformance.cases import MASK_REGIONS, SHAPE_REGIONS, Case, ordinary
from conformance.extremes import in_reach, with_slopes
from conformance.marks import clauses, operations
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, judged, permitted, permitted_gradients
from conformance.parts import denominator, part, parts, rows_of, with_a_part_without_tokens
from conformance.run import Run, Unclear
from conformance.values import consistent, option_values, reads
from reference.numbers.formats import FORMATS

ANY_MASK = ("adversarial", "holes", "empty-rows")
FEW_TOKENS = 7
"""Rows of a relation between calls, where length adds nothing."""
MANY = 1031
"""More tokens, or rows, than a block has, and no multiple of one."""
LONGER = {"T": 2051, "N": 2051}
"""More than two such blocks, and than float16 counts one by one."""
VOCABULARY = 2**16 + 3
"""More logits than 16 bits count."""
FEW = {"B": 1, "T": 1, "N": 1, "V": 2}
"""The other lengths there."""
MANY_PARAMETERS = 260
"""More than a block has, and than 8 bits count."""
GAPS = ((0, 256), (640, 896))
"""Where nothing is active, in long rows and among many: whole blocks, also the first."""


def _having(*wanted: str) -> tuple[str, ...]:
    """The operations that have arguments of these kinds or shapes in the protocol."""
    traits = {
        name: {a.kind for a in operation.arguments} | {"".join(a.shape) for a in operation.arguments}
        for name, operation in OPERATIONS.items()
    }
    return tuple(name for name, found in traits.items() if found.intersection(wanted))


MASKED = _having("mask")
MASKED_WITH_GRADIENT = tuple(name for name in MASKED if OPERATIONS[name].differentiable)
BATCHED = _having("BT", "B", "N", "BTV")
MEANS = (
    "aggregate", "policy_loss", "policy_metrics", "kl_penalty_loss", "value_loss", "reward_model_loss",
    "dpo_loss", "grpo_loss", "importance_sampling_mean",
)  # fmt: skip
"""The operations that are means over tokens, rows or samples."""
BOUNDED = {"conjugate_gradient": {"max_iters": 1}, "trust_region_step": {"cg_iters": 1}}
"""Options with which the answers of few bits are decided."""
STATISTICS = ("whiten", "group_advantages", "rloo_advantages")
"""The operations whose rows depend on each other by their definition."""
IN_ORDER = ("train_step",)
"""The operations in which the order of rows says what belongs together."""
TRAINING = ("train_step",)
"""The operations that differentiate by themselves, and need what the library records."""
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
NOTES = {
    "plain": "this call is differentiated",
    "strided": "where the library has views, the arrays were such, of every second number in wider ones",
    "sliced": "where the library has views, the arrays were cut out of larger ones",
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


@clauses("contract.masked-gradient")
@operations(*MASKED_WITH_GRADIENT)
def test_masked_gradient(run: Run) -> None:
    """No gradient at masked positions, whatever lies there."""
    names = list(OPERATIONS[run.operation].differentiable)

    def check(case: Case) -> None:
        mask = case.arguments["mask"]
        for filled in (case, _filled(case, (np.nan, np.inf))):
            for name, got in run.gradients(filled, names, run.upstream(case)).items():
                masked = np.where(mask, 0.0, got)
                run.seen(
                    filled, not masked.any(), f"gradient in {name}: {got.tolist()}, expected 0 where masked"
                )

    run.over(("holes", "empty-rows"), check, FEW_TOKENS, inputs=5)


@clauses("contract.mask-holes")
@operations(*MASKED)
def test_mask_holes(run: Run) -> None:
    """Holes anywhere, rows without any True, a batch without any True, one True in all; gradients too."""
    run.over(MASK_REGIONS, _conforms_and_differentiates_there(run))


@clauses("contract.padding")
@operations(*MASKED)
def test_padding(run: Run) -> None:
    """Masked columns appended left or right change nothing, in value and gradient."""

    def check(case: Case) -> None:
        case = _with_own_horizon(case)
        allowed = run.permitted_base(case)
        upstream = run.upstream(case)
        slopes = _right_gradients(run, case, upstream)
        for left, right in ((0, 3), (2, 0)):
            padded = case.with_arguments(**_padded(case, left, right))
            run.judge(case, _cut(case, run.call(padded), left, right), allowed)
            for name, got in _gradients(run, padded, list(slopes), upstream).items():
                run.judge(case, _cut(case, got, left, right), slopes[name], name, upstream)

    run.over(("generic", "adversarial", "truncated"), check)


@clauses("contract.permutation")
@operations(*(name for name in BATCHED if name not in IN_ORDER))
def test_permutation(run: Run) -> None:
    """Permuting the rows permutes the result and its gradients."""

    def check(case: Case) -> None:
        operation = OPERATIONS[case.operation]
        order = _another_order(rows_of(case))
        back = np.argsort(order)
        allowed, upstream = run.permitted_base(case), run.upstream(case)
        slopes = _right_gradients(run, case, upstream) if case.region == "generic" else {}
        permuted = part(case, order)
        rows_of_their_own = bool(operation.result) and not operation.keys
        got = run.call(permuted)
        run.judge(case, got[back] if rows_of_their_own else got, allowed)
        moved = upstream[order] if rows_of_their_own else upstream
        for name, gradient in _gradients(run, permuted, list(slopes), moved).items():
            run.judge(case, gradient[back], slopes[name], name, upstream)

    run.over(("generic", "adversarial"), check, FEW_TOKENS, inputs=5)


@clauses("contract.partition")
@operations(*MEANS)
def test_parts_of_a_mean(run: Run) -> None:
    """Σ part · its denominator = whole · its denominator, one part without tokens; and their gradients."""
    fixed = {"self_normalized": False} if run.operation == "importance_sampling_mean" else {}

    def check(case: Case) -> None:
        whole = with_a_part_without_tokens(case)
        run.permitted_base(whole)
        got, slopes = run.call(whole), _right_gradients(run, whole, run.upstream(whole))
        names = OPERATIONS[case.operation].keys or ("result",)
        sums = dict.fromkeys(names, Answer.of(0))
        for rows in parts(rows_of(whole)):
            piece = part(whole, rows)
            found = answers(run.call(piece), permitted(piece))
            sums = {n: sums[n] + denominator(piece) * x for n, x in zip(names, found.flat, strict=True)}
            if slopes:
                run.differentiates(piece)
        told = {f"Σ over parts of {name} · denominator": x for name, x in sums.items()}
        hold(run, whole, told, f"whole      · its denominator: {(denominator(whole) * got).tolist()!r}")

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
    run.over(("extremes",), _conforms_and_differentiates_there(run, in_reach, with_slopes), FEW_TOKENS)


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
        run.seen(case, not leaks, f"a gradient flows into {', '.join(leaks)}: detach it")
        right_for_ones = _right_gradients(run, case, np.ones(upstream.shape))
        allowed = permitted_gradients(case, upstream) if right_for_ones else {}
        for name in right_for_ones:
            run.judge(case, found[name], allowed[name], name, upstream)

    run.over(("generic", "adversarial"), check, FEW_TOKENS, inputs=5)


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


@clauses("contract.pure")
def test_pure(run: Run) -> None:
    """No state between calls, the same bits twice, read-only and strided inputs accepted and unchanged."""
    unrecorded = () if run.operation in TRAINING else ("unrecorded",)

    def check(case: Case) -> None:
        allowed, first = run.permitted_base(case), run.call(case)
        run.call(case.with_arguments(**{name: _reversed(x) for name, x in case.arguments.items()}))
        again = run.call(case)
        if run.backend.device == "cpu":
            same = all(_same_bits(first[i], again[i]) for i in judged(case, first))
            run.seen(case, same, f"called twice: first {first.tolist()}, then {again.tolist()}")
        else:
            run.judge(case, again, allowed)
            run.tally.limitations.add(f"on {run.backend.device}, two calls are not compared bit by bit")
        for way in ("strided", "sliced", "refilled", *unrecorded):
            run.judge(case, run.call(case, way), allowed, note=NOTES[way])
        if twins := _twins(case):
            of_one = case.with_arguments(**twins)
            run.judge(of_one, run.call(of_one), permitted(of_one), note=NOTES["one array"])

    run.over(("generic", "adversarial"), check, FEW_TOKENS, inputs=5)


@clauses("contract.differentiated")
@operations(*(name for name, operation in OPERATIONS.items() if operation.differentiable))
def test_differentiated(run: Run) -> None:
    """A call that is differentiated is right, changes nothing, takes views and any upstream gradient."""

    def check(case: Case) -> None:
        allowed, upstream = run.permitted_base(case), run.upstream(case)
        slopes = _base_gradients(run, case, upstream)
        for way in ("strided", "sliced", "again"):
            _differentiated(run, case, allowed, upstream, slopes, way)
        for name in slopes if len(slopes) > 1 else ():
            _differentiated(run, case, allowed, upstream, {name: slopes[name]}, "plain")
        for scale in (1.0, LARGE[run.dtype]):
            ones = np.full(upstream.shape, scale)
            of_ones = _of(slopes, permitted_gradients(case, ones))
            _differentiated(run, case, allowed, ones, of_ones, "plain" if scale == 1 else "expanded")

    run.over(("generic", "adversarial"), check, FEW_TOKENS, inputs=4)


@clauses("contract.differentiated")
@operations(*(name for name, operation in OPERATIONS.items() if operation.differentiable))
def test_differentiated_in_what_is_equal(run: Run) -> None:
    """Rows of one number each, expanded; one array in the place of two."""

    def check(case: Case) -> None:
        upstream = run.upstream(case)
        slopes = _base_gradients(run, case, upstream)
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


@clauses("contract.shapes")
@operations(*BATCHED)
def test_shapes(run: Run) -> None:
    """B = T, B = 1, T = 1, N = 1, a group of one: no silent broadcast; shape, dtype, device as stated."""
    run.over(SHAPE_REGIONS, run.conforms_there)


@clauses("contract.shapes")
@operations(*BATCHED)
def test_many(run: Run) -> None:
    """A long row, many rows, a large vocabulary, a single number: nothing is left out, nor in gradients.

    In long rows, and many, options take each of their values, beside blocks without a token (not in the quick
    profile).
    """
    lengths = {letter for argument in OPERATIONS[run.operation].arguments for letter in argument.shape}
    check = _conforms_and_differentiates_there(run)
    vocabulary = [{"V": MANY}] if "V" in lengths else []
    for sizes in ({"T": MANY}, {"B": MANY, "N": MANY}):
        plain = run.ordinary(**{**FEW, **sizes})
        brief = run.profile == "quick" or run.operation in IN_ORDER
        others = () if brief else _with_each_value(run, plain)
        run.at(check, plain, *map(_in_blocks, others))
    states = [{"S": MANY_PARAMETERS, "B": 4, "T": 3}] if "S" in lengths else [LONGER]
    run.at(check, *(run.ordinary(**{**FEW, **sizes}) for sizes in (*states, *vocabulary, {})))


@clauses("contract.shapes")
@operations(*_having("BTV"))
def test_more_logits_than_16_bits_count(run: Run) -> None:
    """Logits of −∞ between others change nothing, however many they are; nor do they in gradients."""

    def check(case: Case) -> None:
        places = np.array([0, 1, 2**15, VOCABULARY - 1])
        allowed, upstream = run.permitted_base(case), run.upstream(case)
        slopes = _right_gradients(run, case, upstream)
        logits = {a.name for a in OPERATIONS[case.operation].arguments if a.domain == "logit"}
        spread = {name: _spread(case.arguments[name], places) for name in logits}
        if "tokens" in case.arguments:
            spread["tokens"] = places[case.arguments["tokens"]]
        wide = case.with_arguments(**spread)
        run.judge(wide, run.call(wide), allowed)
        for name, got in _gradients(run, wide, list(slopes), upstream).items():
            run.judge(case, got[..., places], slopes[name], name, upstream)
            elsewhere = np.delete(got, places, axis=-1)
            told = f"gradient in {name}: {elsewhere.any(axis=-1).sum()} rows have some where logits are −∞"
            run.seen(wide, not elsewhere.any(), told)

    run.at(check, run.ordinary(B=1, T=2, V=4))


@clauses("contract.shapes")
@operations(*_having("DD"))
def test_many_parameters(run: Run) -> None:
    """A diagonal matrix with many parameters, and few steps: none is left out."""
    plain, many = run.ordinary(D=2), run.ordinary(D=MANY_PARAMETERS)
    diagonal = many.with_arguments(matrix=np.diag(1.0 + np.arange(MANY_PARAMETERS) % 5))
    steps = [name for name in ("max_iters", "cg_iters") if name in plain.options]
    few = (case.with_options(**dict.fromkeys(steps, count)) for count, case in ((1, plain), (2, diagonal)))
    run.at(run.conforms, *few)


def _with_each_value(run: Run, case: Case) -> Iterator[Case]:
    """The call with one option at each of its values, the others as they are; as it is, where it has none."""
    limits = run.backend.limits(run.operation)
    tables = {name: limits.get(name, option_values(run.operation, name)) for name in case.options}
    options = [case.options | {name: value} for name, values in tables.items() for value in values]
    for given in {repr(one): one for one in [case.options, *options]}.values():
        yield replace(case, options=consistent(case.operation, given, case.arguments))


def _in_blocks(case: Case) -> Case:
    """The call with nothing active in some blocks, a large group, and groups of two that lie apart."""
    found, rng = {}, np.random.default_rng(0)
    for argument in OPERATIONS[case.operation].arguments:
        x = case.arguments[argument.name]
        if argument.kind == "mask" and x.size:
            place = np.arange(x.size).reshape(x.shape)
            found[argument.name] = ~np.any([(low <= place) & (place < high) for low, high in GAPS], axis=0)
        if argument.kind == "ids":
            names = rng.permutation(len(x)) // 2
            found[argument.name] = np.where(names < len(x) // 4, -1, names)
    return case.with_arguments(**found)


def _spread(logits: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The same logits at these places of a large vocabulary, −∞ elsewhere."""
    wide = np.full((*logits.shape[:-1], VOCABULARY), -np.inf)
    wide[..., places] = logits
    return wide


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
    note, names = note or NOTES[way], list(slopes)
    found = run.slopes(case, names, upstream, way)
    if found.result is not None:
        told = f"this call is differentiated; one that is not is right; {note}"
        run.judge(case, found.result, allowed, note=told, recorded=names[0])
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
            wrong = [i for i in judged(case, got) if not _same_bits(got[i], with_zeros[name][i])]
            run.seen(
                filled,
                not wrong,
                *(
                    f"{name}[{i}] is {got[i].item()!r}, and {with_zeros[name][i].item()!r} with zeros there"
                    for i in wrong[:1]
                ),
            )


def _masked_values_are_permitted(run: Run, clean: Case, filled: Iterable[Case]) -> None:
    """Judge results and gradients by what is permitted with zeros at masked positions."""
    allowed, upstream = run.permitted_base(clean), run.upstream(clean, seed=0)
    slopes = _right_gradients(run, clean, upstream)
    for case in filled:
        run.judge(case, run.call(case), allowed)
        for name, got in _gradients(run, case, list(slopes), upstream).items():
            run.judge(case, got, slopes[name], name, upstream)


def _each_filling(case: Case, fillings: tuple[float, ...]) -> Iterator[Case]:
    """Each argument gets each filling, and two that stand side by side never the same one."""
    for turn in range(len(fillings)):
        turned = fillings[turn:] + fillings[:turn]
        yield _filled(case, tuple(float(x) for x in FORMATS[case.dtype].round(np.array(turned))))


def _result_and_gradients(run: Run, case: Case) -> dict[str, np.ndarray]:
    """The result of a call and, where the backend offers them, its gradients; masks alone choose upstream."""
    found = {"result": run.call(case)}
    names = list(OPERATIONS[case.operation].differentiable)
    slopes = _gradients(run, case, names, run.upstream(case, seed=0))
    return found | {f"gradient in {name}": gradient for name, gradient in slopes.items()}


def _with_own_horizon(case: Case) -> Case:
    """Give a horizon where the default, the padded width, would count padding; or another mode."""
    if case.options.get("aggregation", case.options.get("mode")) != "seq-mean-token-sum-norm":
        return case
    if "horizon" not in case.options:
        return case.with_options(aggregation="token-mean")
    return case.with_options(horizon=7) if case.options["horizon"] is None else case


def _reversed(x: Any) -> Any:
    """An argument read backwards along its rows; masks and what is left out stay."""
    return x if x is None or x.dtype == bool else x[::-1].copy()


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


def _cut(case: Case, got: np.ndarray, left: int, right: int) -> np.ndarray:
    """Take appended columns away again."""
    of_tokens = OPERATIONS[case.operation].of_tokens and got.ndim == 2
    return got[:, left : got.shape[1] - right] if of_tokens else got


def _padded(case: Case, left: int, right: int) -> dict[str, Any]:
    """Append masked columns to the arrays of tokens: ones, False in a mask, 0 in what is counted from 0."""
    found = {a.name: case.arguments[a.name] for a in OPERATIONS[case.operation].arguments if "T" in a.shape}
    return {
        name: x
        if x is None
        else np.pad(x, ((0, 0), (left, right)), constant_values=x.dtype.type(x.dtype == np.float64))
        for name, x in found.items()
    }


def _conforms_and_differentiates_there(
    run: Run,
    changed: Callable[[Case], Case] = lambda case: case,
    with_slopes: Callable[[Case], Case] = lambda case: case,
) -> Callable[[Case], None]:
    """As `conforms_there`, gradients included, where the backend offers them and ordinary ones are right."""
    plain = ordinary(run.operation, run.dtype, run.backend.limits(run.operation))
    differentiable = bool(_right_gradients(run, plain, run.upstream(plain)))

    def check(case: Case) -> None:
        case = changed(case)
        run.conforms_there(case)
        if differentiable:
            run.differentiates(with_slopes(case))

    return check


def _right_gradients(run: Run, case: Case, upstream: np.ndarray) -> dict[str, Permitted]:
    """The permitted gradients of a call, of the arguments where the backend's are right by themselves."""
    got = _gradients(run, case, list(OPERATIONS[case.operation].differentiable), upstream)
    allowed = permitted_gradients(case, upstream) if got else {}
    return {
        name: slopes
        for name, slopes in allowed.items()
        if not any(slopes.distance(i, float(got[name][i])) > 1.0 for i in judged(case, got[name]))
    }


def _base_gradients(run: Run, case: Case, upstream: np.ndarray) -> dict[str, Permitted]:
    """As `_right_gradients`, of one at least: Limited where the backend offers none, else Unclear."""
    if slopes := _right_gradients(run, case, upstream):
        return slopes
    run.gradients(case, list(OPERATIONS[case.operation].differentiable), upstream)
    raise Unclear


def _gradients(run: Run, case: Case, names: list[str], upstream: np.ndarray) -> dict[str, np.ndarray]:
    """The backend's gradients; none where it offers none."""
    with contextlib.suppress(Limited):
        return run.gradients(case, names, upstream) if names else {}
    return {}


def _another_order(rows: int) -> np.ndarray:
    """An order of the rows that leaves none of three or more, nor of two, where it is."""
    return np.roll(np.arange(rows), 1)


def _apart(case: Case, allowed: Permitted, other: Permitted, got: np.ndarray) -> bool:
    """Whether two permitted sets are disjoint at some specified element."""
    return any(allowed.excludes(other, i) for i in judged(case, got))


def _same_bits(x: float, y: float) -> bool:
    return bool(x == y or (x != x and y != y))
