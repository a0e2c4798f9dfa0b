"""Small calls of every operation, read off bytes: shapes, masks, numbers from the suite's tables, options.

Each byte picks a number from a table of 256: what the suite finds nasty, small dyadic numbers, so that two
are often equal, and dense ones. Under a mask lies anything.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import hypothesis.strategies as st
import numpy as np

from conformance.cases import Case
from conformance.operations import OPERATIONS
from conformance.protocol import Argument, Operation
from conformance.values import EXACT, consistent, log_ratios, numbers_of, option_values
from reference.numbers.formats import FORMATS

FLOAT64 = FORMATS["float64"]
LONGEST = {"B": 3, "T": 4, "V": 4, "N": 4, "D": 3}
"""The longest that each dimension gets; of positions with a vocabulary there are fewer."""

OF_TABLES = {"B": 4, "T": 2, "S": 2, "A": 3, "A+1": 4}
"""The longest where a table is trained: rows may be read in pairs."""

LARGEST, LARGEST_LOGARITHM = 1e4, 300.0
"""Past the second, exponentials overflow float64, and what floats give is no longer the formula's."""

GARBAGE = (np.nan, np.inf, -np.inf, 1e4)
EXTRA_CHOICES = 3
"""What lies under the mask, whether an optional argument is there, whether floats are looked at."""

IDS = np.array([0, 1, 2, -5, 10**12])
_DENSE = np.random.default_rng(0).normal(size=96)

_POSITIVE = tuple(np.abs(_DENSE[:48]).tolist())
_TOLERANCES = (1e-9, 0.5, 1.0, 2.0, 1e-3)
MORE: dict[str, tuple[Any, ...]] = {
    "whiten.ddof": (2,),
    "whiten.eps": (0.0,),
    "group_advantages.eps": (0.0,),
    "coef": _POSITIVE,
    "kl": (-1.0, *_DENSE[:48].tolist()),
    "target": _POSITIVE,
    "proportional_kl_coef.horizon": _POSITIVE,
    "n_steps": (0.0, *_POSITIVE),
    "lam": tuple(1 / (1 + x) for x in _POSITIVE),
    "dual_clip": (1.125,),
    "horizon": (2.5,),
    "label_smoothing": (1.0,),
    "backtrack": (0.75, 0.3),
    "log_ratio_clip": (1.0, 300.0),
    "value_clip": (1.0,),
    "cap": (5.0, 1e-3),
    "margin": (100.0,),
    "beta": (0.01, 8.0),
    "clip": (1e5,),
    "clip_low": (1.0,),
    "clip_high": (2.0,),
    "train_step.lam": (),
    "train_step.max_kl": (),
}
"""Values of options beside the suite's."""

INSTEAD: dict[str, tuple[Any, ...]] = {"tol": _TOLERANCES, "cg_tol": _TOLERANCES}
"""Values in their place: with a tolerance of 0, no ball decides that a residual has become 0."""


@dataclass(frozen=True)
class Call:
    """One call of an operation, and an upstream gradient of its result."""

    case: Case
    upstream: np.ndarray
    in_floats: bool
    """Whether what floats give is looked at as well: on a quarter of the calls."""


@dataclass
class Tape:
    """Bytes that are read from front to back."""

    raw: np.ndarray
    place: int = 0

    def take(self, *shape: int) -> np.ndarray:
        """The next bytes, in this shape."""
        start, self.place = self.place, self.place + int(np.prod(shape))
        return self.raw[start : self.place].reshape(shape)

    def choose(self, values: Any) -> Any:
        """One of some values."""
        return values[self.take(1)[0] % len(values)]


def calls(operation: str) -> st.SearchStrategy[Call]:
    """Draw calls of an operation, from as many bytes as its longest call takes."""
    op = OPERATIONS[operation]
    arrays = [argument.shape for argument in op.arguments] + [op.result]
    longest = LONGEST | OF_TABLES if _of_tables(op) else LONGEST
    numbers = sum(int(np.prod([longest.get(letter, 1) for letter in shape])) for shape in arrays)
    size = len(longest) + numbers + len(op.keys) + len(op.options) + EXTRA_CHOICES
    return st.binary(min_size=size, max_size=size).map(lambda raw: _call(operation, raw))


def values_of(operation: str, option: str) -> tuple[Any, ...]:
    """The values that an option takes here."""
    if option in INSTEAD:
        return INSTEAD[option]
    ours = MORE.get(f"{operation}.{option}", MORE.get(option, ()))
    every = (*option_values(operation, option, exact=True), *option_values(operation, option), *ours)
    return tuple({(type(x), x): x for x in every}.values())


