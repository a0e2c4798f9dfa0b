"""The command `rlspec identify`: what is known of a backend's conventions, as a table or as JSON."""

import argparse
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from conformance.backend import Backend, BadCall, OutOfService, Unusable
from conformance.identify import Identification, Miss, identify, missed
from conformance.loading import registered_names
from conformance.operations import OPERATIONS
from reference.numbers.formats import FORMATS
from spec.commands import fail, unknown

WIDTH = 110
BACKEND = "a FILE.py, a package.module, a package.module:Class, or a registered name"
_NAMED = re.compile(r".*\.py(:\w+)?|\w+(\.\w+)*(:\w+)?")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of a parser; it sets `run`, which takes the parsed arguments."""
    parser = commands.add_parser(
        "identify", help="tell from a backend's answers which conventions it follows"
    )
    parser.add_argument("backend", help=BACKEND)
    parser.add_argument("operation", nargs="*", help="the operations to look at (default: all it provides)")
    parser.add_argument("--device", default="cpu", help="where the backend's arrays live (default: cpu)")
    parser.add_argument("--dtype", choices=tuple(FORMATS), default="float32", help="default: float32")
    parser.add_argument(
        "--time-limit",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="longest time of one call (default: 60)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    parser.set_defaults(run=_run, rest="operation")


def table(found: list[Identification]) -> pd.DataFrame:
    """A row for each convention that is known, by operation."""
    rows = [
        {"operation": one.operation, "what it follows": text, "clause": clause}
        for one in found
        for text, clause in _told(one)
    ]
    frame = pd.DataFrame(rows, columns=["operation", "what it follows", "clause"])
    frame["operation"] = frame["operation"].where(~frame["operation"].duplicated(), "")
    return frame


def as_text(found: list[Identification], backend: Backend) -> str:
    """The table, and below it what no reading gives, and what was refused."""
    parts = [table(found).to_markdown(index=False, tablefmt="simple", disable_numparse=True)]
    parts += ["\n".join(_story(one, miss, backend)) for one in found for miss in one.misses]
    parts += [_wrapped(f"no answers from {one.operation}: {one.failure}") for one in found if one.failure]
    parts += ["\n".join(lines) for lines in [[*_refusals(found)]] if lines]
    return "\n\n".join(parts)


def as_json(found: list[Identification], backend: Backend, dtype: str) -> dict[str, Any]:
    """The same for machines."""
    return {
        "backend": backend.name,
        "device": backend.device,
        "dtype": dtype,
        "operations": {one.operation: _operation(one, backend) for one in found},
        "not provided": [name for name in OPERATIONS if name not in backend.provided],
    }


def _run(arguments: argparse.Namespace) -> int:
    for name in arguments.operation:
        if name not in OPERATIONS:
            return fail(unknown("operation", name, OPERATIONS))
    if why := _no_backend(arguments.backend):
        known = ", ".join(registered_names())
        return fail(f"backend {arguments.backend}: it is {why}; expected {BACKEND} ({known})")
    try:
        backend = Backend(arguments.backend, arguments.device, arguments.time_limit)
    except Unusable as error:
        return fail(f"backend {arguments.backend}: {error}")
    try:
        return _print(backend, arguments)
    finally:
        backend.close()


def _no_backend(what: str) -> str:
    """Say what this is that can be no backend; nothing where it may be one."""
    path = Path(what)
    if path.is_dir() and what not in registered_names() and not (path / "__init__.py").is_file():
        return "a folder"
    if path.is_file() and path.suffix != ".py":
        return "a file, but no FILE.py"
    return "" if _NAMED.fullmatch(what) else "no name of a file or module"


def _print(backend: Backend, arguments: argparse.Namespace) -> int:
    try:
        backend.round_trip(np.zeros(1), arguments.dtype)
    except (BadCall, OutOfService) as error:
        return fail(f"backend {arguments.backend}: its arrays cannot hold {arguments.dtype}: {error}")
    names = [name for name in OPERATIONS if name in (arguments.operation or backend.provided)]
    missing = [name for name in names if name not in backend.provided]
    if missing:
        return fail(f"backend {arguments.backend} does not provide {', '.join(missing)}")
    found = [identify(backend, name, arguments.dtype) for name in names]
    if arguments.json:
        print(json.dumps(as_json(found, backend, arguments.dtype), indent=2, ensure_ascii=False))
    else:
        print(f"{backend.name}, from its answers in {arguments.dtype} ({arguments.device})\n")
        print(as_text(found, backend))
    return 0


def _told(one: Identification) -> Iterator[tuple[str, str]]:
    """What is said of an operation, each with the clause that speaks of it."""
    if one.failure:
        yield "no answers", ""
    elif not one.known:
        yield f"unknown: none of {one.tried} combinations gives these answers", ""
    for finding in one.findings:
        name, is_option = (
            finding.convention.name,
            finding.convention.name in OPERATIONS[one.operation].options,
        )
        yield (f"{name}: {finding.text}" if is_option else finding.text), finding.convention.clause
    for miss in one.misses if one.known else ():
        yield f"unknown: {miss.answer.call.observation.name}", ""
    for trait in one.traits:
        yield trait.text, trait.clause


def _story(one: Identification, miss: Miss, backend: Backend) -> Iterator[str]:
    where = miss.answer.call.observation.name
    yield f"{one.operation}, {where}: none of {one.tried} combinations gives this answer"
    yield from (f"    {line}" for line in missed(miss, backend))


def _refusals(found: list[Identification]) -> Iterator[str]:
    """Each reason with the operations and observations that it was given for."""
    reasons: dict[str, dict[str, None]] = {}
    for one in found:
        for refusal in one.refusals if not one.failure else ():
            place = f"{one.operation} ({refusal.call.observation.name})"
            reasons.setdefault(refusal.reason, {})[place] = None
    for reason, places in reasons.items():
        yield _wrapped(f"refused: {reason}: {', '.join(places)}")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="    ")


def _operation(one: Identification, backend: Backend) -> dict[str, Any]:
    return {
        "known": one.known,
        "combinations": one.tried,
        "failure": one.failure,
        "conventions": [
            {
                "convention": finding.convention.name,
                "choices": list(finding.choices),
                "asked": list(finding.asked),
                "refused": list(finding.refused),
                "clause": finding.convention.clause,
            }
            for finding in one.findings
        ],
        "traits": [{"text": trait.text, "clause": trait.clause} for trait in one.traits],
        "misses": [
            {
                "observation": miss.answer.call.observation.name,
                "nearest": dict(miss.nearest.choices),
                "story": missed(miss, backend),
            }
            for miss in one.misses
        ],
        "refusals": [
            {"observation": refusal.call.observation.name, "reason": refusal.reason}
            for refusal in one.refusals
        ],
    }
