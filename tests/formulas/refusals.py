"""What a formula has to refuse: values of each kind of option, arrays of another shape, what is no array."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

NAN, INFINITY = float("nan"), float("inf")
NO_NUMBERS: tuple[Any, ...] = ("0.5", None, True, 0.5j, [0.5], np.array([0.5, 0.5]), torch.tensor(0.5))


@dataclass(frozen=True)
class Kind:
    """Options of one kind: how a message says what is expected, what is refused, what is just within."""

    expected: str
    bad: tuple[Any, ...]
    names: tuple[str, ...]
    edges: tuple[Any, ...] = ()


KINDS = (
    Kind(
        "a number in [0, 1]",
        (-0.1, 1.5, -1, 2, NAN, INFINITY, *NO_NUMBERS),
        ("gamma", "lam", "label_smoothing"),
        (0, 0.0, 1, 1.0),
    ),
    Kind(
        "a number strictly between 0 and 1",
        (0.0, 1.0, -0.5, 1.5, 0, 1, NAN, *NO_NUMBERS),
        ("backtrack", "success_rate", "epsilon"),
    ),
    Kind(
        "a number of at least 0 and below 1",
        (-0.1, 1.0, 1.5, -1, 1, NAN, INFINITY, *NO_NUMBERS),
        ("beta1", "beta2"),
        (0, 0.0),
    ),
    Kind(
        "a finite number of at least 0",
        (-1e-8, -1, INFINITY, NAN, *NO_NUMBERS),
        (
            *("eps", "clip_low", "clip_high", "kl_coef", "clip", "tol", "max_kl", "cg_tol", "damping"),
            *("trained", "frozen"),
            *("coef", "n_steps", "entropy_coef", "learning_rate", "clip_eps", "value_coef"),
        ),
        (0, 0.0),
    ),
    Kind(
        "a finite number above 0",
        (0.0, -1.0, 0, INFINITY, NAN, *NO_NUMBERS),
        (
            *("log_ratio_clip", "value_clip", "cap", "horizon", "target", "temperature", "beta"),
            *("group_size", "max_length", "buffer", "sigma", "max_grad_norm", "adam_eps"),
        ),
    ),
    Kind("a finite number above 1", (1.0, 0.5, -2.0, 1, INFINITY, NAN, *NO_NUMBERS), ("dual_clip",)),
    Kind("a finite number", (INFINITY, -INFINITY, NAN, *NO_NUMBERS), ("kl", "margin", "distance")),
    Kind(
        "an integer of at least 1",
        (0, -1, 1.5, 2.0, NAN, True, None, "2", [2]),
        ("n", "max_iters", "cg_iters", "max_steps", "count", "epochs", "minibatch_rows"),
        (1,),
    ),
    Kind("an integer of at least 0", (-1, 0.5, 1.0, NAN, True, None, "1"), ("ddof", "tokens", "rows"), (0,)),
    Kind(
        "True or False",
        (1, 0, None, "no", 0.0, [True]),
        ("shift_mean", "self_normalized", "average", "reward_model"),
    ),
    Kind(
        "one of ",
        ("none of them", "", None, 1, ("token",), np.array(["k1"])),
        (
            *("masked", "mode", "estimator", "ratio_level", "aggregation", "empty_rows", "scale"),
            *("loss_type", "algorithm", "optimizer"),
        ),
    ),
)
OPTIONS = {name: kind for kind in KINDS for name in kind.names}

Convert = Callable[[Any], Any]
"""What makes an argument of a NumPy array."""


def assert_options_refused(
    name: str, call: Callable[[Any], Any], kind: Kind, *, optional: bool = False
) -> None:
    """Demand that a call with a bad value of an option says so, and what was expected."""
    for value in kind.bad:
        if value is None and optional:
            continue
        with pytest.raises(ValueError, match=rf"^{name} must be ") as caught:
            call(value)
        message = str(caught.value)
        assert message.startswith(f"{name} must be {kind.expected}")
        assert f", got {type(value).__name__}" in message or ", got a" in message


def assert_shape_refused(name: str, call: Callable[[], Any]) -> None:
    """Demand that a call names this array, or the one that it disagrees with."""
    one, other = rf"{name} must have shape ", rf"\w+ must have shape .* with {name}, "
    with pytest.raises(ValueError, match=f"^(?:{one}|{other})"):
        call()


def wrong_shapes(
    letters: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """For each array one axis too many, one too few, or another length where others have the same."""
    lengths = [letter for shape in letters.values() for letter in shape]
    for name, own in letters.items():
        shape = tuple(sizes[letter] for letter in own)
        yield name, (*shape, 1)
        yield name, shape[1:]
        for axis, letter in enumerate(own):
            if lengths.count(letter) > 1:
                for length in {1, shape[axis] + 1} - {shape[axis]}:
                    yield name, (*shape[:axis], length, *shape[axis + 1 :])


def strangers(dtype: Any, shape: tuple[int, ...], convert: Convert) -> Iterator[Any]:
    """What is no array of this dtype, whatever its shape; the reference takes integers for numbers."""
    others = {float: (complex,), bool: (float, int, np.uint8), int: (float, bool, complex)}[dtype]
    yield from (convert(np.ones(shape, dtype=other)) for other in others)
    yield from ("x", {"x": 1.0}, [[1.0], [1.0, 2.0]], np.full(shape, "1.0"))
    yield from (np.full(shape, value, dtype=object) for value in (None, "1.0", True))
