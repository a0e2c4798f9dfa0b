"""Checks of arguments at the public boundary.

Every message names the argument, says what came and what was expected; the exception is ValueError.
"""

from typing import Any

import numpy as np

from reference.numbers import Array, Mask, Scalar, floats, system_of

Indices = np.typing.NDArray[np.int64]
"""Integers that index something: token ids."""


LARGEST = int(np.finfo(np.float64).max)
"""The largest integer that is a float64."""


def real_array(name: str, x: Any, shape: tuple[int | None, ...], like: str = "") -> Array:
    """Check an array of real numbers and return it as float64 (or as the objects that it holds).

    `shape` has None where any length is right; `like` names what the lengths have to agree with.
    """
    try:
        array = np.asarray(x)
        if array.dtype != object:
            array = array.astype(np.float64, casting="same_kind")
        elif system_of(array) is floats:
            array = np.asarray(np.frompyfunc(_plain, 1, 1)(array), dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of real numbers, got {_describe(x)}") from error
    _check_shape(name, array.shape, shape, like)
    return array


def real_number(name: str, x: Any) -> Scalar:
    """Check one real number and return it as a float (or as the object that it is)."""
    number: Scalar = real_array(name, x, ()).item()
    return number


def mask_array(name: str, x: Any, shape: tuple[int | None, ...], like: str = "") -> Mask:
    """Check a boolean mask: True at the tokens that take part."""
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a boolean array, got {_describe(x)}") from error
    if array.dtype != bool:
        raise ValueError(f"{name} must be boolean (True at tokens that take part), got dtype {array.dtype}")
    _check_shape(name, array.shape, shape, like)
    return array


def index_array(name: str, x: Any, shape: tuple[int | None, ...], below: int, like: str = "") -> Indices:
    """Check an integer array whose elements lie in 0 ... below - 1: token ids."""
    array = integer_array(name, x, shape, like)
    if array.size and not 0 <= array.min() <= array.max() < below:
        raise ValueError(f"{name} must lie in [0, {below}), got {array.min()} to {array.max()}")
    return array


def integer_array(name: str, x: Any, shape: tuple[int | None, ...], like: str = "") -> Indices:
    """Check an array of any integers, such as the ids of groups."""
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of integers, got {_describe(x)}") from error
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be an array of integers, got dtype {array.dtype}")
    _check_shape(name, array.shape, shape, like)
    return array


def unit_interval(name: str, x: Any) -> None:
    """Check a hyper-parameter that lies in [0, 1]; balls and symbols pass."""
    if not (_is_object(x) or (_is_number(x) and 0.0 <= x <= 1.0)):
        raise ValueError(f"{name} must be a number in [0, 1], got {_describe(x)}")


def open_unit_interval(name: str, x: Any) -> None:
    """Check a number that lies strictly between 0 and 1; balls and symbols pass."""
    if not (_is_object(x) or (_is_number(x) and 0.0 < x < 1.0)):
        raise ValueError(f"{name} must be a number strictly between 0 and 1, got {_describe(x)}")


def below_one(name: str, x: Any) -> None:
    """Check a hyper-parameter that lies in [0, 1); balls and symbols pass."""
    if not (_is_object(x) or (_is_number(x) and 0.0 <= x < 1.0)):
        raise ValueError(f"{name} must be a number of at least 0 and below 1, got {_describe(x)}")


def non_negative(name: str, x: Any) -> None:
    """Check a hyper-parameter that is finite and at least 0; balls and symbols pass."""
    if not (_is_object(x) or (_is_number(x) and 0.0 <= x < np.inf)):
        raise ValueError(f"{name} must be a finite number of at least 0, got {_describe(x)}")


def positive(name: str, x: Any) -> None:
    """Check a hyper-parameter that is finite and above 0; balls and symbols pass."""
    if not (_is_object(x) or (_is_number(x) and 0.0 < x < np.inf)):
        raise ValueError(f"{name} must be a finite number above 0, got {_describe(x)}")


def above_one(name: str, x: Any) -> None:
    """Check a hyper-parameter that is finite and above 1; balls and symbols pass."""
    if not (_is_object(x) or (_is_number(x) and 1.0 < x < np.inf)):
        raise ValueError(f"{name} must be a finite number above 1, got {_describe(x)}")


def finite(name: str, x: Any) -> None:
    """Check a hyper-parameter that is finite, of either sign; balls and symbols pass."""
    if not (_is_object(x) or (_is_number(x) and np.isfinite(x))):
        raise ValueError(f"{name} must be a finite number, got {_describe(x)}")


def integer(name: str, x: Any, at_least: int) -> None:
    """Check an integer hyper-parameter with a lower bound."""
    if isinstance(x, bool) or not isinstance(x, int | np.integer) or x < at_least:
        raise ValueError(f"{name} must be an integer of at least {at_least}, got {_describe(x)}")


def flag(name: str, x: Any) -> None:
    """Check an option that is either on or off."""
    if not isinstance(x, bool | np.bool_):
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
    """Whether x is a plain number, and one that float64 has room for."""
    if isinstance(x, int):
        return not isinstance(x, bool) and abs(x) <= LARGEST
    return isinstance(x, float | np.integer | np.floating)


def _is_object(x: Any) -> bool:
    """Whether x is one ball, dyadic rational or symbol."""
    return not isinstance(x, np.ndarray) and system_of(x) is not floats


def _check_shape(name: str, got: tuple[int, ...], expected: tuple[int | None, ...], like: str) -> None:
    agrees = len(got) == len(expected) and all(e in (None, g) for g, e in zip(got, expected, strict=True))
    if not agrees:
        lengths = ", ".join("any" if e is None else str(e) for e in expected)
        reason = f" to agree with {like}" if like else ""
        raise ValueError(f"{name} must have shape ({lengths}){reason}, got {got}")


def _plain(x: Any) -> float:
    """One element of an object array, if it is a plain number."""
    if not _is_number(x):
        raise TypeError(f"expected a number, got {type(x).__name__}")
    return float(x)


def _describe(x: Any) -> str:
    if isinstance(x, np.ndarray):
        return f"an array of dtype {x.dtype}"
    return f"{type(x).__name__} {x!r}"[:80]
