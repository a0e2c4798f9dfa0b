"""The command `rlspec vectors`."""

import argparse
from pathlib import Path

from conformance.operations import OPERATIONS
from conformance.vectors.writing import MANIFEST, write
from reference.numbers.formats import FORMATS
from spec.commands import fail, unknown

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
    for name in operations:
        if name not in OPERATIONS:
            return fail(unknown("operation", name, OPERATIONS))
    dtypes = tuple(dict.fromkeys(arguments.dtype or DTYPES))
    try:
        write(arguments.folder, operations, dtypes, arguments.cases, arguments.seed)
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}" if error.strerror else str(error))
    files = len(operations) * len(dtypes)
    print(f"{files} {'file' if files == 1 else 'files'}, listed in {arguments.folder / MANIFEST}")
    return 0


def count(text: str) -> int:
    """Read a number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number
