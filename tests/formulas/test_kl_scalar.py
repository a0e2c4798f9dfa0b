"""The chapter `kl`: answers of reference and torch_impl are those a dtype may give; edges, errors, symbols.

Values and gradients on drawn inputs are held against a second definition in `test_second_definitions`.
"""

from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given

from reference import kl
from reference.numbers import balls, dyadics, symbols
from reference.numbers.formats import FORMATS, Format
from tests.examples import examples
from tests.formulas import scalar_kl as scalar
from tests.numbers.enclosure import DIGITS, encloses, is_bounded
from torch_impl import kl as in_torch

reference: Any = kl
"""As a module of anything: balls, dyadic rationals and symbols go where floats are declared."""

torch_impl: Any = in_torch

ESTIMATORS = ("k1", "k2", "k3", "abs")
FLOAT64 = FORMATS["float64"]

logprob = st.one_of(
    st.sampled_from([0.0, -1.0, -0.5, -2.0, -20.0, -1e-3, -1e-6, -2.6, -12.6, -300.0]),
    st.floats(-30.0, 0.0, allow_subnormal=False),
)
clamp = st.sampled_from([None, 1.0, 0.5, 2.0, 10.0, 20.0])
logit = st.one_of(
    st.sampled_from([0.0, 1.0, -np.inf, -2.0, 10.0, 0.1]), st.floats(-20.0, 20.0, allow_subnormal=False)
)
positive = st.sampled_from([1.0, 2.0, 3.0, 0.1, 0.02, 6.0, 1e-3])


@st.composite
def batches(draw: Any) -> tuple[Any, Any]:
    """Log-probabilities of a few tokens, of both policies."""
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 4)))
    size = shape[0] * shape[1]
    arrays = [np.reshape(draw(st.lists(logprob, min_size=size, max_size=size)), shape) for _ in range(2)]
    return arrays[0], arrays[1]


@st.composite
def logits(draw: Any) -> tuple[Any, Any]:
    """Logits of both policies, at least one of each position finite: the policy's first, the other's last."""
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 4)))
    size = shape[0] * shape[1] * shape[2]
    arrays = [np.reshape(draw(st.lists(logit, min_size=size, max_size=size)), shape) for _ in range(2)]
    for x, sure in zip(arrays, (0, -1), strict=True):
        x[..., sure] = np.where(np.isinf(x[..., sure]), 0.5, x[..., sure])
    return arrays[0], arrays[1]


def rounded(x: Any, form: Format = FLOAT64) -> Any:
    """Balls of what a format may make of these numbers."""
    return balls.array(x, balls.Rounding(form, 2.0), 2 * form.unit_roundoff)


def assert_all_enclosed(enclosures: Any, values: Any) -> None:
    enclosures, values = np.atleast_1d(enclosures), np.atleast_1d(values)
    assert enclosures.shape == values.shape
    for ball, value in zip(enclosures.flat, values.flat, strict=True):
        assert encloses(ball, float(value) if isinstance(value, np.floating) else value)


def assert_all_permitted(allowed: Any, values: Any, form: Format = FLOAT64) -> None:
    """Enclosed, or infinite where the ball passes the largest number; an unbounded ball decides nothing."""
    values = np.asarray(values, dtype=np.float64)
    assert allowed.shape == values.shape
    for ball, value in zip(allowed.flat, values.flat, strict=True):
        if np.isinf(value) and is_bounded(ball):
            assert (ball.value.upper() if value > 0 else -ball.value.lower()) >= form.largest
        elif is_bounded(ball):
            assert encloses(ball, float(value))


def upstream_of(shape: tuple[int, ...]) -> Any:
    return np.linspace(-1.5, 2.0, int(np.prod(shape))).reshape(shape)


