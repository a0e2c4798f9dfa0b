"""A bad argument is refused by name, with what came and what was expected, in both implementations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import torch_impl.gae
from reference import gae as reference
from reference.numbers import balls
from reference.value_loss import value_loss

NAN, INFINITY = float("nan"), float("inf")
SHAPE = (2, 3)


@dataclass(frozen=True)
class Implementation:
    """A module of operations, and how its arrays are made from NumPy's."""

    module: Any
    array: Callable[[np.ndarray], Any]


IMPLEMENTATIONS = {
    "reference": Implementation(reference, np.asarray),
    "torch_impl": Implementation(torch_impl.gae, torch.from_numpy),
}
both = pytest.mark.parametrize("implementation", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)

ROWS = ("rewards", "values", "mask", "bootstrap_value")
OPERATIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "td_errors": (ROWS, {"gamma": 0.9}),
    "n_step_advantages": (ROWS, {"gamma": 0.9, "n": 2}),
    "gae": (ROWS, {"gamma": 0.9, "lam": 0.5, "masked": "skip"}),
    "lambda_returns": (ROWS, {"gamma": 0.9, "lam": 0.5, "masked": "skip"}),
    "discounted_returns": (("rewards", "mask", "bootstrap_value"), {"gamma": 0.9}),
    "whiten": (("x", "mask"), {"shift_mean": True, "ddof": 1, "eps": 1e-8}),
}
"""The arrays and a good set of options of every operation."""

every_operation = pytest.mark.parametrize("operation", OPERATIONS)

NO_NUMBER: tuple[Any, ...] = ("0.5", None, True, 0.5j, [0.5], np.array([0.5, 0.5]), torch.tensor(0.5))
BAD_OPTIONS: dict[str, tuple[tuple[Any, ...], str]] = {
    "gamma": ((-0.1, 1.5, NAN, INFINITY, np.float64(-1.0), 2, *NO_NUMBER), "a number in [0, 1]"),
    "lam": ((-0.1, 1.5, NAN, INFINITY, np.float64(-1.0), 2, *NO_NUMBER), "a number in [0, 1]"),
    "masked": (("drop", "", "SKIP", None, 1, ("skip",), np.array(["skip"])), "one of 'skip', 'zero'"),
    "n": ((0, -1, 1.5, 2.0, NAN, True, None, "2", [2]), "an integer of at least 1"),
    "ddof": ((-1, 0.5, 1.0, NAN, True, None, "1"), "an integer of at least 0"),
    "eps": ((-1e-8, INFINITY, NAN, *NO_NUMBER), "a finite number of at least 0"),
    "shift_mean": ((1, 0, None, "no", 0.0, [True]), "True or False"),
}
"""For each option what is refused, and how the message says what is expected."""

CALLS_WITH_BAD_OPTIONS = [
    pytest.param(operation, option, value, expected, id=f"{operation}-{option}={value!r}")
    for operation, (_, options) in OPERATIONS.items()
    for option in options
    for value, expected in [(value, BAD_OPTIONS[option][1]) for value in BAD_OPTIONS[option][0]]
]


def arrays(operation: str, shape: tuple[int, ...] = SHAPE) -> dict[str, np.ndarray]:
    """Good arrays for an operation."""
    good = {name: np.ones(shape) for name in ("rewards", "values", "x")}
    good |= {"mask": np.ones(shape, dtype=bool), "bootstrap_value": np.ones(shape[0])}
    return {name: good[name] for name in OPERATIONS[operation][0]}


