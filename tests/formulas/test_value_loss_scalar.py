"""The chapter `vf`: answers of reference and torch_impl are those float64 may give; edges, errors, symbols.

Values and gradients on drawn inputs are held against a second definition in `test_second_definitions`.
"""

from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given

from conformance.operations import OPERATIONS
from reference import value_loss
from reference.numbers import balls, dyadics, symbols
from reference.numbers.formats import FORMATS
from tests.examples import examples
from tests.formulas import scalar_value_loss as scalar
from tests.formulas.agreement import second
from tests.formulas.drawing import Call, calls
from tests.numbers.enclosure import encloses, ends
from torch_impl import value_loss as in_torch

reference: Any = value_loss
"""As a module of anything: balls, dyadic rationals and symbols go where floats are declared."""

torch_impl: Any = in_torch

FORM = FORMATS["float64"]
ROUNDING = balls.Rounding(FORM, 2.0)
MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")

value = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 0.75, -0.25, 3.0, 1e4]),
    st.floats(-100.0, 100.0).map(lambda x: round(x, 6)),  # 160 bits tell all sums of these apart
)
settings = st.fixed_dictionaries(
    {
        "clip": st.sampled_from([None, 0.5, 0.0, 0.25, 1.0, 0.2, 1e5]),
        "aggregation": st.sampled_from(MODES),
        "horizon": st.sampled_from([None, 3.0, 8.0]),
        "empty_rows": st.sampled_from(["count", "drop"]),
    }
)


