"""What the answers of any operation show beside its formula: what masked positions do, what is constant."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from conformance.asking import Answer, Call, ask
from conformance.backend import Backend, BadCall, Limited
from conformance.operations import OPERATIONS
from conformance.oracle import judged
from reference.numbers.formats import FORMATS

GARBAGE = 7.0
"""A number that no observation holds."""


@dataclass(frozen=True)
class Trait:
    """One thing that was seen, and the clause that speaks of it."""

    text: str
    clause: str


def traits(backend: Backend, asked: list[Call]) -> list[Trait]:
    """Tell what shows in a plain call of an operation, and in the same call with other masked numbers."""
    plain = [call for call in asked if call.observation.main and not call.upstream]
    masked = [call for call in plain if _is_partial(call.case.arguments.get("mask"))]
    found = [trait for call in masked[:1] for trait in _masked(backend, call)]
    if OPERATIONS[plain[0].case.operation].constant:
        found += _constant(backend, plain[0])
    return found


def _masked(backend: Backend, call: Call) -> Iterator[Trait]:
    answer = ask(backend, call)
    if not isinstance(answer, Answer):
        return
    same, finite = (_unmoved(backend, answer, number) for number in (GARBAGE, np.nan))
    if same is False:
        yield Trait("numbers at masked positions change the answers", "contract.masked-garbage")
    elif finite is False:
        yield Trait("a NaN at a masked position spreads", "contract.masked-nonfinite")
    elif same and finite:
        yield Trait("numbers at masked positions do not matter, NaN included", "contract.masked-nonfinite")
    mask = call.case.arguments["mask"]
    if OPERATIONS[call.case.operation].result == ("B", "T"):
        zero = not answer.got[~mask].any()
        yield Trait(
            "0 at masked positions" if zero else "numbers other than 0 at masked positions",
            "contract.masked-garbage",
        )


def _unmoved(backend: Backend, answer: Answer, number: float) -> bool | None:
    """Whether the judged answers are the same with a number at all masked positions; None if refused."""
    case, mask = answer.call.case, answer.call.case.arguments["mask"]
    of_tokens = [a.name for a in OPERATIONS[case.operation].arguments if a.shape == ("B", "T")]
    filled = {
        name: np.where(mask, x, number)
        for name, x in case.arguments.items()
        if name in of_tokens and x is not None and x.dtype == np.float64
    }
    other = ask(backend, replace(answer.call, case=case.with_arguments(**filled)))
    if not isinstance(other, Answer):
        return None
    return all(other.got[place] == answer.got[place] for place in judged(case, answer.got))


def _constant(backend: Backend, call: Call) -> Iterator[Trait]:
    """Whether a gradient flows through what should be a constant."""
    operation = OPERATIONS[call.case.operation]
    shape = operation.result_shape(call.case.arguments)
    upstream = FORMATS[call.case.dtype].round(np.random.default_rng(0).standard_normal(shape))
    names = [argument.name for argument in operation.arguments if argument.kind == "real"]
    case = call.asked
    try:
        slopes = backend.gradients(case.operation, case.arguments, case.options, case.dtype, names, upstream)
        found = slopes.gradients
    except (Limited, BadCall):
        return
    flows = any(np.asarray(gradient).any() for gradient in found.values())
    yield Trait(
        "a gradient flows through" if flows else "a constant: no gradient flows through", "contract.constants"
    )


def _is_partial(mask: np.ndarray | None) -> bool:
    """Whether some positions are masked and others are not."""
    return mask is not None and bool(mask.any()) and not mask.all()
