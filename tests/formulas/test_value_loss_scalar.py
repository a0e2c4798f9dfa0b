"""The chapter `vf` a second time: scalar loops from the text, held against the reference and torch_impl.

The loops compute with fractions; the reference on balls has to enclose what they give, and the results of
the reference and of torch_impl in float64 have to be answers that float64 may give.
"""

from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given

from reference import value_loss
from reference.numbers import balls, dyadics, symbols
from reference.numbers.formats import FORMATS
from tests.examples import examples
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


def scalar_token(v: Fraction, old: Fraction, target: Fraction, clip: float | None) -> Any:
    """One token's loss, and the two ends of what its gradient may be."""
    plain = abs(v - target)
    if clip is None:
        return plain**2 / 2, v - target, v - target
    bound = Fraction(clip)
    moved = min(max(v, old - bound), old + bound)
    clipped = abs(moved - target)
    largest = max(plain, clipped)
    distance, at_a_tie = abs(v - old), plain == clipped
    if distance > bound and clipped > plain:
        return largest**2 / 2, Fraction(0), Fraction(0)
    if distance == bound or (distance > bound and at_a_tie):
        return largest**2 / 2, Fraction(0), v - target
    return largest**2 / 2, v - target, v - target


def scalar_divisor(lengths: list[int], row: int, width: int, options: dict[str, Any]) -> Fraction:
    """What a token of this row is divided by."""
    rows = len(lengths) if options["empty_rows"] == "count" else sum(n > 0 for n in lengths)
    match options["aggregation"]:
        case "token-mean":
            return Fraction(sum(lengths))
        case "seq-mean-token-sum":
            return Fraction(rows)
        case "seq-mean-token-mean":
            return Fraction(rows * lengths[row])
        case _:
            return rows * Fraction(options["horizon"] or width)


def scalar_value_loss(arrays: Any, mask: Any, options: dict[str, Any]) -> tuple[Fraction, Any]:
    """The loss, and for each active token the two ends of its gradient."""
    rows, width = mask.shape
    lengths, loss, slopes = [sum(map(bool, row)) for row in mask], Fraction(0), {}
    for i in range(rows):
        for t in range(width):
            if mask[i, t]:
                v, old, target = (Fraction(float(x[i, t])) for x in arrays)
                half, *both = scalar_token(v, old, target, options["clip"])
                divisor = scalar_divisor(lengths, i, width, options)
                loss += half / divisor
                slopes[i, t] = [x / divisor for x in both]
    return loss, slopes


def rounded(x: Any) -> Any:
    """Balls of what float64 may make of these numbers."""
    return balls.array(x, ROUNDING, 2 * FORM.unit_roundoff)


def hidden(arrays: Any, mask: Any) -> list[Any]:
    """The same batch with NaN under the mask."""
    return [np.where(mask, x, np.nan) for x in arrays]


@examples(150)
@given(batches(), settings)
def test_certified_loss_and_gradient_hold_the_definition(batch: Any, options: dict[str, Any]) -> None:
    arrays, mask = batch
    exact = [balls.array(x) for x in arrays]
    loss, slopes = scalar_value_loss(arrays, mask, options)
    assert encloses(reference.value_loss(*exact, mask, **options), loss)
    gradient = reference.value_loss_gradient(balls.array(1.0), *exact, mask, **options)
    for index in np.ndindex(mask.shape):
        for end in slopes.get(index, [Fraction(0)]):
            assert encloses(gradient[index], end)


@examples(60)
@given(batches(), settings)
def test_certified_gradient_is_no_wider_than_the_definition(batch: Any, options: dict[str, Any]) -> None:
    arrays, mask = batch
    _, slopes = scalar_value_loss(arrays, mask, options)
    gradient = reference.value_loss_gradient(
        balls.array(1.0), *(balls.array(x) for x in arrays), mask, **options
    )
    for index, claimed in slopes.items():
        low, high = ends(gradient[index])
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
@given(batches(), settings)
def test_dyadic_results_are_exact_or_lost(batch: Any, options: dict[str, Any]) -> None:
    arrays, mask = batch
    dyadic = [np.frompyfunc(dyadics.number, 1, 1)(x) for x in arrays]
    loss, slopes = scalar_value_loss(arrays, mask, options)
    assert reference.value_loss(*dyadic, mask, **options).value in (None, loss)
    gradient = reference.value_loss_gradient(dyadics.number(1), *dyadic, mask, **options)
    for index, (left, right) in slopes.items():
        assert gradient[index].value in (None, left)
        if left != right:
            assert gradient[index].value is None


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