firsts, seconds = (np.frompyfunc(lambda pair, k=k: pair[k], 1, 1) for k in (0, 1))


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@examples(25)
@given(batches(), clamp, clamp)
def test_estimate_in_its_dtype(
    estimator: str, dtype: str, batch: tuple[Any, Any], clip: float | None, bound: float | None
) -> None:
    form = FORMATS[dtype]
    x, y = (form.round(array) for array in batch)
    upstream = form.round(upstream_of(x.shape))
    bounds = {"log_ratio_clip": clip, "value_clip": bound}
    widened = {name: None if b is None else rounded(b, form) for name, b in bounds.items()}
    allowed = reference.kl_estimate(rounded(x, form), rounded(y, form), estimator=estimator, **widened)
    slopes = reference.kl_estimate_gradient(
        *(rounded(array, form) for array in (upstream, x, y)), estimator=estimator, **widened
    )
    live, constant = (torch.tensor(array, dtype=getattr(torch, dtype)).requires_grad_() for array in (x, y))
    got = torch_impl.kl_estimate(live, constant, estimator=estimator, **bounds)
    assert got.dtype == live.dtype
    assert_all_permitted(allowed, got.detach().double().numpy(), form)
    gradients: Any = torch.autograd.grad(
        got, (live, constant), torch.tensor(upstream, dtype=got.dtype), allow_unused=True
    )
    assert gradients[1] is None
    assert_all_permitted(slopes, gradients[0].double().numpy(), form)
    if form is FLOAT64:
        assert_all_permitted(allowed, reference.kl_estimate(x, y, estimator=estimator, **bounds))
        own = reference.kl_estimate_gradient(upstream, x, y, estimator=estimator, **bounds)
        assert_all_permitted(slopes, own)


@pytest.mark.parametrize("bounds", [{"log_ratio_clip": 20.0}, {"value_clip": 10.0}])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_beyond_a_clamp_nothing_overflows(estimator: str, bounds: dict[str, float]) -> None:
    x, y, upstream = np.array([[-1e4, 0.0]]), np.array([[0.0, -1e4]]), np.array([[3.0, 0.0]])
    assert (reference.kl_estimate_gradient(upstream, x, y, estimator=estimator, **bounds) == 0).all()
    live = torch.tensor(x, requires_grad=True)
    got = torch_impl.kl_estimate(live, torch.tensor(y), estimator=estimator, **bounds)
    assert_all_permitted(
        reference.kl_estimate(rounded(x), rounded(y), estimator=estimator, **bounds), got.detach().numpy()
    )
    (gradient,) = torch.autograd.grad(got, live, torch.tensor(upstream))
    assert (gradient == 0).all()


def test_no_gradient_without_upstream_though_k3_overflows() -> None:
    live = torch.tensor([[-1e4, -1.0]], requires_grad=True)
    got = torch_impl.kl_estimate(live, torch.zeros(1, 2), estimator="k3")
    (gradient,) = torch.autograd.grad(torch.where(torch.tensor([[False, True]]), got, 0.0).sum(), live)
    assert gradient[0, 0] == 0


@examples(40)
@given(st.lists(st.one_of(st.floats(-5.0, -1e-9), st.floats(1e-9, 5.0)), min_size=1, max_size=4))
def test_k3_by_expm1(log_ratios: list[float]) -> None:
    with mpmath.workdps(DIGITS):
        expected = [scalar.estimate(Fraction(x), "k3").value for x in log_ratios]
        assert_all_enclosed(reference.k3_by_expm1(balls.array(log_ratios)), np.array(expected, dtype=object))


@examples(60)
@given(logits())
def test_divergence(batch: tuple[Any, Any]) -> None:
    widened, form = [rounded(x) for x in batch], FLOAT64
    upstream = upstream_of(batch[0].shape[:2])
    got, gradient = divergence_in_torch(batch, upstream, "float64")
    own = reference.kl_divergence(*batch)
    allowed = reference.kl_divergence(*widened)
    permitted = reference.kl_divergence_gradient(rounded(upstream), *widened)
    for index in np.ndindex(upstream.shape):
        if (np.isinf(batch[1][index]) & np.isfinite(batch[0][index])).any():
            assert own[index] == got[index] == np.inf
            continue
        assert_all_permitted(np.array(allowed[index]), own[index], form)
        assert_all_permitted(np.array(allowed[index]), got[index], form)
        assert_all_permitted(permitted[index], gradient[index], form)
        assert (gradient[index][np.isinf(batch[0][index])] == 0).all()


