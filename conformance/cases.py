"""One input of an operation, and how it is drawn: tables of bytes, dense numbers, regions.

Hypothesis draws bytes; a table ordered from simple to nasty turns each into a number, so that shrinking
walks towards a small batch of zeros and ones. Which region an input comes from is never left to luck:
each test names its regions, and each region has a recipe here that produces it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import hypothesis.strategies as st
import numpy as np

from conformance.draws import ByHypothesis, Draw
from conformance.operations import OPERATIONS
from conformance.protocol import REQUIRED, Argument, Operation
from conformance.values import (
    IN_PAIRS,
    consistent,
    least,
    log_ratios,
    numbers_of,
    option_values,
    ordinary_value,
)
from reference.numbers.formats import FORMATS, Format

ROWS, TOKENS, GENERIC_TOKENS = (1, 2, 3, 5), (1, 2, 3, 4, 5, 7, 24), (1, 3, 7, 12, 64)
"""Lengths that are drawn: few, because a backend may compile anew for each shape."""

MAX_ROWS, MAX_TOKENS = ROWS[-1], TOKENS[-1]

FEW_POSITIONS = 5
"""Tokens of a row of logits, at most: positions do not depend on each other."""

VOCABULARY, DIMENSIONS = (2, 1, 3, 5), (2, 1, 3, 5)
"""Sizes of the vocabulary and of parameter vectors."""

EVEN_ROWS, STATES, ACTIONS = (2, 4), (2, 1, 3), (2, 3, 1)
"""Rows that may be read in pairs, and sizes of a table."""

Limits = Mapping[str, tuple[Any, ...]]
"""The values that a backend takes of the options which it cannot vary freely; None of arguments it lacks."""


@dataclass(frozen=True)
class Case:
    """One call: float64 arrays that the dtype represents exactly, masks, options, and where it comes from."""

    operation: str
    arguments: dict[str, Any]
    """NumPy arrays by name, in the protocol's order; None for an optional one that is left out."""
    options: dict[str, Any]
    dtype: str
    region: str
    exact: bool = False
    """True when the values are such that some answers may have to be exact."""

    def with_arguments(self, **arguments: Any) -> "Case":
        """The same call with some arguments replaced."""
        return replace(self, arguments={**self.arguments, **arguments})

    def with_options(self, **options: Any) -> "Case":
        """The same call with some options replaced."""
        return replace(self, options={**self.options, **options})

    def with_defaults(self) -> "Case":
        """The same call with the options that it leaves out at their defaults."""
        defaults = {k: x for k, x in OPERATIONS[self.operation].options.items() if x is not REQUIRED}
        return replace(self, options={**defaults, **self.options})


REGIONS: dict[str, str] = {
    "exact": "small dyadic numbers, γ and λ in {0, 1/2, 1}, any mask",
    "generic": "dense normal numbers of one scale and offset, right-padded rows",
    "adversarial": "numbers from the nasty table, any mask",
    "holes": "every row has an active token behind a masked one, if it is long enough",
    "empty-rows": "some rows without any active token, one row with",
    "nothing-active": "no active token in the batch",
    "one-active": "one active token in the batch",
    "one-token": "T = 1",
    "one-row": "B = 1",
    "square": "B = T > 1, each row one active token longer than the one before",
    "terminated": "bootstrap value 0, rows of different length",
    "truncated": "bootstrap value not 0, rows of different length",
    "offset": "whole numbers close to each other and far from 0: their squares lose what tells them apart",
    "close": "numbers around 1 that differ by a few roundings, not many of them",
    "extremes": "log-ratios and log-weights up to ±800, logits of ±10⁴ and -∞ (one is finite), any mask",
}

VALUE_REGIONS = ("exact", "generic", "adversarial")
MASK_REGIONS = ("holes", "empty-rows", "nothing-active", "one-active")
SHAPE_REGIONS = ("one-token", "one-row", "square")


ORDINARY_SIZES = {"B": 3, "T": 5, "V": 4, "N": 4, "D": 3, "S": 3, "A": 3, "A+1": 4}
PAIRS = {"train_step": {"B": 4, "T": 3}}
"""The operations that may read rows in pairs, and other sizes of theirs."""


def ordinary(
    operation: str, dtype: str, limits: Limits, seed: int = 0, sizes: Mapping[str, int] | None = None
) -> Case:
    """A plain call: dense normal numbers, nothing masked, terminated rows, one value of each option."""
    rng, form = np.random.default_rng(seed), FORMATS[dtype]
    arguments: dict[str, Any] = {}
    lengths = {**ORDINARY_SIZES, **PAIRS.get(operation, {}), **(sizes or {})}
    lengths["B"] += lengths["B"] % 2 if operation in PAIRS else 0
    for argument in OPERATIONS[operation].arguments:
        shape = tuple(lengths[letter] for letter in argument.shape)
        numbers = _dense(argument, shape, form, rng, arguments)
        arguments[argument.name] = None if argument.name in limits else numbers
    if "bootstrap_value" in arguments:
        arguments["bootstrap_value"] = np.zeros_like(arguments["bootstrap_value"])
    options = {
        name: limits.get(name, (ordinary_value(operation, name),))[0]
        for name in OPERATIONS[operation].options
    }
    return Case(operation, arguments, options, dtype, "ordinary")


