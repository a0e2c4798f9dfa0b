"""The command `rlspec vectors`."""

import argparse
import difflib
import sys
from pathlib import Path

from conformance.operations import OPERATIONS
from conformance.vectors.writing import MANIFEST, write
from reference.numbers.formats import FORMATS

DTYPES = ("float32", "float64")
INPUTS = 3


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of a parser; it sets `run`, which takes the parsed arguments."""
    parser = commands.add_parser("vectors", help="write cases as files that any language can read")
    parser.add_argument("folder", metavar="DIR", type=Path, help="a new or empty folder")
    parser.add_argument(
        "--dtype",
        action="append",
        choices=tuple(FORMATS),
        help="may be repeated (default: float32 and float64)",
    )
    parser.add_argument(
        "--operation", action="append", metavar="NAME", help="may be repeated (default: all of them)"
    )
    parser.add_argument(
        "--cases", type=count, default=INPUTS, metavar="N",
        help=f"inputs from each region, for each test of the suite (default: {INPUTS})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="another number draws other inputs (default: 0)")
    parser.set_defaults(run=_vectors)


def _vectors(arguments: argparse.Namespace) -> int:
    operations = tuple(dict.fromkeys(arguments.operation or OPERATIONS))
    if unknown := [name for name in operations if name not in OPERATIONS]:
        near = difflib.get_close_matches(unknown[0], OPERATIONS, n=3)
        known = f"near: {', '.join(near)}" if near else f"the operations are {', '.join(OPERATIONS)}"
        return _fail(f"there is no operation {unknown[0]}; {known}")
    dtypes = tuple(dict.fromkeys(arguments.dtype or DTYPES))
    try:
        write(arguments.folder, operations, dtypes, arguments.cases, arguments.seed)
    except OSError as error:
        return _fail(str(error))
    print(f"{len(operations) * len(dtypes)} files, listed in {arguments.folder / MANIFEST}")
    return 0


def count(text: str) -> int:
    """Read a number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def _fail(message: str) -> int:
    print(f"rlspec: {message}", file=sys.stderr)
    return 1
