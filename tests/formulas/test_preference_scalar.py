"""The chapter `dpo`: answers of reference and torch_impl are those float64 may give; edges, errors, symbols.

Values and gradients on drawn inputs are held against a second definition in `test_second_definitions`.
"""

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from reference import preference
from reference.numbers import balls, dyadics, symbols
from reference.numbers.formats import FORMATS
from tests.examples import examples
from tests.numbers.enclosure import encloses
from torch_impl import preference as torch_impl

reference: Any = preference
"""As a module of anything: balls, dyadic rationals and symbols go where floats are declared."""

LOSSES: list[dict[str, Any]] = [
    {"loss_type": "sigmoid"},
    {"loss_type": "sigmoid", "label_smoothing": 0.25},
    {"loss_type": "sigmoid", "label_smoothing": 1.0},
    {"loss_type": "hinge"},
    {"loss_type": "ipo"},
]
FORM = FORMATS["float64"]
ROUNDING = balls.Rounding(FORM, 2.0)

logprob = st.one_of(
    st.sampled_from([0.0, -0.5, -1.0, -2.0, -30.0, -1000.0]), st.floats(-50.0, 0.0, allow_subnormal=False)
)
beta = st.sampled_from([0.5, 0.1, 1.0, 0.01, 8.0])
batches = st.lists(st.tuples(logprob, logprob, logprob, logprob), min_size=1, max_size=5)


def columns(batch: Any) -> list[Any]:
    """The four arguments of `dpo_loss`."""
    return list(np.array(batch, dtype=np.float64).T)


def rounded(x: Any) -> Any:
    """Balls of what float64 may make of these numbers."""
    return balls.array(x, ROUNDING, 2 * FORM.unit_roundoff)


def assert_all_enclosed(enclosures: Any, values: Any) -> None:
    enclosures, values = np.atleast_1d(enclosures), np.atleast_1d(values)
    assert enclosures.shape == values.shape
    for ball, value in zip(enclosures.flat, values.flat, strict=True):
        assert encloses(ball, float(value) if isinstance(value, np.floating) else value)


@st.composite
def rows(draw: Any) -> tuple[Any, Any]:
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 5)))
    size = shape[0] * shape[1]
    logprobs = draw(st.lists(logprob, min_size=size, max_size=size))
    mask = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return np.array(logprobs).reshape(shape), np.array(mask).reshape(shape)


@examples(60)
@given(rows(), st.booleans())
def test_sequence_logprobs(batch: tuple[Any, Any], average: bool) -> None:
    logprobs, mask = batch
    allowed = reference.sequence_logprobs(rounded(logprobs), mask, average=average)
    hidden = np.where(mask, logprobs, np.nan)
    x = torch.tensor(hidden, requires_grad=True)
    got = torch_impl.sequence_logprobs(x, torch.tensor(mask), average=average)
    assert_all_enclosed(allowed, reference.sequence_logprobs(hidden, mask, average=average))
    assert_all_enclosed(allowed, got.detach().numpy())
    upstream = np.linspace(-1.5, 2.0, len(logprobs))
    (gradient,) = torch.autograd.grad(got, x, torch.tensor(upstream))
    allowed = reference.sequence_logprobs_gradient(
        rounded(upstream), rounded(logprobs), mask, average=average
    )
    assert_all_enclosed(allowed, gradient.numpy())


@examples(30)
@given(st.lists(st.tuples(logprob, logprob), min_size=1, max_size=4), beta)
def test_implicit_rewards(batch: Any, beta: float) -> None:
    policy, ref = np.array(batch).T
    allowed = reference.implicit_rewards(rounded(policy), rounded(ref), beta=rounded(beta))
    x, constant = torch.tensor(policy, requires_grad=True), torch.tensor(ref, requires_grad=True)
    got = torch_impl.implicit_rewards(x, constant, beta=beta)
    assert_all_enclosed(allowed, got.detach().numpy())
    assert_all_enclosed(allowed, reference.implicit_rewards(policy, ref, beta=beta))
    upstream = np.linspace(-1.5, 2.0, len(policy))
    gradients: Any = torch.autograd.grad(got, (x, constant), torch.tensor(upstream), allow_unused=True)
    assert gradients[1] is None
    allowed = reference.implicit_rewards_gradient(
        rounded(upstream), rounded(policy), rounded(ref), beta=rounded(beta)
    )
    assert_all_enclosed(allowed, gradients[0].numpy())


