"""Where the choices that make up a case come from: Hypothesis, or a stream of bytes that a text determines.

Hypothesis searches and shrinks, and what it draws depends on its version and on the modules that are loaded.
The stream is the same everywhere: what is written down for others is drawn from it.
"""

import hashlib
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import count, islice
from typing import Any, Protocol

import hypothesis.strategies as st


class Draw(Protocol):
    """The three kinds of choice."""

    def one_of(self, *values: Any) -> Any:
        """One of these, the simplest first."""

    def between(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        ...

    def octets(self, size: int) -> bytes:
        """So many bytes."""
        ...


class ByHypothesis:
    """Choices that Hypothesis makes, and makes simpler when a case fails."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def one_of(self, *values: Any) -> Any:
        """One of these, the simplest first."""
        return self.draw(_one_of(*values))

    def between(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return self.draw(_between(low, high))

    def octets(self, size: int) -> bytes:
        """So many bytes."""
        return self.draw(_octets(size))


class ByText:
    """Choices read off the SHA-256 digests of a text and a counter: the same on every machine."""

    def __init__(self, text: str) -> None:
        self.bytes = _stream(text)

    def one_of(self, *values: Any) -> Any:
        """One of these, all equally likely."""
        return values[self.between(0, len(values) - 1)]

    def between(self, low: int, high: int) -> int:
        """An integer, both ends included; eight bytes leave no bias that matters."""
        return low + int.from_bytes(self.octets(8), "big") % (high - low + 1)

    def octets(self, size: int) -> bytes:
        """So many bytes."""
        return bytes(islice(self.bytes, size))


def _stream(text: str) -> Iterator[int]:
    for k in count():
        yield from hashlib.sha256(f"{text} {k}".encode()).digest()


@cache
def _between(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


@cache
def _octets(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


@lru_cache(maxsize=None, typed=True)  # typed: True is not 1
def _one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)
