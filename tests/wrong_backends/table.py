"""The wrong backends of every chapter: slips that are easily made, and bugs that libraries have had."""

from importlib import import_module
from itertools import islice

from conformance.operations import CHAPTERS, OPERATIONS
from tests.wrong_backends.edits import Edit

OF_ANY = ("training_algorithms", "calls", "sizes", "defaults", "far_options", "far_inputs")
"""Ways to go wrong that are no chapter's own."""

EDITS: tuple[Edit, ...] = tuple(
    edit for module in (*CHAPTERS, *OF_ANY) for edit in import_module(f"tests.wrong_backends.{module}").EDITS
)

EACH = 4
"""Wrong backends of each operation that every change is held against; `dev.py museum` runs them all."""


def sample() -> tuple[Edit, ...]:
    """Wrong backends from all over the table: of each operation one that is wrong in a gradient alone."""
    return tuple(edit for name in OPERATIONS for edit in _sample([e for e in EDITS if e.operation == name]))


def _sample(edits: list[Edit]) -> list[Edit]:
    hidden = list(islice((edit for edit in edits if edit.values_equal), 1))
    others = [edit for edit in edits if edit not in hidden]
    count = EACH - len(hidden)
    return hidden + [others[k * len(others) // count] for k in range(count)]