@pytest.mark.parametrize("dtype", FORMATS)
@examples(20)
@given(logits())
def test_divergence_in_its_dtype(dtype: str, batch: tuple[Any, Any]) -> None:
    form = FORMATS[dtype]
    x, y = (form.round(array) for array in batch)
    upstream = form.round(upstream_of(x.shape[:2]))
    got, gradient = divergence_in_torch((x, y), upstream, dtype)
    widened = [rounded(array, form) for array in (upstream, x, y)]
    assert_all_permitted(reference.kl_divergence(*widened[1:]), got, form)
    assert_all_permitted(reference.kl_divergence_gradient(*widened), gradient, form)
    assert not np.isnan(gradient).any()


def divergence_in_torch(batch: tuple[Any, Any], upstream: Any, dtype: str) -> tuple[Any, Any]:
    """Value and gradient by torch_impl, as float64 arrays; the reference policy gets no gradient."""
    live, constant = (torch.tensor(x, dtype=getattr(torch, dtype)).requires_grad_() for x in batch)
    got = torch_impl.kl_divergence(live, constant)
    assert got.dtype == live.dtype
    gradients: Any = torch.autograd.grad(
        got, (live, constant), torch.tensor(upstream, dtype=got.dtype), allow_unused=True
    )
    assert gradients[1] is None
    return got.detach().double().numpy(), gradients[0].double().numpy()


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("spread", [1.0, 1e3, 1e4])
def test_divergence_of_extreme_logits(spread: float, offset: float) -> None:
    x = np.array([[[0.0, 1.0, -1.0], [1.0, 1.0, 0.5]]]) * spread + offset
    y = np.array([[[0.5, 0.25, 1.0], [1.0, 1.0, 0.5]]]) * spread - offset
    got, gradient = divergence_in_torch((x, y), np.ones((1, 2)), "float64")
    with mpmath.workdps(DIGITS):
        expected = np.array(
            [scalar.divergence(*(list(map(Fraction, z[0, t])) for z in (x, y))).value for t in (0, 1)],
            dtype=object,
        )
        assert_all_enclosed(reference.kl_divergence(balls.array(x), balls.array(y))[0], expected)
    assert_all_permitted(reference.kl_divergence(rounded(x), rounded(y)), got)
    permitted = reference.kl_divergence_gradient(rounded(np.ones((1, 2))), rounded(x), rounded(y))
    assert_all_permitted(permitted, gradient)


def test_a_probability_that_underflows_adds_nothing() -> None:
    """exp(-800) is 0 in float64, so that what the other policy excludes is as if excluded by both."""
    x, y = np.array([[[0.0, -800.0]]]), np.array([[[0.0, -np.inf]]])
    assert reference.kl_divergence(x, y)[0, 0] == 0.0
    assert torch_impl.kl_divergence(torch.from_numpy(x), torch.from_numpy(y))[0, 0] == 0.0


@examples(150)
@given(positive, st.one_of(positive, st.sampled_from([0.0, -1.0])), positive, positive, st.integers(0, 20))
def test_coefficients(coef: float, kl: float, target: float, horizon: float, n_steps: int) -> None:
    shared = {"coef": coef, "kl": kl, "target": target}
    for name, options in (
        ("adaptive_kl_coef", shared),
        ("proportional_kl_coef", shared | {"horizon": horizon, "n_steps": n_steps}),
    ):
        allowed = getattr(reference, name)(**{k: rounded(float(x)) for k, x in options.items()})
        for implementation in (reference, torch_impl):
            got = getattr(implementation, name)(**options)
            assert type(got) is float
            assert encloses(allowed, got)


@pytest.mark.parametrize(("kl", "factor"), [(2.0, 1.0), (4.5, 1.0), (1.9375, 0.5), (4.625, 2.0), (-1.0, 0.5)])
def test_bounds_of_the_target_keep_the_coefficient(kl: float, factor: float) -> None:
    for implementation in (reference, torch_impl):
        assert implementation.adaptive_kl_coef(coef=0.375, kl=kl, target=3.0) == 0.375 * factor
    exact = {"coef": dyadics.number(0.375), "kl": dyadics.number(kl), "target": dyadics.number(3.0)}
    assert reference.adaptive_kl_coef(**exact).value == Fraction(0.375 * factor)


