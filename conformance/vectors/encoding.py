"""Cases as JSON: numbers as hexadecimal floats, permitted answers as intervals (docs/vectors.md)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from flint import arb

from conformance.callables import SOURCES
from conformance.cases import Case
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, judged
from conformance.vectors.recorder import Demand
from spec.registry import current


def described(operation: str) -> dict[str, Any]:
    """What a reader has to know of an operation before its cases."""
    known = OPERATIONS[operation]
    names = [argument.name for argument in known.arguments]
    return {
        "operation": operation,
        "call": list(SOURCES[operation][1]) if operation in SOURCES else names,
        "keys": list(known.keys),
        "differentiable": list(known.differentiable),
    }


def encoded(demand: Demand) -> dict[str, Any]:
    """One case: where it comes from, the call, and what is permitted."""
    case = demand.case
    found: dict[str, Any] = {
        "region": case.region,
        "clauses": [current().clauses[slug].citation.removeprefix("spec: ") for slug in demand.clauses],
        "arguments": {name: _array(x) for name, x in case.arguments.items()},
        "options": {name: _option(x) for name, x in case.options.items()},
    }
    if demand.result is not None:
        found["result"] = _permitted(case, demand.result)
    if demand.upstream is not None:
        found["upstream"] = _array(demand.upstream)
        found["gradients"] = {name: _permitted(case, allowed) for name, allowed in demand.gradients.items()}
    return found


def hexadecimal(x: float) -> str:
    """A float as C99 writes it, without trailing zeros, or one of nan, inf, -inf.

    Examples
    --------
    >>> [hexadecimal(x) for x in (0.0, -1.5, 0.1, math.inf)]
    ['0x0p+0', '-0x1.8p+0', '0x1.999999999999ap-4', 'inf']
    """
    if not math.isfinite(x):
        return str(x)
    digits, _, exponent = x.hex().partition("p")
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits}p{exponent}"


def interval(allowed: Permitted, index: tuple[int, ...]) -> tuple[float, float] | None:
    """Lowest and highest permitted answer, rounded outwards; None where nothing is decided.

    Where the interval reaches the dtype's largest number, an infinity is its end.
    """
    if allowed.exact[index] is not None:
        return allowed.bounds(index)
    ball: arb = allowed.balls[index].value
    if ball.is_finite():
        largest = allowed.format.largest
        return _below(ball.lower(), largest), 0.0 - _below(-ball.upper(), largest)
    for end in (math.inf, -math.inf):
        if allowed.distance(index, end) == 0.0 and allowed.distance(index, 0.0) > 1.0:
            return end, end
    return None


def _below(x: arb, largest: float) -> float:
    """The largest float64 that is no more than x."""
    if x > largest:
        return math.inf
    if x <= -largest:
        return -math.inf
    found = float(x)
    while arb(found) > x:
        found = math.nextafter(found, -math.inf)
    while arb(math.nextafter(found, math.inf)) <= x:
        found = math.nextafter(found, math.inf)
    return found


def _permitted(case: Case, allowed: Permitted) -> dict[str, Any]:
    positions = judged(case, allowed.balls)
    flat = np.arange(allowed.balls.size).reshape(allowed.balls.shape)
    intervals = [interval(allowed, index) for index in positions]
    ends: list[list[str | None]] = [
        [None if pair is None else hexadecimal(pair[k]) for pair in intervals] for k in (0, 1)
    ]
    return {
        "shape": list(allowed.balls.shape),
        "positions": [int(flat[index]) for index in positions],
        "low": ends[0],
        "high": ends[1],
    }


def _array(x: np.ndarray | None) -> dict[str, Any]:
    if x is None:
        return {"type": "none"}
    kind = {"f": "float", "b": "bool", "i": "int"}[x.dtype.kind]
    # Many a JSON reader rounds large integers.
    encoders: dict[str, Callable[[Any], Any]] = {"float": hexadecimal, "bool": bool, "int": str}
    return {
        "type": kind,
        "shape": list(x.shape),
        "data": [encoders[kind](value) for value in x.ravel().tolist()],
    }


def _option(x: Any) -> dict[str, Any]:
    kind = {"NoneType": "none", "str": "string"}.get(type(x).__name__, type(x).__name__)
    return (
        {"type": "none"} if x is None else {"type": kind, "value": hexadecimal(x) if kind == "float" else x}
    )