@pytest.mark.parametrize("options", LOSSES)
@examples(30)
@given(batches, beta)
def test_dpo_loss_in_float64(options: dict[str, Any], batch: Any, beta: float) -> None:
    arguments, upstream = columns(batch), -1.25
    widened = [rounded(x) for x in arguments]
    allowed = reference.dpo_loss(*widened, beta=rounded(beta), **options)
    assert_all_enclosed(allowed, reference.dpo_loss(*arguments, beta=beta, **options))
    leaves = [torch.tensor(x, requires_grad=True) for x in arguments]
    got = torch_impl.dpo_loss(*leaves, beta=beta, **options)
    assert_all_enclosed(allowed, got.detach().numpy())
    gradients: Any = torch.autograd.grad(got * upstream, leaves, allow_unused=True)
    assert gradients[2:] == (None, None)
    permitted = reference.dpo_loss_gradient(rounded(upstream), *widened, beta=rounded(beta), **options)
    exact = reference.dpo_loss_gradient(upstream, *arguments, beta=beta, **options)
    for ball, gradient, own in zip(permitted, gradients[:2], exact, strict=True):
        assert_all_enclosed(ball, gradient.numpy())
        assert_all_enclosed(ball, own)


def test_exact_where_nothing_rounds() -> None:
    ones = [np.frompyfunc(dyadics.number, 1, 1)(np.array(x)) for x in ([-1.0], [-4.0], [-2.0], [-3.0])]
    beta = dyadics.number(0.25)
    assert reference.dpo_loss(*ones, beta=beta, loss_type="hinge").value == 0.5
    assert reference.dpo_loss(*ones, beta=beta, loss_type="ipo").value == 0
    assert reference.dpo_loss(*ones, beta=beta).value is None
    chosen, rejected = reference.dpo_loss_gradient(dyadics.number(1.0), *ones, beta=beta, loss_type="hinge")
    assert (chosen[0].value, rejected[0].value) == (-0.25, 0.25)
    at_corner = reference.dpo_loss_gradient(
        dyadics.number(1.0), *ones, beta=dyadics.number(0.5), loss_type="hinge"
    )
    assert at_corner[0][0].value is None


def test_symbols_run() -> None:
    tokens, mask = symbols.array("t", (1, 2)), np.ones((1, 2), dtype=bool)
    assert reference.sequence_logprobs(tokens, mask)[0] == sum(tokens[0])
    assert reference.sequence_logprobs(tokens, mask, average=True)[0] == sum(tokens[0]) / 2
    pair = [symbols.array(name, (2,)) for name in "abcd"]
    for options in LOSSES:
        assert reference.dpo_loss(*pair, beta=0.5, **options).free_symbols


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    arguments = [
        torch.tensor(x, dtype=dtype) for x in ([-1.0, -700.0], [-3.0, -2.0], [-2.0, -1.0], [-2.0, -2.5])
    ]
    for options in LOSSES:
        got = torch_impl.dpo_loss(*arguments, beta=0.1, **options)
        wide = torch_impl.dpo_loss(*(x.float() for x in arguments), beta=0.1, **options)
        assert got.dtype == dtype
        assert torch.equal(got, wide.to(dtype))
    assert torch_impl.sequence_logprobs(arguments[0][None], torch.ones(1, 2, dtype=torch.bool)).dtype == dtype
    assert torch_impl.implicit_rewards(*arguments[:2], beta=0.1).dtype == dtype


