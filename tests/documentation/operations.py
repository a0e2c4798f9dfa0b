"""The table of operations in the guide: `python -m tests.documentation.operations` writes it anew."""

import re
from pathlib import Path

from conformance.operations import CHAPTERS
from conformance.protocol import REQUIRED, Argument, Operation

GUIDE = Path(__file__).parent.parent.parent / "docs" / "hold-a-backend.md"
TABLE = re.compile(r"(?<=<!-- operations -->\n).*?(?=<!-- end of operations -->)", re.DOTALL)

FUNCTIONS = {
    "conjugate_gradient": ["`matvec`", "b (D,)"],
    "trust_region_step": ["`matvec`", "gradient (D,)"],
    "backtracking_line_search": ["`evaluate`", "parameters (D,)", "full_step (D,)"],
}
"""Arguments as a backend sees them, where some of them are functions."""


def table() -> str:
    """One line for each operation, by chapter."""
    lines = ["| operation | arguments | options | result |", "|---|---|---|---|"]
    for chapter, operations in CHAPTERS.items():
        lines.append(f"| **{chapter}** | | | |")
        lines += [f"| {' | '.join(_cells(operation))} |" for operation in operations]
    return "\n".join([*lines, ""])


def _cells(operation: Operation) -> tuple[str, str, str, str]:
    arguments = FUNCTIONS.get(operation.name) or [_argument(a) for a in operation.arguments]
    options = [
        name if default is REQUIRED else f"{name}={default!r}" for name, default in operation.options.items()
    ]
    return f"`{operation.name}`", ", ".join(arguments), ", ".join(options), _result(operation)


def _argument(argument: Argument) -> str:
    kind = {"ids": " int", "tokens": " int", "states": " int", "mask": " bool", "optional": " or None"}.get(
        argument.kind, ""
    )
    return f"{argument.name} {_shape(argument.shape)}{kind}"


def _result(operation: Operation) -> str:
    if operation.keys:
        return "dict of scalars: " + ", ".join(operation.keys)
    if not operation.arguments:
        return "float"
    gradient = f"; gradient: {', '.join(operation.differentiable)}" if operation.differentiable else ""
    return _shape(operation.result) + (", a constant" if operation.constant else "") + gradient


def _shape(letters: tuple[str, ...]) -> str:
    return f"({','.join(letters)}{',' if len(letters) == 1 else ''})"


if __name__ == "__main__":
    page = GUIDE.read_text(encoding="utf-8")
    GUIDE.write_text(TABLE.sub(lambda _: table(), page), encoding="utf-8")
