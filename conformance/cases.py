"""One input of an operation, and how it is drawn: tables of bytes, dense numbers, regions.

Hypothesis draws bytes; a table ordered from simple to nasty turns each into a number, so that shrinking
walks towards a small batch of zeros and ones. Which region an input comes from is never left to luck:
each test names its regions, and each region has a recipe here that produces it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import hypothesis.strategies as st
import numpy as np

from conformance.protocol import OPERATIONS, Operation
from reference.numbers.formats import FORMATS, Format

MAX_ROWS, MAX_TOKENS = 8, 64

Limits = Mapping[str, tuple[Any, ...]]
"""The values that a backend takes of the options which it cannot vary freely."""


@dataclass(frozen=True)
class Case:
    """One call: float64 arrays that the dtype represents exactly, masks, options, and where it comes from."""

    operation: str
    arguments: dict[str, np.ndarray]
    options: dict[str, Any]
    dtype: str
    region: str
    exact: bool = False
    """True when the values are such that some answers may have to be exact."""

    def with_arguments(self, **arguments: np.ndarray) -> "Case":
        """The same call with some arguments replaced."""
        return replace(self, arguments={**self.arguments, **arguments})

    def with_options(self, **options: Any) -> "Case":
        """The same call with some options replaced."""
        return replace(self, options={**self.options, **options})


EXACT_VALUES = (0.0, 1.0, -1.0, 2.0, 0.5, -2.0, 3.0, -0.5, 4.0, 0.25, -3.0, -4.0, 8.0, 1.5, -0.25, -8.0)


def nasty_values(form: Format) -> tuple[float, ...]:
    """Values ordered from simple to nasty, each a number of the format; up to 10⁴, or what squares there."""
    ulp = 2 * form.unit_roundoff
    values = [0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 0.25, 3.0, -3.0, 0.1, -0.1, 1 / 3, -2 / 3, 0.9, 0.99]
    values += [1 + ulp, 1 - ulp / 2, -1 - ulp, 10.0, -10.0, 20.0, -20.0, 1e-3, -1e-3, 88.0, -88.0, 1e3, -1e3]
    values += [1e-6, -1e-6, 1e4, -1e4]
    bound = form.largest**0.5 / (MAX_ROWS * MAX_TOKENS)
    return tuple(float(form.round(v)) for v in values if abs(v) <= max(bound, 1.0))


OPTION_VALUES: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "gamma": ((1.0, 0.0, 0.5), (1.0, 0.99, 0.0, 0.5, 0.9, 0.997)),
    "lam": ((1.0, 0.0, 0.5), (0.95, 1.0, 0.0, 0.5, 0.9, 0.25)),
    "masked": (("skip", "zero"), ("skip", "zero")),
    "n": ((1, 2, 3), (1, 2, 3, 5, 17, MAX_TOKENS + 3)),
    "shift_mean": ((True, False), (True, False)),
    "ddof": ((1, 0), (1, 0)),
    "eps": ((1e-8, 1e-5), (1e-8, 1e-5, 1e-3, 1.0)),
}
"""Values of each option: those for exact inputs, and those for the others, simplest first."""

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
    "square": "B = T",
    "terminated": "bootstrap value 0, rows of different length",
    "truncated": "bootstrap value not 0, rows of different length",
}

VALUE_REGIONS = ("exact", "generic", "adversarial")
MASK_REGIONS = ("holes", "empty-rows", "nothing-active", "one-active")
SHAPE_REGIONS = ("one-token", "one-row", "square")


@st.composite
def cases(
    draw: st.DrawFn,
    operation: str,
    region: str,
    dtype: str,
    limits: Limits | None = None,
    fixed: dict[str, Any] | None = None,
) -> Case:
    """Draw one call of an operation from a region, within what the backend can be called with."""
    op, form = OPERATIONS[operation], FORMATS[dtype]
    rows, tokens = draw(_shape(region))
    numbers = _numbers(region, form)
    arguments: dict[str, np.ndarray] = {}
    for argument in op.arguments:
        shape = tuple({"B": rows, "T": tokens}[letter] for letter in argument.shape)
        if argument.kind == "mask":
            arguments[argument.name] = draw(_masks(region, shape))
        else:
            arguments[argument.name] = draw(numbers(shape))
    if "bootstrap_value" in arguments:
        arguments["bootstrap_value"] = draw(_bootstrap(region, arguments["bootstrap_value"]))
    options = draw(_options(op, region == "exact", limits or {}, fixed or {}))
    return Case(operation, arguments, options, dtype, region, exact=region == "exact")


def _shape(region: str) -> st.SearchStrategy[tuple[int, int]]:
    rows, tokens = st.integers(1, MAX_ROWS), st.integers(1, MAX_TOKENS)
    match region:
        case "one-token":
            return st.tuples(rows, st.just(1))
        case "one-row":
            return st.tuples(st.just(1), tokens)
        case "square":
            return rows.map(lambda n: (n, n))
        case "holes":
            return st.tuples(rows, st.integers(3, MAX_TOKENS))
        case "empty-rows":
            return st.tuples(st.integers(2, MAX_ROWS), tokens)
        case _:
            return st.tuples(rows, tokens)


def _numbers(region: str, form: Format) -> Callable[[tuple[int, ...]], st.SearchStrategy[np.ndarray]]:
    if region == "generic":
        return lambda shape: st.builds(
            lambda seed, scale, offset: form.round(
                offset + scale * np.random.default_rng(seed).standard_normal(shape)
            ),
            st.integers(0, 2**32 - 1),
            st.sampled_from((1.0, 0.01, 3.0)),
            st.sampled_from((0.0, 2.0)),
        )
    table = np.array(EXACT_VALUES if region == "exact" else nasty_values(form))
    return lambda shape: _bytes(shape).map(lambda b: table[b % len(table)])


def _masks(region: str, shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    rows, tokens = shape
    match region:
        case "nothing-active":
            return st.just(np.zeros(shape, dtype=bool))
        case "one-active":
            return st.integers(0, rows * tokens - 1).map(
                lambda k: (np.arange(rows * tokens) == k).reshape(shape)
            )
        case "generic" | "terminated" | "truncated":
            return st.lists(st.integers(1, tokens), min_size=rows, max_size=rows).map(
                lambda n: np.arange(tokens) < np.array(n)[:, None]
            )
        case "holes":
            return _bytes(shape).map(_with_holes)
        case "empty-rows":
            return st.tuples(_bytes(shape), st.integers(0, rows - 1)).map(lambda x: _with_empty_rows(*x))
        case _:
            return st.one_of(st.just(np.ones(shape, dtype=bool)), _bytes(shape).map(lambda b: b < 160))


def _with_holes(b: np.ndarray) -> np.ndarray:
    mask = b < 160
    mask[:, 0], mask[:, 1], mask[:, -1] = True, False, True
    return mask


def _with_empty_rows(b: np.ndarray, full: int) -> np.ndarray:
    mask = (b < 160) & (b[:, :1] % 2 == 1)
    mask[full], mask[full - 1] = True, False
    return mask


def _bootstrap(region: str, drawn: np.ndarray) -> st.SearchStrategy[np.ndarray]:
    zeros = np.zeros_like(drawn)
    match region:
        case "terminated":
            return st.just(zeros)
        case "truncated":
            return st.just(np.where(drawn == 0.0, 1.0, drawn))
        case _:
            return st.sampled_from((zeros, drawn))


def _options(
    operation: Operation, exact: bool, limits: Limits, fixed: dict[str, Any]
) -> st.SearchStrategy[dict[str, Any]]:
    choices = {}
    for name in operation.options:
        values = OPTION_VALUES[name][0 if exact else 1]
        allowed = limits.get(name, values)
        accepted = [v for v in values if v in allowed] or list(allowed)
        choices[name] = st.just(fixed[name]) if name in fixed else st.sampled_from(accepted)
    return st.fixed_dictionaries(choices)


def _bytes(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    size = int(np.prod(shape))
    return st.binary(min_size=size, max_size=size).map(
        lambda raw: np.frombuffer(raw, dtype=np.uint8).reshape(shape)
    )
