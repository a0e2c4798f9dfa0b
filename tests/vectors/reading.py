"""Read vectors back into cases and intervals, on nothing but what the page on vectors says."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conformance.cases import Case

NUMPY = {"float": np.float64, "bool": np.bool_, "int": np.int64}


@dataclass(frozen=True)
class Interval:
    """What is permitted at one position of a result, or of the gradient in an argument."""

    what: str
    index: tuple[int, ...]
    low: float
    high: float


@dataclass(frozen=True)
class Vector:
    """A case of a file, and its intervals: those that are decided, and how many are not."""

    case: Case
    clauses: list[str]
    upstream: np.ndarray | None
    decided: list[Interval]
    undecided: int


def read(path: Path) -> Iterator[Vector]:
    """The cases of a file."""
    file = json.loads(path.read_text(encoding="utf-8"))
    for given in file["cases"]:
        arguments = {name: array(x) for name, x in given["arguments"].items()}
        options = {name: _option(x) for name, x in given["options"].items()}
        case = Case(file["operation"], arguments, options, file["dtype"], given["region"])
        permitted = {"result": given["result"]} if "result" in given else {}
        permitted |= given.get("gradients", {})
        found = [_intervals(what, one) for what, one in permitted.items()]
        decided = [interval for one in found for interval in one if interval is not None]
        upstream = array(given["upstream"]) if "upstream" in given else None
        yield Vector(case, given["clauses"], upstream, decided, sum(map(len, found)) - len(decided))


def array(x: dict[str, Any]) -> Any:
    """An argument, None if it is left out."""
    if x["type"] == "none":
        return None
    decoders: dict[str, Callable[[Any], Any]] = {"float": _number, "bool": bool, "int": int}
    decode = decoders[x["type"]]
    return np.array([decode(value) for value in x["data"]], dtype=NUMPY[x["type"]]).reshape(x["shape"])


def _intervals(what: str, permitted: dict[str, Any]) -> list[Interval | None]:
    ends = zip(permitted["positions"], permitted["low"], permitted["high"], strict=True)
    indices = list(np.ndindex(*permitted["shape"]))
    return [
        None if low is None else Interval(what, indices[k], _number(low), _number(high))
        for k, low, high in ends
    ]


def _option(x: dict[str, Any]) -> Any:
    return _number(x["value"]) if x["type"] == "float" else x.get("value")


def _number(text: str) -> float:
    return float.fromhex(text) if "x" in text else float(text)