def test_extreme_margins_are_finite() -> None:
    for margin in (1e3, -1e3, 1e4, -1e4):
        chosen = torch.tensor([margin], requires_grad=True)
        zero = torch.zeros(1)
        for options in LOSSES:
            loss = torch_impl.dpo_loss(chosen, zero, zero, zero, beta=1.0, **options)
            (gradient,) = torch.autograd.grad(loss, chosen)
            assert torch.isfinite(loss)
            assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("formula", [reference.optimal_policy, reference.log_partition])
def test_a_response_without_a_chance_is_none(formula: Any) -> None:
    with pytest.raises(ValueError, match=r"^ref must be probabilities above 0, got 0\.0$"):
        formula([0.0, 1.0], [1000.0, 0.0], beta=0.5)


@pytest.mark.parametrize("best", [0, 1])
def test_large_rewards_do_not_overflow(best: int) -> None:
    rewards = np.where(np.arange(2) == best, 1000.0, 0.0)
    assert np.array_equal(reference.optimal_policy([0.5, 0.5], rewards, beta=0.5), [best == 0, best == 1])
    assert reference.log_partition([0.25, 0.75], [1000.0, 1000.0], beta=0.5) == 2000.0
    assert reference.log_partition([1.0], [-1000.0], beta=0.5) == -2000.0
    policy = reference.optimal_policy([0.25, 0.75], [math.log(9.0), 0.0], beta=1.0)
    assert np.array_equal(np.round(policy, 12), [0.75, 0.25])


def test_nothing_has_the_mean_zero() -> None:
    empty = np.zeros(0)
    assert reference.dpo_loss(empty, empty, empty, empty, beta=1.0) == 0.0
    nothing = torch.zeros(0)
    assert torch_impl.dpo_loss(nothing, nothing, nothing, nothing, beta=1.0).item() == 0.0


BAD_LOSSES: list[tuple[dict[str, Any], str]] = [
    ({"beta": 0.0}, "beta"),
    ({"beta": float("nan")}, "beta"),
    ({"beta": "1"}, "beta"),
    ({"label_smoothing": 1.5}, "label_smoothing"),
    ({"label_smoothing": -0.1}, "label_smoothing"),
    ({"loss_type": "robust"}, "loss_type"),
    ({"loss_type": "hinge", "label_smoothing": 0.1}, "label_smoothing"),
]


@pytest.mark.parametrize(("options", "named"), BAD_LOSSES)
def test_bad_options_are_named(options: dict[str, Any], named: str) -> None:
    options = {"beta": 1.0} | options
    with pytest.raises(ValueError, match=named):
        reference.dpo_loss([0.0], [0.0], [0.0], [0.0], **options)
    with pytest.raises(ValueError, match=named):
        torch_impl.dpo_loss(*[torch.zeros(1)] * 4, **options)


def test_bad_arrays_are_named() -> None:
    one, two = np.zeros(1), np.zeros(2)
    for implementation, convert in ((reference, np.asarray), (torch_impl, torch.tensor)):
        with pytest.raises(ValueError, match="ref_chosen must have shape"):
            implementation.dpo_loss(*map(convert, (one, one, two, one)), beta=1.0)
        with pytest.raises(ValueError, match="ref_logprobs must have shape"):
            implementation.implicit_rewards(convert(one), convert(two), beta=1.0)
        with pytest.raises(ValueError, match="beta"):
            implementation.implicit_rewards(convert(one), convert(one), beta=-1.0)
        with pytest.raises(ValueError, match="mask must be boolean"):
            implementation.sequence_logprobs(convert(np.zeros((1, 2))), convert(np.ones((1, 2))))
        with pytest.raises(ValueError, match="average"):
            implementation.sequence_logprobs(
                convert(np.zeros((1, 2))), convert(np.ones((1, 2), dtype=bool)), average=1
            )
