"""The command `rlspec`: read the clauses, and put backends to questions."""

import argparse
import sys

from conformance import identification_report as identification
from conformance.vectors import commands as vectors
from spec import commands as clauses


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, or 1 when what was asked for is not there."""
    parser = argparse.ArgumentParser(prog="rlspec", description="Read the clauses, question backends.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    clauses.add_to(commands)
    identification.add_to(commands)
    vectors.add_to(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