def test_exact_where_nothing_rounds() -> None:
    x, y = (np.frompyfunc(dyadics.number, 1, 1)(np.array([[*values]])) for values in ([-1, -4.0], [-1, -2.0]))
    values = {name: reference.kl_estimate(x, y, estimator=name)[0] for name in ESTIMATORS}
    assert [[token.value for token in values[name]] for name in ("k1", "k2", "abs")] == [
        [0, -2],
        [0, 2],
        [0, 2],
    ]
    assert [token.value for token in values["k3"]] == [0, None]
    slopes = {name: reference.kl_estimate_gradient(x, x, y, estimator=name)[0] for name in ESTIMATORS}
    assert [[token.value for token in slopes[name]] for name in ("k1", "k2", "abs")] == [
        [-1, -4],
        [0, 8],
        [None, 4],
    ]
    clipped = reference.kl_estimate_gradient(x, x, y, value_clip=dyadics.number(1.0))[0]
    assert [token.value for token in clipped] == [-1, 0]


def test_estimates_are_mapped() -> None:
    logprobs, ref_logprobs = torch.tensor([[[-1.0, -2.0]], [[-3.0, -0.5]]]), torch.tensor([[-2.0, -1.5]])
    for name in ESTIMATORS:

        def estimate(x: torch.Tensor, name: str = name) -> torch.Tensor:
            found: torch.Tensor = torch_impl.kl_estimate(x, ref_logprobs, estimator=name)
            return found

        assert torch.equal(torch.func.vmap(estimate)(logprobs), torch.stack([estimate(x) for x in logprobs]))


def test_symbols_run() -> None:
    x, y, upstream = (symbols.array(name, (1, 2)) for name in ("x", "y", "u"))
    for name in ESTIMATORS:
        estimates = reference.kl_estimate(x, y, estimator=name, log_ratio_clip=2, value_clip=1)
        assert all(estimate.free_symbols for estimate in estimates.flat)
        assert reference.kl_estimate_gradient(upstream, x, y, estimator=name)[0, 0].free_symbols
    z, w = (symbols.array(name, (1, 1, 2)) for name in ("z", "w"))
    assert len(reference.kl_divergence(z, w)[0, 0].free_symbols) == 4
    assert reference.kl_divergence_gradient(upstream[:, :1], z, w)[0, 0, 1].free_symbols


CONTROLLER: dict[str, Any] = {"coef": 0.1, "kl": 0.5, "target": 1.0}
BAD: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("estimator", "kl_estimate", ((1, 2), (1, 2)), {"estimator": "k4"}),
    ("log_ratio_clip", "kl_estimate", ((1, 2), (1, 2)), {"log_ratio_clip": 0.0}),
    ("value_clip", "kl_estimate", ((1, 2), (1, 2)), {"value_clip": -1.0}),
    ("value_clip", "kl_estimate", ((1, 2), (1, 2)), {"value_clip": float("nan")}),
    ("logprobs", "kl_estimate", ((2,), (2,)), {}),
    ("ref_logprobs", "kl_estimate", ((1, 2), (2, 1)), {}),
    ("ref_logprobs", "kl_estimate", ((2, 2), (1, 2)), {}),
    ("logits", "kl_divergence", ((1, 2), (1, 2)), {}),
    ("ref_logits", "kl_divergence", ((1, 2, 3), (1, 2, 2)), {}),
    ("coef", "adaptive_kl_coef", (), CONTROLLER | {"coef": -0.1}),
    ("kl", "adaptive_kl_coef", (), CONTROLLER | {"kl": float("inf")}),
    ("target", "adaptive_kl_coef", (), CONTROLLER | {"target": 0.0}),
    ("target", "proportional_kl_coef", (), CONTROLLER | {"target": -1.0, "horizon": 10, "n_steps": 1}),
    ("horizon", "proportional_kl_coef", (), CONTROLLER | {"horizon": 0, "n_steps": 1}),
    ("n_steps", "proportional_kl_coef", (), CONTROLLER | {"horizon": 10, "n_steps": -1}),
]


@pytest.mark.parametrize(("name", "operation", "shapes", "options"), BAD)
def test_bad_arguments(name: str, operation: str, shapes: tuple[Any, ...], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{name} must"):
        getattr(reference, operation)(*map(np.zeros, shapes), **options)
    with pytest.raises(ValueError, match=f"^{name} must"):
        getattr(torch_impl, operation)(*map(torch.zeros, shapes), **options)
