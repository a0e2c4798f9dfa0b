"""The decorators by which a test says which clauses it shows, and of which operations."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., object])


def clauses(*slugs: str, of: tuple[str, ...] = ()) -> Callable[[Test], Test]:
    """Name the clauses that a test shows; the registry reads the names from the source.

    `of` names the operations that they are about, where the test is run for others too.
    """

    def mark(test: Test) -> Test:
        pytest.mark.clauses(*slugs, of=of)(test)  # marks in place
        return test

    return mark


def shown(marks: Iterable[pytest.Mark], operation: str) -> tuple[str, ...]:
    """The clauses that a test with these marks shows of an operation, the first of them first."""
    about = [
        mark for mark in marks if mark.name == "clauses" and operation in (mark.kwargs["of"] or [operation])
    ]
    return tuple(slug for mark in about for slug in mark.args)


def operations(*names: str) -> Callable[[Test], Test]:
    """Name the operations that a test is run for; without it, all of them."""

    def mark(test: Test) -> Test:
        pytest.mark.operations(*names)(test)  # marks in place
        return test

    return mark
