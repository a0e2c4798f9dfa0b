"""Checks of arguments at the public boundary.

Every message names the argument, says what came and what was expected; the exception is ValueError.
None of them reads a tensor's values, so none waits for a device.
"""

import math
from typing import Any

import torch
from torch import Tensor


def floating(name: str, x: Any, shape: tuple[int | None, ...], like: str = "") -> None:
    """Check a tensor of a floating dtype and a given shape; None in the shape is any length."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(f"{name} must be a tensor of a floating dtype, got {_describe(x)}")
    _check_shape(name, x, shape, like)


def boolean(name: str, x: Any, shape: tuple[int | None, ...], like: str = "") -> None:
    """Check a boolean mask: True at the tokens that take part."""
    if not isinstance(x, Tensor) or x.dtype != torch.bool:
        raise ValueError(f"{name} must be boolean (True at tokens that take part), got {_describe(x)}")
    _check_shape(name, x, shape, like)


def integers(name: str, x: Any, shape: tuple[int | None, ...], like: str = "") -> None:
    """Check a tensor of integers, such as tokens or the ids of groups."""
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"{name} must be a tensor of integers, got {_describe(x)}")
    _check_shape(name, x, shape, like)


def unit_interval(name: str, x: Any) -> None:
    """Check a hyper-parameter that lies in [0, 1]."""
    if not _is_number(x) or not 0.0 <= x <= 1.0:
        raise ValueError(f"{name} must be a number in [0, 1], got {_describe(x)}")


def open_unit_interval(name: str, x: Any) -> None:
    """Check a hyper-parameter that lies strictly between 0 and 1."""
    if not _is_number(x) or not 0.0 < x < 1.0:
        raise ValueError(f"{name} must be a number strictly between 0 and 1, got {_describe(x)}")


def below_one(name: str, x: Any) -> None:
    """Check a hyper-parameter that lies in [0, 1)."""
    if not _is_number(x) or not 0.0 <= x < 1.0:
        raise ValueError(f"{name} must be a number of at least 0 and below 1, got {_describe(x)}")


def non_negative(name: str, x: Any) -> None:
    """Check a hyper-parameter that is finite and at least 0."""
    if not _is_number(x) or not 0.0 <= x < math.inf:
        raise ValueError(f"{name} must be a finite number of at least 0, got {_describe(x)}")


def finite(name: str, x: Any) -> None:
    """Check a hyper-parameter that is finite, of either sign."""
    if not _is_number(x) or not math.isfinite(x):
        raise ValueError(f"{name} must be a finite number, got {_describe(x)}")


def positive(name: str, x: Any) -> None:
    """Check a hyper-parameter that is finite and above 0."""
    if not _is_number(x) or not 0.0 < x < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, got {_describe(x)}")


def above_one(name: str, x: Any) -> None:
    """Check a hyper-parameter that is finite and above 1."""
    if not _is_number(x) or not 1.0 < x < math.inf:
        raise ValueError(f"{name} must be a finite number above 1, got {_describe(x)}")


def integer(name: str, x: Any, at_least: int) -> None:
    """Check an integer hyper-parameter with a lower bound."""
    if isinstance(x, bool) or not isinstance(x, int) or x < at_least:
        raise ValueError(f"{name} must be an integer of at least {at_least}, got {_describe(x)}")


def flag(name: str, x: Any) -> None:
    """Check an option that is either on or off."""
    if not isinstance(x, bool):
        raise ValueError(f"{name} must be True or False, got {_describe(x)}")


def choice(name: str, x: Any, options: tuple[str, ...]) -> None:
    """Check an option that takes one of a few names."""
    if not isinstance(x, str) or x not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {_describe(x)}")


def function(name: str, x: Any) -> None:
    """Check an argument that is called."""
    if not callable(x):
        raise ValueError(f"{name} must be a function, got {_describe(x)}")


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def _check_shape(name: str, x: Tensor, expected: tuple[int | None, ...], like: str) -> None:
    got = tuple(x.shape)
    agrees = len(got) == len(expected) and all(e in (None, g) for g, e in zip(got, expected, strict=True))
    if not agrees:
        lengths = ", ".join("any" if e is None else str(e) for e in expected)
        reason = f" to agree with {like}" if like else ""
        raise ValueError(f"{name} must have shape ({lengths}){reason}, got {got}")


def _describe(x: Any) -> str:
    if isinstance(x, Tensor):
        return f"a tensor of dtype {x.dtype}"
    return f"{type(x).__name__} {x!r}"[:80]
