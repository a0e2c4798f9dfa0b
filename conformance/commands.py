"""The command `rlspec`: read the clauses, and put backends to questions."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from conformance import identification_report as identification
from conformance.vectors import commands as vectors
from spec import commands as clauses

SUITE = "The suite itself is run by pytest: pytest conformance/ --backend NAME"
READER_GONE = 141
"""The exit status of a program that SIGPIPE ends."""


class Command(argparse.ArgumentParser):
    """The parser of a command. The argument that its default `rest` names goes on behind options too."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse as argparse does, which ends a list of words at the first option behind it."""
        found, left = super().parse_known_args(args, namespace)
        if rest := self.get_default("rest"):
            getattr(found, rest).extend(word for word in left if not word.startswith("-"))
            left = [word for word in left if word.startswith("-")]
        return found, left


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, or 1 when what was asked for is not there.

    Where nobody reads the output to its end, as before `| head`, it is 141.
    """
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it ends: what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE


def _run(argv: list[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="rlspec", description="Read the clauses, question backends.", epilog=SUITE
    )
    parser.add_argument("--version", action="version", version=f"rlspec {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Command)
    for module in (clauses, identification, vectors):
        module.add_to(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.run(arguments))


def _version() -> str:
    try:
        return version("rlspec")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