def call(
    implementation: Implementation,
    operation: str,
    shape: tuple[int, ...] = SHAPE,
    arguments: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Call an operation with good arrays, but for the arguments and options given here."""
    given = {name: implementation.array(x) for name, x in arrays(operation, shape).items()}
    chosen = {**OPERATIONS[operation][1], **options}
    return getattr(implementation.module, operation)(*{**given, **(arguments or {})}.values(), **chosen)


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(ValueError, match=r"^\w+ must ") as caught:
        call(*args, **options)
    return str(caught.value)


@both
@every_operation
def test_good_arguments_are_accepted(implementation: Implementation, operation: str) -> None:
    """Without this, refusing everything would pass."""
    assert tuple(call(implementation, operation).shape) == SHAPE
    assert set(OPERATIONS[operation][1]) <= set(BAD_OPTIONS)


@both
@pytest.mark.parametrize(("operation", "option", "value", "expected"), CALLS_WITH_BAD_OPTIONS)
def test_bad_options(
    implementation: Implementation, operation: str, option: str, value: Any, expected: str
) -> None:
    message = refusal(implementation, operation, **{option: value})
    assert message.startswith(f"{option} must be {expected}, got ")
    assert type(value).__name__ in message or "an array" in message or "a tensor" in message
    if isinstance(value, int | float | str):
        assert repr(value) in message


WRONG_SHAPES = {
    "rows": [(3,), (), (2, 3, 1), (1, 3), (2, 1), (3, 2), (2, 4), (0, 3)],
    "bootstrap_value": [(), (3,), (1,), (2, 1), (1, 2), (0,)],
}


@both
@pytest.mark.parametrize(
    ("operation", "name", "shape"),
    [
        pytest.param(operation, name, shape, id=f"{operation}-{name}={shape}")
        for operation, (names, _) in OPERATIONS.items()
        for name in names
        for shape in WRONG_SHAPES.get(name, WRONG_SHAPES["rows"])
    ],
)
def test_shapes_that_disagree(
    implementation: Implementation, operation: str, name: str, shape: tuple[int, ...]
) -> None:
    """Nothing is broadcast: B = 1 for B = 2 is as wrong as anything else."""
    first, following = OPERATIONS[operation][0][:2]
    wrong = implementation.array(np.ones(shape, dtype=bool if name == "mask" else float))
    message = refusal(implementation, operation, arguments={name: wrong})
    if name != first:
        expected = "(2)" if name == "bootstrap_value" else "(2, 3)"
        assert message == f"{name} must have shape {expected} to agree with {first}, got {shape}"
    elif len(shape) != len(SHAPE):
        assert message == f"{first} must have shape (any, any), got {shape}"
    else:  # the first argument sets the shape, so it is the next one that disagrees
        assert message == f"{following} must have shape {shape} to agree with {first}, got {SHAPE}"


@both
@every_operation
@pytest.mark.parametrize(
    "dtype", [np.int64, np.uint8, np.float32, np.float64], ids=lambda dtype: dtype.__name__
)
def test_masks_that_are_not_boolean(implementation: Implementation, operation: str, dtype: type) -> None:
    """Ones and zeros are refused: multiplied or inverted, they would not do what a mask does."""
    wrong = implementation.array(np.ones(SHAPE, dtype=dtype))
    message = refusal(implementation, operation, arguments={"mask": wrong})
    assert message.startswith("mask must be boolean (True at tokens that take part), got ")
    assert message.endswith(dtype.__name__)


@both
@every_operation
@pytest.mark.parametrize("value", [None, "all", {"mask": True}, [["a"]], [[True], [True, False]]], ids=repr)
def test_masks_that_are_no_arrays(implementation: Implementation, operation: str, value: Any) -> None:
    assert refusal(implementation, operation, arguments={"mask": value}).startswith("mask must be ")


REAL = [(operation, name) for operation, (names, _) in OPERATIONS.items() for name in names if name != "mask"]
every_real_array = pytest.mark.parametrize(("operation", "name"), REAL)


@both
@every_real_array
def test_arrays_that_are_not_real(implementation: Implementation, operation: str, name: str) -> None:
    shape = arrays(operation)[name].shape
    strangers: list[Any] = [
        implementation.array(np.ones(shape, dtype=complex)),
        np.full(shape, "1.0").tolist(),
        np.full(shape, "1.0"),
        np.full(shape, None),
        np.full(shape, 1j, dtype=object),
        None,
        "rewards",
        {"rewards": 1.0},
        [[1.0], [1.0, 2.0]],
    ]
    for stranger in strangers:
        message = refusal(implementation, operation, arguments={name: stranger})
        assert message.startswith(f"{name} must be ")
        assert "got" in message


@every_real_array
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8], ids=str)
def test_integer_tensors_are_refused(operation: str, name: str, dtype: torch.dtype) -> None:
    """The result would have their dtype, and be truncated."""
    wrong = torch.ones(arrays(operation)[name].shape, dtype=dtype)
    message = refusal(IMPLEMENTATIONS["torch_impl"], operation, arguments={name: wrong})
    assert message == f"{name} must be a tensor of a floating dtype, got a tensor of dtype {dtype}"


@every_real_array
def test_torch_takes_tensors_only(operation: str, name: str) -> None:
    for stranger in (arrays(operation)[name], arrays(operation)[name].tolist()):
        message = refusal(IMPLEMENTATIONS["torch_impl"], operation, arguments={name: stranger})
        assert message.startswith(
            f"{name} must be a tensor of a floating dtype, got {type(stranger).__name__}"
        )


@every_operation
def test_reference_takes_whatever_becomes_an_array(operation: str) -> None:
    """Lists, integers, narrow floats, objects that are numbers, tensors on the CPU: all count as float64."""
    implementation = IMPLEMENTATIONS["reference"]
    expected = call(implementation, operation)
    good = arrays(operation)
    for convert in (
        lambda x: x.tolist(),
        lambda x: x if x.dtype == bool else x.astype(np.int32),
        lambda x: x if x.dtype == bool else x.astype(np.float16),
        lambda x: x if x.dtype == bool else x.astype(object),
        torch.from_numpy,
    ):
        got = call(implementation, operation, arguments={name: convert(x) for name, x in good.items()})
        assert got.dtype == np.float64
        assert np.array_equal(got, expected)


@every_real_array
def test_reference_refuses_tensors_that_it_cannot_read(operation: str, name: str) -> None:
    tensor = torch.ones(arrays(operation)[name].shape)
    for unreadable in (tensor.clone().requires_grad_(), tensor.to(torch.bfloat16), tensor.to("meta")):
        message = refusal(IMPLEMENTATIONS["reference"], operation, arguments={name: unreadable})
        assert message.startswith(f"{name} must be an array of real numbers, got Tensor tensor(")


@every_real_array
def test_reference_refuses_integers_beyond_float64(operation: str, name: str) -> None:
    huge = np.full(arrays(operation)[name].shape, 10**400, dtype=object).tolist()
    message = refusal(IMPLEMENTATIONS["reference"], operation, arguments={name: huge})
    assert message.startswith(f"{name} must be an array of real numbers, got list [")
    assert "[1000" in message


def test_options_refuse_integers_beyond_float64() -> None:
    one, mask = np.ones((1, 1)), np.ones((1, 1), dtype=bool)
    given: list[dict[str, Any]] = [
        {"clip": 10**400},
        {"horizon": 10**400, "aggregation": "seq-mean-token-sum-norm"},
    ]
    for options in given:
        with pytest.raises(ValueError, match=r"must be a finite number .*, got int 1000"):
            value_loss(one, one, one, mask, **options)


@both
@every_operation
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_batches(implementation: Implementation, operation: str, shape: tuple[int, ...]) -> None:
    changes: list[dict[str, Any]] = [{}, {"masked": "zero"}]
    for changed in changes if "masked" in OPERATIONS[operation][1] else changes[:1]:
        got = call(implementation, operation, shape, **changed)
        assert tuple(got.shape) == shape
        assert str(got.dtype).endswith("float64")


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_batches_by_the_definition(shape: tuple[int, ...]) -> None:
    given = arrays("gae", shape).values()
    assert reference.gae_by_definition(*given, gamma=0.5, lam=0.5).shape == shape


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_empty_batches_of_balls(shape: tuple[int, ...]) -> None:
    for operation, (_, options) in OPERATIONS.items():
        given = {
            name: x if x.dtype == bool else balls.array(x) for name, x in arrays(operation, shape).items()
        }
        exact = {name: balls.array(x) if type(x) is float else x for name, x in options.items()}
        assert getattr(reference, operation)(*given.values(), **exact).shape == shape


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        (lambda: reference.n_step_weights(0, lam=0.5), "count must be an integer of at least 1, got int 0"),
        (lambda: reference.n_step_weights(2, lam=1.5), "lam must be a number in [0, 1], got float 1.5"),
        (lambda: horizon(0.0, 1.0, 0.5), "epsilon must be a number strictly between 0 and 1, got float 0.0"),
        (lambda: horizon(0.5, None, 0.5), "gamma must be a number in [0, 1], got NoneType None"),
        (lambda: horizon(0.5, -0.5, -0.5), "gamma must be a number in [0, 1], got float -0.5"),
        (lambda: horizon(0.5, 0.25, 2.0), "lam must be a number in [0, 1], got float 2.0"),
        (
            lambda: horizon(0.5, 1.0, 1.0),
            "gamma * lam must be a number strictly between 0 and 1, got float 1.0",
        ),
        (lambda: variance(1.0, 1.0, 1.0), "covariance must have shape (any, any), got ()"),
        (lambda: variance([1.0], 1.0, 1.0), "covariance must have shape (any, any), got (1,)"),
        (lambda: variance([[1.0, 0.0]], 1.0, 1.0), "covariance must have shape (1, 1), got (1, 2)"),
        (lambda: variance([[1.0]], 1.0, "1"), "lam must be a number in [0, 1], got str '1'"),
    ],
)
def test_functions_outside_the_protocol(formula: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        formula()
    assert str(caught.value) == message


def horizon(epsilon: Any, gamma: Any, lam: Any) -> Any:
    return reference.reward_horizon(epsilon, gamma=gamma, lam=lam)


def variance(covariance: Any, gamma: Any, lam: Any) -> Any:
    return reference.gae_variance(covariance, gamma=gamma, lam=lam)
