"""What the suite knows of an operation: its arguments, options, result, and the reference that defines it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

REQUIRED = object()
"""Default of an option that every call gives."""


@dataclass(frozen=True)
class Argument:
    """One array argument: its shape in the letters of the protocol, and what it holds."""

    name: str
    shape: tuple[str, ...]
    kind: str = "real"
    """"real"; "optional" (real, or None); "mask" (boolean, True at tokens that take part); "ids" (integers);
    "tokens" and "states" (integers below the last, or the first, length of the argument they stand beside);
    "matrix" (symmetric, positive definite)."""
    domain: str = "value"
    """What its numbers are: see `conformance.values`."""
    beside: str = ""
    """The argument from which it differs by a log-ratio, or from whose vocabulary its tokens come."""

    @property
    def is_of_any_size(self) -> bool:
        """Whether no clause bounds its numbers."""
        return self.kind == "real" and self.domain in ("value", "direction")


@dataclass(frozen=True)
class Operation:
    """One operation of the protocol, with the reference function that says what it means."""

    name: str
    arguments: tuple[Argument, ...]
    options: dict[str, Any]
    """Keyword-only options with their defaults; REQUIRED where there is none."""
    reference: Callable[..., Any]
    forms: tuple[Callable[..., Any], ...] = ()
    """Other formulas of the reference that the spec proves equal: a backend may follow any of them."""
    result: tuple[str, ...] = ("B", "T")
    differentiable: tuple[str, ...] = ()
    """Arguments that a gradient flows to."""
    gradient: Callable[..., Any] | None = None
    """The reference's vector-Jacobian product: upstream first, then as `reference`."""
    keys: tuple[str, ...] = ()
    """Names of the scalars, when the result is a dict of them."""
    constant: bool = False
    """True when no gradient may flow through the result."""
    share: float = 1.0
    """What part of a profile's inputs is tried: less where an operation is many others in one, and slow."""

    @property
    def of_tokens(self) -> bool:
        """Whether the result, or a gradient, has a number for every token."""
        inputs = (a.shape for a in self.arguments if a.name in self.differentiable)
        return any("T" in shape for shape in (self.result, *inputs))

    def dimensions(self, arguments: dict[str, Any]) -> dict[str, int]:
        """Read B, T ... off the arguments of a call."""
        sizes: dict[str, int] = {}
        for argument in self.arguments:
            if arguments[argument.name] is not None:
                sizes.update(zip(argument.shape, arguments[argument.name].shape, strict=True))
        return sizes

    def result_shape(self, arguments: dict[str, Any]) -> tuple[int, ...]:
        """Tell the shape of the result of a call."""
        sizes = self.dimensions(arguments)
        return (len(self.keys),) if self.keys else tuple(sizes[letter] for letter in self.result)
