"""The clauses of the chapter `contract` on sizes: lengths of one, lengths that are equal, large ones."""

import numpy as np

from conformance.cases import SHAPE_REGIONS, Case
from conformance.marks import clauses, operations
from conformance.operations import OPERATIONS
from conformance.relations import (
    BATCHED,
    IN_ORDER,
    conforms_and_differentiates_there,
    gradients,
    having,
    right_gradients,
    with_each_value,
)
from conformance.reproduction import Call
from conformance.run import Run

MANY = 1287
"""More tokens, or rows, than a block has, and no multiple of one."""
LONGER = {"T": 4099, "N": 4099}
"""More than four such blocks, and than float16 counts one by one."""
BLOCKS = ({"B": 2, "T": 384, "N": 1024}, {"B": 48, "T": 3})
"""Several rows that are long, many that are not one token, and whole blocks without a rest."""
VOCABULARY = 2**16 + 3
"""More logits than 16 bits count."""
FEW = {"B": 1, "T": 1, "N": 1, "V": 2}
"""The other lengths there."""
MANY_PARAMETERS = 260
"""More than a block has, and than 8 bits count."""
A_BLOCK = 256
"""As many logits, or parameters, as a block has."""
GAPS = ((0, 256), (512, 768), (1152, MANY))
"""Where nothing is active, in long rows and among many: whole blocks, also the first and the last."""


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
    check = conforms_and_differentiates_there(run)
    vocabulary = [{"V": MANY}, {"V": A_BLOCK}] if "V" in lengths else []
    for sizes in ({"T": MANY}, {"B": MANY, "N": MANY}):
        plain = run.ordinary(**{**FEW, **sizes})
        brief = run.profile == "quick" or run.operation in IN_ORDER
        others = () if brief else with_each_value(run, _truncated(plain))
        run.at(check, plain, *map(_in_blocks, others))
    long = [{"S": MANY_PARAMETERS, "B": 4, "T": 3}] if "S" in lengths else [LONGER, *BLOCKS]
    run.at(check, *(_truncated(run.ordinary(**{**FEW, **sizes})) for sizes in (*long, *vocabulary, {})))


@clauses("contract.shapes")
@operations(*having("BTV"))
def test_more_logits_than_16_bits_count(run: Run) -> None:
    """Logits of −∞ between others change nothing, however many they are; nor do they in gradients."""

    def check(case: Case) -> None:
        places = np.array([MANY, 2 * MANY, 2**15, VOCABULARY - 1])
        allowed, upstream = run.permitted_base(case), run.upstream(case)
        slopes = right_gradients(run, case, upstream)
        logits = {a.name for a in OPERATIONS[case.operation].arguments if a.domain == "logit"}
        spread = {name: _spread(case.arguments[name], places) for name in logits}
        if "tokens" in case.arguments:
            spread["tokens"] = places[case.arguments["tokens"]]
        wide = case.with_arguments(**spread)
        note = f"the other {VOCABULARY - len(places)} logits are −∞; without them it is right"
        run.judge(case, run.call(wide), allowed, note=note, made=Call(wide))
        for name, got in gradients(run, wide, list(slopes), upstream).items():
            there = Call(wide, name, upstream, read=f"{{answer}}[..., {places.tolist()}]")
            run.judge(case, got[..., places], slopes[name], name, upstream, note, there)
            elsewhere = np.delete(got, places, axis=-1)
            told = f"gradient in {name}: {elsewhere.any(axis=-1).sum()} rows have some where logits are −∞"
            run.seen(Call(wide, name, upstream), not elsewhere.any(), told)

    run.at(check, run.ordinary(B=1, T=2, V=4))


@clauses("contract.shapes")
@operations(*having("DD"))
def test_many_parameters(run: Run) -> None:
    """A diagonal matrix with many parameters, and few steps: none is left out."""
    cases = [run.ordinary(D=2)]
    for count in (MANY_PARAMETERS, A_BLOCK):
        cases.append(run.ordinary(D=count).with_arguments(matrix=np.diag(1.0 + np.arange(count) % 5)))
    names = [name for name in ("max_iters", "cg_iters") if name in cases[0].options]
    steps = zip((1, 2, 2), cases, strict=True)
    run.at(run.conforms, *(case.with_options(**dict.fromkeys(names, count)) for count, case in steps))


def _truncated(case: Case) -> Case:
    """The call with rows that are cut off where they end, of some value there, or none."""
    if "bootstrap_value" not in case.arguments:
        return case
    return case.with_arguments(
        bootstrap_value=np.resize([1.5, -0.5, 0.0], case.arguments["bootstrap_value"].shape)
    )


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
