"""The decorators by which a test says which clauses it shows, and of which operations."""

from collections.abc import Callable
from typing import TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., object])


def clauses(*slugs: str) -> Callable[[Test], Test]:
    """Name the clauses that a test shows; the registry reads the names from the source."""

    def mark(test: Test) -> Test:
        pytest.mark.clauses(*slugs)(test)  # marks in place
        return test

    return mark


def operations(*names: str) -> Callable[[Test], Test]:
    """Name the operations that a test is run for; without it, all of them."""

    def mark(test: Test) -> Test:
        pytest.mark.operations(*names)(test)  # marks in place
        return test

    return mark
