"""How a right backend is made wrong: by one edit of the text of one operation."""

from dataclasses import dataclass
from pathlib import Path

RIGHT_BACKENDS = Path(__file__).parents[1] / "right_backends"


@dataclass(frozen=True)
class Edit:
    """One edit of one operation: `old`, which occurs exactly once in its text, becomes `new`.

    The text is that of the operation's function and of the private functions beside it.
    """

    operation: str
    name: str
    old: str
    new: str
    clause: str = "gae."
    """How a clause of the test that sees it first begins."""
    thread: str = ""
    """The public thread that tells of this mistake, or of the same one in another operation."""
    dtype: str = "float32"
    base: str = "columns"
    """The right backend, a module in `tests/right_backends`."""
    values_equal: bool = False
    """Whether every result is right, and only a gradient is wrong."""


def source(edit: Edit) -> str:
    """The text of the wrong backend: its base, less all other operations, with the edit."""
    head, *functions = (RIGHT_BACKENDS / f"{edit.base}.py").read_text(encoding="utf-8").split("\n\n\n")
    kept = [f for f in functions if f.startswith((f"def {edit.operation}(", "def _", "class _"))]
    right = "\n\n\n".join(kept)
    count = right.count(edit.old)
    if count != 1:
        raise ValueError(f"{edit.old!r} occurs {count} times in {edit.operation}, expected once")
    return "\n\n\n".join([head, right.replace(edit.old, edit.new)]) + "\n"