def _dense(
    argument: Argument,
    shape: tuple[int, ...],
    form: Format,
    rng: np.random.Generator,
    others: dict[str, Any],
    scale: float = 1.0,
    offset: float = 0.0,
) -> Any:
    """Dense numbers of an argument's domain, all of one scale."""
    match argument.kind:
        case "mask":
            return np.ones(shape, dtype=bool)
        case "ids":
            return rng.integers(0, 2, shape)
        case "tokens" | "states":
            return rng.integers(0, _count(argument, others), shape)
        case "matrix":
            factor = rng.integers(-2, 3, shape)
            return np.asarray(factor @ factor.T + np.eye(len(factor)), dtype=np.float64)
    numbers = rng.standard_normal(shape)
    if argument.beside:
        return form.round(others[argument.beside] - 0.3 * scale * numbers)
    return form.round(_in_domain(argument.domain, numbers, form, scale, offset))


def _in_domain(domain: str, numbers: np.ndarray, form: Format, scale: float, offset: float) -> np.ndarray:
    """Normal numbers as a domain has them."""
    moved, lengths = offset + scale * numbers, np.abs(numbers)
    found: dict[str, np.ndarray] = {
        "value": moved,
        "direction": np.copysign(np.maximum(np.abs(moved), least(form)), moved),
        "logprob": -lengths,
        "weight": np.maximum(lengths, least(form)),
        "table": numbers,
    }
    return found.get(domain, scale * numbers)


def _count(argument: Argument, others: dict[str, Any]) -> int:
    """How many tokens, or states, there are to choose from."""
    lengths: tuple[int, ...] = others[argument.beside].shape
    return lengths[-1] if argument.kind == "tokens" else lengths[0]


@st.composite
def cases(
    draw: st.DrawFn,
    operation: str,
    region: str,
    dtype: str,
    limits: Limits | None = None,
    fixed: dict[str, Any] | None = None,
    max_tokens: int = MAX_TOKENS,
) -> Case:
    """Draw one call of an operation from a region, within what the backend can be called with."""
    return draw_case(ByHypothesis(draw), operation, region, dtype, limits, fixed, max_tokens)


def draw_case(
    draw: Draw,
    operation: str,
    region: str,
    dtype: str,
    limits: Limits | None = None,
    fixed: dict[str, Any] | None = None,
    max_tokens: int = MAX_TOKENS,
) -> Case:
    """The call that a source of choices makes of a region."""
    op, form = OPERATIONS[operation], FORMATS[dtype]
    costly = any({"V", "S"}.intersection(argument.shape) for argument in op.arguments)
    tokens = min(max_tokens, FEW_POSITIONS if costly else max_tokens)
    sizes = _sizes(draw, operation, region, tokens, limits or {})
    arguments: dict[str, Any] = {}
    for argument in op.arguments:
        shape = tuple(sizes[letter] for letter in argument.shape)
        drawn = _argument(draw, argument, region, form, shape, arguments)
        arguments[argument.name] = None if argument.name in (limits or {}) else drawn
    if "bootstrap_value" in arguments:
        arguments["bootstrap_value"] = _bootstrap(draw, region, arguments["bootstrap_value"])
    options = _options(draw, op, region == "exact", limits or {}, fixed or {}, arguments)
    return Case(operation, arguments, options, dtype, region, exact=region == "exact")


def _sizes(draw: Draw, operation: str, region: str, max_tokens: int, limits: Limits) -> dict[str, int]:
    """A length for each letter; N shares B's, because no operation has both."""
    counts = EVEN_ROWS if operation in PAIRS else ROWS
    single = 1 if any(x not in IN_PAIRS for x in limits.get("algorithm", ("",))) else counts[0]
    rows, tokens = _shape(draw, (single,) if region == "one-row" else counts, region, max_tokens)
    sizes = {
        "B": rows,
        "N": rows,
        "T": tokens,
        "V": draw.one_of(*VOCABULARY),
        "D": draw.one_of(*DIMENSIONS),
    }
    if operation in PAIRS:
        actions = draw.one_of(*ACTIONS)
        sizes |= {"S": draw.one_of(*STATES), "A": actions, "A+1": actions + 1}
    return sizes