def _call(operation: str, raw: bytes) -> Call:
    op, tape = OPERATIONS[operation], Tape(np.frombuffer(raw, dtype=np.uint8))
    fewer = {"B": 2, "T": 2} if any("V" in argument.shape for argument in op.arguments) else {}
    longest = LONGEST | (OF_TABLES if _of_tables(op) else fewer)
    sizes = {letter: 1 + int(tape.take(1)[0]) % most for letter, most in longest.items()}
    sizes |= {"A+1": sizes["A"] + 1} if _of_tables(op) else {}
    arguments: dict[str, Any] = {}
    for argument in op.arguments:
        shape = tuple(sizes[letter] for letter in argument.shape)
        arguments[argument.name] = _argument(tape, argument, shape, arguments)
    options = {name: tape.choose(values_of(operation, name)) for name in op.options}
    if operation == "whiten" and len(set(arguments["x"][arguments["mask"]])) < 2:
        options["eps"] = options["eps"] or 1.0  # what is assumed of equal values
    arguments = _with_garbage(op, arguments, tape.choose(GARBAGE))
    options = consistent(operation, options, arguments)
    case = Case(operation, arguments, options, "float64", "second definition")
    upstream = _numbers("value")[tape.take(*op.result_shape(arguments))]
    return Call(case, upstream, in_floats=tape.choose((True, False, False, False)))


def _of_tables(operation: Operation) -> bool:
    """Whether a table is trained."""
    return "A+1" in operation.result


def _argument(tape: Tape, argument: Argument, shape: tuple[int, ...], others: dict[str, Any]) -> Any:
    match argument.kind:
        case "mask":
            return tape.take(*shape) >= 64
        case "ids":
            return IDS[tape.take(*shape) % len(IDS)]
        case "states":
            return np.asarray(tape.take(*shape) % len(others[argument.beside]), dtype=np.int64)
        case "tokens" if others[argument.beside].ndim == 2:
            return np.asarray(tape.take(*shape) % others[argument.beside].shape[-1], dtype=np.int64)
        case "tokens":
            logits = others[argument.beside]
            tokens = np.asarray(tape.take(*shape) % logits.shape[-1], dtype=np.int64)
            possible = np.take_along_axis(logits, tokens[..., None], axis=-1) > -np.inf
            return np.where(possible[..., 0], tokens, 0)
        case "matrix":
            factor = (tape.take(*shape) % 17 - 8.0) / 4
            return factor @ factor.T + np.eye(len(factor))
    if argument.kind == "optional" and tape.choose((True, False)):
        return None
    if argument.shape == ("D",):
        return (tape.take(*shape) % 17 - 8.0) / 4
    if argument.beside:
        return others[argument.beside] - _log_ratios()[tape.take(*shape)]
    numbers = _numbers(argument.domain)[tape.take(*shape)]
    return _somewhere_finite(numbers) if argument.domain in ("logit", "log-weight") else numbers


def _somewhere_finite(numbers: np.ndarray) -> np.ndarray:
    """One finite number in each distribution, and all of the first one's: it has a gradient."""
    numbers[..., 0] = np.where(np.isneginf(numbers[..., 0]), 0.0, numbers[..., 0])
    if numbers.ndim > 1:
        numbers[0, 0] = np.where(np.isneginf(numbers[0, 0]), 0.5, numbers[0, 0])
    return numbers


def _with_garbage(operation: Operation, arguments: dict[str, Any], garbage: float) -> dict[str, Any]:
    """The arguments with something else under the mask."""
    if "mask" not in arguments:
        return arguments
    mask, hidden = arguments["mask"], dict(arguments)
    for argument in operation.arguments:
        x = arguments[argument.name]
        if argument.kind in ("real", "optional") and argument.shape == ("B", "T") and x is not None:
            hidden[argument.name] = np.where(mask, x, garbage)
    return hidden


@cache
def _numbers(domain: str) -> np.ndarray:
    nasty = (*numbers_of(domain, FLOAT64, False, LARGEST, extreme=True), *EXACT[domain])
    if domain == "log-weight":
        nasty = (*filter(_has_exponential, nasty), -np.inf)
    dense = {"logprob": -np.abs(_DENSE), "weight": np.abs(_DENSE)}.get(domain, _DENSE)
    return np.concatenate([np.resize(nasty, 256 - len(dense)), dense])


@cache
def _log_ratios() -> np.ndarray:
    nasty = [x for x in log_ratios(FLOAT64, exact=False, extreme=True) if _has_exponential(x)]
    nasty += [0.0, 1.0, -1.0, 0.5, 2.0, -2.0]
    return np.concatenate([np.resize(nasty, 256 - len(_DENSE)), 0.3 * _DENSE])


def _has_exponential(x: float) -> bool:
    return abs(x) <= LARGEST_LOGARITHM
