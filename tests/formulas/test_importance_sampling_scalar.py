"""The chapter `is`: answers of reference and torch_impl are those float64 may give; edges, errors, symbols.

Values and gradients on drawn inputs are held against a second definition in `test_second_definitions`.
"""

from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from mpmath import mpf

from reference import importance_sampling
from reference.numbers import balls, dyadics, symbols
from reference.numbers.formats import FORMATS
from tests.examples import examples
from tests.formulas import scalar_importance_sampling as scalar
from tests.numbers.enclosure import DIGITS, encloses, ends
from torch_impl import importance_sampling as in_torch

reference: Any = importance_sampling
"""As a module of anything: balls, dyadic rationals and symbols go where floats are declared."""

torch_impl: Any = in_torch

FORM = FORMATS["float64"]
ROUNDING = balls.Rounding(FORM, 2.0)
INFINITY, NAN = float("inf"), float("nan")

logprob = st.one_of(
    st.sampled_from([0.0, -1.0, -0.5, -2.0, -20.0, -21.0, -0.6931471805599453, -700.0, -1e4]),
    st.floats(-30.0, 0.0).map(lambda x: round(x, 6)),
)
clip = st.sampled_from([20.0, None, 0.5, 1.0, 300.0])
cap = st.sampled_from([2.0, 1.0, 0.5, 5.0, 1e-3])
factor = st.sampled_from([1.0, -1.0, 0.3, -2.5, 0.0])
log_weight = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, 3.0, -INFINITY, -20.0]),
    st.floats(-5.0, 5.0).map(lambda x: round(x, 6)),
)


