"""How our own tests draw: without a deadline, and the same inputs every time."""

from hypothesis import settings


def examples(count: int) -> settings:
    """So many inputs, the same ones in every run."""
    return settings(max_examples=count, deadline=None, derandomize=True)