def _argument(
    draw: Draw,
    argument: Argument,
    region: str,
    form: Format,
    shape: tuple[int, ...],
    others: dict[str, Any],
) -> Any:
    """Draw one argument; those drawn before it are there to stand beside."""
    if argument.kind == "mask":
        return _mask(draw, region, *shape)
    if argument.kind == "optional" and draw.one_of(True, False):
        return None
    if argument.kind in ("ids", "tokens", "states") and region != "generic":
        count = 3 if argument.kind == "ids" else _count(argument, others)
        return np.asarray(_bytes(draw, shape) % count, dtype=np.int64)
    if region == "generic" or argument.kind == "matrix":
        rng = np.random.default_rng(draw.between(0, 2**32 - 1))
        scale, offset = draw.one_of(1.0, 0.01, 3.0), draw.one_of(0.0, 2.0)
        return _dense(argument, shape, form, rng, others, scale, offset)
    if argument.beside:
        table = np.array(log_ratios(form, region == "exact", region == "extremes"))
        return form.round(others[argument.beside] - table[_bytes(draw, shape) % len(table)])
    if region == "offset":
        return 2.0 ** (form.precision // 2) + np.asarray(_bytes(draw, shape) % 4, dtype=np.float64)
    if region == "close":
        return 1.0 + 2.0 ** (6 - form.precision) * (_bytes(draw, shape) % 3)
    largest = max(form.largest**0.5 / (MAX_ROWS * MAX_TOKENS), 1.0)
    table = np.array(numbers_of(argument.domain, form, region == "exact", largest, region == "extremes"))
    numbers = np.asarray(table[_bytes(draw, shape) % len(table)])
    if argument.domain == "logit":
        numbers[..., -1] = np.where(np.isneginf(numbers).all(axis=-1), 0.0, numbers[..., -1])
    return numbers


def _shape(draw: Draw, counts: tuple[int, ...], region: str, max_tokens: int) -> tuple[int, int]:
    fewest = 2 if region in ("empty-rows", "square") else 1
    rows = counts[0] if region == "one-row" else _length(draw, counts, fewest, counts[-1])
    if region == "square":
        return rows, rows
    if region == "close":
        return rows, draw.one_of(1, 2, 3)
    if region == "one-token":
        return rows, 1
    lengths = GENERIC_TOKENS if region == "generic" and max_tokens == MAX_TOKENS else TOKENS
    longest = max_tokens if lengths is TOKENS else lengths[-1]
    return rows, _length(draw, lengths, 3 if region == "holes" else 1, longest)


def _length(draw: Draw, lengths: tuple[int, ...], low: int, high: int) -> int:
    return int(draw.one_of(*(n for n in lengths if low <= n <= high)))


def _mask(draw: Draw, region: str, rows: int, tokens: int) -> np.ndarray:
    """A mask of the region; in bytes, mostly True, with 0 (the simplest) True."""
    match region:
        case "nothing-active":
            return np.zeros((rows, tokens), dtype=bool)
        case "one-active":
            chosen = draw.between(0, rows * tokens - 1)
            return np.asarray(np.arange(rows * tokens).reshape(rows, tokens) == chosen)
        case "square":
            return np.tri(rows, tokens, dtype=bool)
        case "generic" | "terminated" | "truncated":
            return np.asarray(np.arange(tokens) < 1 + _bytes(draw, (rows,))[:, None] % tokens)
    drawn = _bytes(draw, (rows, tokens))
    mask = drawn < 160
    if region == "holes":
        mask[:, 0], mask[:, 1], mask[:, -1] = True, False, True
    elif region == "empty-rows":
        full = draw.between(0, rows - 1)
        mask &= drawn[:, :1] % 2 == 1
        mask[full], mask[full - 1] = True, False
    elif draw.one_of(True, False):
        mask[:] = True
    return mask


def _bootstrap(draw: Draw, region: str, drawn: np.ndarray) -> np.ndarray:
    if region == "terminated" or (region != "truncated" and draw.one_of(True, False)):
        return np.zeros_like(drawn)
    return np.where(drawn == 0.0, 1.0, drawn) if region == "truncated" else drawn


def _options(
    draw: Draw,
    operation: Operation,
    exact: bool,
    limits: Limits,
    fixed: dict[str, Any],
    arguments: dict[str, Any],
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name in operation.options:
        values = option_values(operation.name, name, exact)
        allowed = limits.get(name, values)
        accepted = tuple(v for v in values if v in allowed) or tuple(allowed)
        options[name] = fixed[name] if name in fixed else draw.one_of(*accepted)
    return consistent(operation.name, options, arguments)


def _bytes(draw: Draw, shape: tuple[int, ...]) -> np.ndarray:
    """Bytes of a shape, cut from a draw whose size does not depend on it, so that shapes shrink alone."""
    largest = (MAX_ROWS, FEW_POSITIONS, VOCABULARY[-1]) if len(shape) == 3 else (MAX_ROWS, MAX_TOKENS)
    whole = largest[: len(shape)]
    raw = draw.octets(int(np.prod(whole)))
    # Shrinking moves large bytes to the end: read backwards, they come first, and the shape can shrink.
    return np.frombuffer(raw, dtype=np.uint8)[::-1].reshape(whole)[tuple(map(slice, shape))]