@st.composite
def batches(draw: Any) -> tuple[Any, Any, Any]:
    """Two arrays of log-probabilities and a mask."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    size = shape[0] * shape[1]
    first, second = (np.array(draw(st.lists(logprob, min_size=size, max_size=size))) for _ in range(2))
    second = np.where(draw(st.booleans()), first, second)
    mask = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return first.reshape(shape), second.reshape(shape), np.array(mask).reshape(shape)


@st.composite
def samples(draw: Any) -> tuple[Any, Any]:
    """Values and log-weights, one of them finite, moved together by a constant."""
    count = draw(st.integers(1, 6))
    values = draw(st.lists(st.floats(-10.0, 10.0).map(lambda x: round(x, 4)), min_size=count, max_size=count))
    logs = draw(st.lists(log_weight, min_size=count, max_size=count))
    logs[draw(st.integers(0, count - 1))] = 0.25
    return np.array(values), np.array(logs)


def difference(x: Any, y: Any) -> Any:
    """The exact difference of two floats."""
    return mpf(float(x)) - mpf(float(y))


def exactly(x: Any) -> list[Any]:
    """Rationals, and infinities as they are."""
    return [Fraction(number) if np.isfinite(number) else float(number) for number in x]


def rounded(x: Any) -> Any:
    """Balls of what float64 may make of these numbers."""
    return balls.array(x, ROUNDING, 2 * FORM.unit_roundoff)


def allows(ball: Any, got: float) -> bool:
    """Whether float64 may answer so: infinity is an answer where the ball passes the largest number."""
    return encloses(ball, got) if np.isfinite(got) else bool(got > 0 and ball.value.upper() >= FORM.largest)


def each(*arrays: Any) -> list[Any]:
    """The indices of the first array, each with what all of them hold there."""
    return [(index, *(x[index] for x in arrays)) for index in np.ndindex(arrays[0].shape)]


@examples(100)
@given(batches(), clip, factor)
def test_ratio_in_float64(batch: Any, bound: Any, upstream: float) -> None:
    new, old, _ = batch
    wide = [rounded(x) for x in (new, old)]
    allowed = reference.importance_ratio(*wide, log_ratio_clip=bound)
    ups = np.full(new.shape, upstream)
    slopes = reference.importance_ratio_gradient(rounded(ups), *wide, log_ratio_clip=bound)
    x, y = (torch.tensor(z, requires_grad=True) for z in (new, old))
    result = torch_impl.importance_ratio(x, y, log_ratio_clip=bound)
    gradient: Any = torch.autograd.grad(result, (x, y), torch.tensor(ups), allow_unused=True)
    assert gradient[1] is None
    own = reference.importance_ratio(new, old, log_ratio_clip=bound)
    for index, ball, got, mine in each(allowed, result.detach().numpy(), own):
        assert allows(ball, float(got)), index
        assert allows(ball, float(mine)), index
        if np.isfinite(mine):
            assert encloses(slopes[index], gradient[0][index].item())
    if np.isfinite(own).all():
        for _, ball, mine in each(
            slopes, reference.importance_ratio_gradient(ups, new, old, log_ratio_clip=bound)
        ):
            assert encloses(ball, float(mine))


@examples(150)
@given(batches())
def test_trajectory_ratio_is_the_exponential_of_the_sum(batch: Any) -> None:
    new, old, mask = batch
    whole = reference.trajectory_importance_ratio(*(balls.array(x) for x in (new, old)), mask)
    with mpmath.workdps(DIGITS):
        for row, active in enumerate(mask):
            steps = [difference(x, y) for x, y in zip(new[row][active], old[row][active], strict=True)]
            assert encloses(whole[row], mpmath.exp(mpmath.fsum(steps)))


@examples(100)
@given(batches(), factor, st.sampled_from([NAN, INFINITY, -INFINITY]))
def test_sequence_ratio_in_float64(batch: Any, upstream: float, hidden: float) -> None:
    new, old, mask = batch
    wide = [rounded(x) for x in (new, old)]
    allowed = reference.sequence_importance_ratio(*wide, mask)
    ups = np.full(len(new), upstream)
    slopes = reference.sequence_importance_ratio_gradient(rounded(ups), *wide, mask)
    masked = [np.where(mask, z, hidden) for z in (new, old)]
    own = reference.sequence_importance_ratio(*masked, mask)
    x, y = (torch.tensor(z, requires_grad=True) for z in masked)
    result = torch_impl.sequence_importance_ratio(x, y, torch.tensor(mask))
    gradient: Any = torch.autograd.grad(result, (x, y), torch.tensor(ups), allow_unused=True)
    assert gradient[1] is None
    assert not gradient[0].numpy()[~mask].any()
    for row, ball in enumerate(allowed):
        assert allows(ball, float(own[row]))
        assert allows(ball, result[row].item())
        if np.isfinite(own[row]):
            for t in range(new.shape[1]):
                assert encloses(slopes[row, t], gradient[0][row, t].item())


@examples(150)
@given(batches(), cap, st.sampled_from(["truncate", "mask"]))
def test_truncated_weights(batch: Any, bound: float, mode: str) -> None:
    old, rollout, _ = batch
    wide = [rounded(x) for x in (old, rollout)]
    allowed = reference.truncated_importance_weights(*wide, cap=bound, mode=mode)
    own = reference.truncated_importance_weights(old, rollout, cap=bound, mode=mode)
    by_logarithms = reference.weights_truncated_by_logarithms(*wide, cap=bound, mode=mode)
    x, y = (torch.tensor(z, requires_grad=True) for z in (old, rollout))
    result = torch_impl.truncated_importance_weights(x, y, cap=bound, mode=mode)
    assert not result.requires_grad
    for index in np.ndindex(old.shape):
        assert encloses(allowed[index], float(own[index]))
        assert encloses(allowed[index], result[index].item())
        assert encloses(by_logarithms[index], float(own[index]))


@examples(150)
@given(samples(), st.booleans(), st.sampled_from([0.0, 0.0, 900.0, -900.0, 1e4]))
def test_estimates(sample: Any, self_normalized: bool, shift: float) -> None:
    values, logs = sample
    if self_normalized:
        logs = logs + shift
    exact, wide = ([convert(x) for x in (values, logs)] for convert in (balls.array, rounded))
    options = {"self_normalized": self_normalized}
    with mpmath.workdps(DIGITS):
        expected = scalar.importance_sampling_mean(
            exactly(values), exactly(logs), self_normalized=self_normalized
        ).value
        assert encloses(reference.importance_sampling_mean(*exact, **options), expected)
    allowed = reference.importance_sampling_mean(*wide, **options)
    assert encloses(allowed, reference.importance_sampling_mean(values, logs, **options))
    result = torch_impl.importance_sampling_mean(torch.tensor(values), torch.tensor(logs), **options)
    assert result.shape == ()
    assert encloses(allowed, result.item())


@examples(150)
@given(samples(), st.sampled_from([0.0, 0.0, 900.0, -900.0, 1e4]))
def test_effective_sample_size(sample: Any, shift: float) -> None:
    logs = sample[1] + shift
    with mpmath.workdps(DIGITS):
        expected = scalar.effective_sample_size(exactly(logs)).value
        assert encloses(reference.effective_sample_size(balls.array(logs)), expected)
    allowed = reference.effective_sample_size(rounded(logs))
    assert encloses(allowed, reference.effective_sample_size(logs))
    result = torch_impl.effective_sample_size(torch.tensor(logs))
    assert result.shape == ()
    assert encloses(allowed, result.item())


def test_closed_forms() -> None:
    with mpmath.workdps(DIGITS):
        for distance in (0.0, 0.5, 3.0):
            ball = reference.normal_weight_variance(balls.array(distance), sigma=balls.array(2.0))
            assert encloses(ball, mpmath.expm1((mpf(distance) / 2) ** 2))
    steps = [0.0, 0.25, 1.0, 3.0]
    exact = (Fraction(5, 4) * 2 * 4) - 1
    assert encloses(reference.trajectory_weight_variance(balls.array(steps)), exact)


@pytest.mark.parametrize(("mode", "beyond"), [("truncate", 2.0), ("mask", 0.0)])
def test_infinite_and_overflowing_weights(mode: str, beyond: float) -> None:
    old = np.array([[-1.0, -1.0, -INFINITY, 0.0]])
    rollout = np.array([[-INFINITY, -1e4, -1.0, -750.0]])
    expected = [[beyond, beyond, 0.0, beyond]]
    options = {"cap": 2.0, "mode": mode}
    assert reference.truncated_importance_weights(old, rollout, **options).tolist() == expected
    for convert in (balls.array, rounded):
        [got] = reference.truncated_importance_weights(convert(old), convert(rollout), **options)
        assert [ends(ball) for ball in got] == [(x, x) for x in expected[0]]
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        arguments = [torch.tensor(x, dtype=dtype) for x in (old, rollout)]
        assert torch_impl.truncated_importance_weights(*arguments, **options).tolist() == expected


@pytest.mark.parametrize(("bound", "lowest"), [(20.0, float(np.exp(-20.0))), (None, 0.0)])
def test_impossible_token(bound: float | None, lowest: float) -> None:
    new, old = np.array([[-INFINITY]]), np.array([[-1.0]])
    assert reference.importance_ratio(new, old, log_ratio_clip=bound) == lowest
    assert reference.importance_ratio_gradient(np.ones((1, 1)), new, old, log_ratio_clip=bound) == 0.0
    wide = reference.importance_ratio_gradient(rounded(np.ones((1, 1))), rounded(new), rounded(old))
    assert ends(wide[0, 0]) == (0, 0)
    x = torch.tensor(new, requires_grad=True)
    result = torch_impl.importance_ratio(x, torch.tensor(old), log_ratio_clip=bound)
    result.sum().backward()
    assert encloses(
        reference.importance_ratio(rounded(new), rounded(old), log_ratio_clip=bound)[0, 0], result.item()
    )
    assert x.grad is not None
    assert x.grad.item() == 0.0


def test_dyadic_results_are_exact_or_lost() -> None:
    dyadic = np.frompyfunc(dyadics.number, 1, 1)
    new, old = dyadic(np.array([[-1.5, -1.5]])), dyadic(np.array([[-1.5, -1.0]]))
    ups, mask = dyadic(np.array([[3.0, 3.0]])), np.array([[True, True]])
    assert [x.value for x in reference.importance_ratio(new, old)[0]] == [1, None]
    assert [x.value for x in reference.importance_ratio_gradient(ups, new, old)[0]] == [3, None]
    assert reference.sequence_importance_ratio(new, new, mask)[0].value == 1
    assert reference.sequence_importance_ratio(new, old, mask)[0].value is None
    slopes = reference.sequence_importance_ratio_gradient(ups[0, :1], new, new, mask)
    assert [x.value for x in slopes[0]] == [Fraction(3, 2)] * 2
    for limit, mode, expected in ((1.0, "mask", 1), (0.5, "mask", 0), (0.5, "truncate", Fraction(1, 2))):
        weights = reference.truncated_importance_weights(new, new, cap=dyadics.number(limit), mode=mode)
        assert weights[0, 0].value == expected
    values, logs = dyadic(np.array([1.0, 2.0, 3.0, 4.0])), dyadic(np.zeros(4))
    assert reference.importance_sampling_mean(values, logs).value == Fraction(5, 2)
    assert reference.importance_sampling_mean(values[:3], logs[:3]).value is None
    assert reference.importance_sampling_mean(values, logs, self_normalized=True).value is None
    assert reference.effective_sample_size(logs).value is None


def test_symbols_give_the_formula() -> None:
    new, old, f = (symbols.array(name, (1, 2)) for name in "xyf")
    mask = np.array([[True, False]])
    [sequence] = reference.sequence_importance_ratio(new, old, mask)
    assert sequence == sympy.exp(new[0, 0] - old[0, 0])
    assert reference.importance_ratio(new, old, log_ratio_clip=None)[0, 0] == sequence
    assert reference.importance_sampling_mean(f[0], old[0]).has(sympy.exp(old[0, 1]))
    assert reference.effective_sample_size(old[0, :1]) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    new, old = (-torch.rand((4, 64), generator=generator).to(dtype) for _ in range(2))
    mask = torch.rand((4, 64), generator=generator) < 0.7
    f = torch.randn(64, generator=generator).to(dtype)
    calls: list[tuple[Any, list[Any], dict[str, Any]]] = [
        (torch_impl.importance_ratio, [new, old], {}),
        (torch_impl.sequence_importance_ratio, [new, old, mask], {}),
        (torch_impl.truncated_importance_weights, [new, old], {"cap": 1.25, "mode": "mask"}),
        (torch_impl.importance_sampling_mean, [f, new[0]], {"self_normalized": True}),
        (torch_impl.importance_sampling_mean, [f, new[0]], {}),
        (torch_impl.effective_sample_size, [new[0]], {}),
    ]
    for operation, arguments, options in calls:
        got = operation(*arguments, **options)
        wide = operation(*(x if x.dtype == torch.bool else x.float() for x in arguments), **options)
        assert got.dtype == dtype
        assert torch.equal(got, wide.to(dtype))


PAIR = [np.zeros((2, 3)), np.zeros((2, 3))]
MASK = np.ones((2, 3), dtype=bool)
SAMPLE = [np.zeros(3), np.zeros(3)]
OTHER = np.zeros((2, 1))
BAD: list[tuple[str, list[Any], dict[str, Any], str]] = [
    ("importance_ratio", PAIR, {"log_ratio_clip": 0.0}, "log_ratio_clip must be .*0.0"),
    ("importance_ratio", PAIR, {"log_ratio_clip": INFINITY}, "log_ratio_clip must be .*inf"),
    ("importance_ratio", PAIR, {"log_ratio_clip": "20"}, "log_ratio_clip must be .*20"),
    (
        "importance_ratio",
        [np.zeros(3), np.zeros(3)],
        {},
        r"logprobs must have shape \(any, any\), got \(3,\)",
    ),
    (
        "importance_ratio",
        [PAIR[0], OTHER],
        {},
        r"old_logprobs must have shape \(2, 3\) to agree with logprobs",
    ),
    ("sequence_importance_ratio", [*PAIR, np.ones((2, 3))], {}, "mask must be boolean"),
    ("sequence_importance_ratio", [*PAIR, MASK[:, :1]], {}, r"mask must have shape \(2, 3\)"),
    ("sequence_importance_ratio", [PAIR[0], OTHER, MASK], {}, r"old_logprobs must have shape \(2, 3\)"),
    ("truncated_importance_weights", PAIR, {"cap": 0.0}, "cap must be .*0.0"),
    ("truncated_importance_weights", PAIR, {"cap": -2.0}, "cap must be .*-2.0"),
    ("truncated_importance_weights", PAIR, {"cap": 2.0, "mode": "drop"}, "mode must be one of .*'drop'"),
    (
        "truncated_importance_weights",
        [OTHER, PAIR[0]],
        {"cap": 2.0},
        r"rollout_logprobs must have shape \(2, 1\)",
    ),
    ("importance_sampling_mean", SAMPLE, {"self_normalized": 1}, "self_normalized must be True or False"),
    ("importance_sampling_mean", [np.zeros(2), np.zeros(3)], {}, r"f_values must have shape \(3\)"),
    ("importance_sampling_mean", [np.zeros(0), np.zeros(0)], {}, "log_weights must hold at least one sample"),
    ("effective_sample_size", [OTHER], {}, r"log_weights must have shape \(any\), got \(2, 1\)"),
    ("effective_sample_size", [np.zeros(0)], {}, "log_weights must hold at least one sample"),
]


@pytest.mark.parametrize(("operation", "arguments", "options", "message"), BAD)
def test_bad_arguments(operation: str, arguments: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(reference, operation)(*arguments, **options)
    with pytest.raises(ValueError, match=message):
        getattr(torch_impl, operation)(*map(torch.tensor, arguments), **options)


@pytest.mark.parametrize("gradient", ["importance_ratio_gradient", "sequence_importance_ratio_gradient"])
def test_upstream_has_the_shape_of_the_result(gradient: str) -> None:
    masks = [MASK] if "sequence" in gradient else []
    with pytest.raises(ValueError, match="upstream must have shape"):
        getattr(reference, gradient)(np.zeros((3, 3)), *PAIR, *masks)