@st.composite
def batches(draw: Any) -> tuple[Any, Any]:
    """Values, old values and returns, and a mask."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    size = shape[0] * shape[1]
    arrays = [np.array(draw(st.lists(value, min_size=size, max_size=size))).reshape(shape) for _ in range(3)]
    mask = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return arrays, np.array(mask).reshape(shape)


def rounded(x: Any) -> Any:
    """Balls of what float64 may make of these numbers."""
    return balls.array(x, ROUNDING, 2 * FORM.unit_roundoff)


def hidden(arrays: Any, mask: Any) -> list[Any]:
    """The same batch with NaN under the mask."""
    return [np.where(mask, x, np.nan) for x in arrays]


@examples(60)
@given(calls("value_loss"))
def test_certified_gradient_is_no_wider_than_the_definition(call: Call) -> None:
    said = second(OPERATIONS["value_loss"], scalar.value_loss, call)
    arrays = [x if x.dtype == bool else balls.array(x) for x in call.case.arguments.values()]
    gradient = reference.value_loss_gradient(balls.array(call.upstream[()]), *arrays, **call.case.options)
    for index in np.ndindex(gradient.shape):
        low, high = ends(gradient[index])
        claimed = said.in_input("values", index) or [Fraction(0)]
        room = Fraction(1, 2**25) * (abs(low) + abs(high))  # a radius has 30 bits
        assert min(claimed) - room <= low
        assert high <= max(claimed) + room


@examples(100)
@given(batches(), settings, st.sampled_from([1.0, -1.5, 0.3]))
def test_float64_results_are_answers_that_float64_may_give(
    batch: Any, options: dict[str, Any], upstream: float
) -> None:
    arrays, mask = batch
    wide = [rounded(x) for x in arrays]
    allowed = reference.value_loss(*wide, mask, **options)
    nan = hidden(arrays, mask)
    assert encloses(allowed, float(reference.value_loss(*nan, mask, **options)))
    values, old, returns = (torch.tensor(x, requires_grad=True) for x in nan)
    loss = torch_impl.value_loss(values, old, returns, torch.tensor(mask), **options)
    assert loss.shape == ()
    assert encloses(allowed, loss.item())
    slopes = reference.value_loss_gradient(rounded(upstream), *wide, mask, **options)
    own = reference.value_loss_gradient(upstream, *nan, mask, **options)
    got: Any = torch.autograd.grad(
        loss, (values, old, returns), torch.tensor(upstream, dtype=torch.float64), allow_unused=True
    )
    assert got[1] is None
    assert got[2] is None
    for index in np.ndindex(mask.shape):
        assert encloses(slopes[index], got[0][index].item())
        assert encloses(slopes[index], float(own[index]))


@examples(60)
@given(calls("value_loss"))
def test_dyadic_results_are_exact_or_lost(call: Call) -> None:
    said = second(OPERATIONS["value_loss"], scalar.value_loss, call)
    number = np.frompyfunc(dyadics.number, 1, 1)
    arrays = [x if x.dtype == bool else number(x) for x in call.case.arguments.values()]
    assert reference.value_loss(*arrays, **call.case.options).value in (None, said.result[()])
    upstream = dyadics.number(float(call.upstream))
    gradient = reference.value_loss_gradient(upstream, *arrays, **call.case.options)
    for index in np.ndindex(gradient.shape):
        claimed = set(said.in_input("values", index) or [Fraction(0)])
        assert gradient[index].value is None or {gradient[index].value} == claimed


def test_dyadic_results_are_there() -> None:
    arrays = [np.array([[x]]) for x in (4.0, 0.0, 1.0)]
    dyadic = [np.frompyfunc(dyadics.number, 1, 1)(x) for x in arrays]
    mask = np.array([[True]])
    assert reference.value_loss(*dyadic, mask, clip=0.5).value == Fraction(9, 2)
    assert reference.value_loss_gradient(dyadics.number(2), *dyadic, mask, clip=0.5)[0, 0].value == 6


def test_symbols_give_the_formula() -> None:
    v, w, r = (symbols.array(name, (1, 1)) for name in "vwr")
    mask = np.array([[True]])
    loss = reference.value_loss(v, w, r, mask, clip=sympy.Rational(1, 2))
    numbers = {v[0, 0]: 1, w[0, 0]: 0, r[0, 0]: 3}
    assert loss.subs(numbers) == sympy.Rational(25, 8)
    slope = reference.value_loss_gradient(sympy.Integer(1), v, w, r, mask, clip=sympy.Rational(1, 2))
    assert slope[0, 0].subs(numbers) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    shape = (4, 64)
    generator = torch.Generator().manual_seed(0)
    arrays = [torch.randn(shape, generator=generator).to(dtype) for _ in range(3)]
    mask = torch.rand(shape, generator=generator) < 0.7
    got = torch_impl.value_loss(*arrays, mask, clip=0.25)
    wide = torch_impl.value_loss(*(x.float() for x in arrays), mask, clip=0.25)
    assert got.dtype == dtype
    assert torch.equal(got, wide.to(dtype))


BATCH = [np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3)), np.ones((2, 3), dtype=bool)]
BAD: list[tuple[int | None, Any, dict[str, Any], str]] = [
    (None, None, {"clip": -0.5}, "clip must be .*-0.5"),
    (None, None, {"clip": float("inf")}, "clip must be .*inf"),
    (None, None, {"clip": "0.5"}, "clip must be .*0.5"),
    (None, None, {"aggregation": "mean"}, "aggregation must be one of .*'mean'"),
    (None, None, {"empty_rows": "keep"}, "empty_rows must be one of .*'keep'"),
    (0, np.zeros(3), {}, r"values must have shape \(any, any\).*\(3,\)"),
    (1, np.zeros((2, 1)), {}, r"old_values must have shape \(2, 3\) to agree with values, got \(2, 1\)"),
    (2, np.zeros((1, 3)), {}, r"returns must have shape \(2, 3\) to agree with values, got \(1, 3\)"),
    (3, np.ones((2, 3)), {}, "mask must be boolean"),
    (3, np.ones((2, 2), dtype=bool), {}, r"mask must have shape \(2, 3\) to agree with values"),
]


@pytest.mark.parametrize(("place", "wrong", "options", "message"), BAD)
def test_bad_arguments(place: int | None, wrong: Any, options: dict[str, Any], message: str) -> None:
    arguments = [wrong if k == place else x for k, x in enumerate(BATCH)]
    with pytest.raises(ValueError, match=message):
        reference.value_loss(*arguments, **options)
    with pytest.raises(ValueError, match=message):
        reference.value_loss_gradient(1.0, *arguments, **options)
    with pytest.raises(ValueError, match=message):
        torch_impl.value_loss(*map(torch.tensor, arguments), **options)
