"""The chapter `grpo`: answers of reference and torch_impl are those float64 may give; edges, errors, symbols.

Values and gradients on drawn inputs are held against a second definition in `test_second_definitions`.
"""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given

from reference import group, policy_loss
from reference.numbers import balls, dyadics, symbols
from reference.numbers.formats import FORMATS
from tests.examples import examples
from tests.formulas.scalar_group import groups
from tests.numbers.enclosure import encloses, is_bounded
from torch_impl import group as in_torch

reference: Any = group
"""As a module of anything: balls, dyadic rationals and symbols go where floats are declared."""

torch_impl: Any = in_torch

FORM = FORMATS["float64"]
ROUNDING = balls.Rounding(FORM, 2.0)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

reward = st.one_of(
    st.sampled_from([0.0, 1.0, 0.1, -1.0, 0.5, 1e4, 1e4 + 0.25, 3.0]),
    st.integers(-(10**6), 10**6).map(lambda x: x / 1e5),  # nearer to each other, squares would underflow
)
group_id = st.sampled_from([0, 1, 2, -5, 10**12])
scored = st.lists(st.tuples(reward, group_id), min_size=1, max_size=8)
logprob = st.one_of(
    st.sampled_from([0.0, -1.0, -0.5, -1.25, -30.0]), st.floats(-3.0, 0.0, allow_subnormal=False)
)
advantage = st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.floats(-3.0, 3.0, allow_subnormal=False))


def rounded(x: Any) -> Any:
    """Balls of what float64 may make of these numbers."""
    return balls.array(x, ROUNDING, 2 * FORM.unit_roundoff)


def assert_all_enclosed(enclosures: Any, values: Any) -> None:
    """Every value lies in its ball; balls that are unbounded say nothing."""
    enclosures, values = np.atleast_1d(enclosures), np.atleast_1d(values)
    assert enclosures.shape == values.shape
    for ball, value in zip(enclosures.flat, values.flat, strict=True):
        if is_bounded(ball):
            assert encloses(ball, float(value) if isinstance(value, np.floating) else value)


OPTIONS: list[dict[str, Any]] = [
    {"scale": "std", "ddof": 1, "eps": 1e-6},
    {"scale": "std", "ddof": 0, "eps": 1e-4},
    {"scale": "std", "ddof": 0, "eps": 0.0},
    {"scale": "none", "ddof": 1, "eps": 1e-6},
]


@pytest.mark.parametrize("options", OPTIONS)
@examples(60)
@given(scored)
def test_group_advantages(options: dict[str, Any], batch: Any) -> None:
    scores, ids = np.array([x for x, _ in batch]), np.array([name for _, name in batch])
    assert all(map(is_bounded, reference.group_advantages(balls.array(scores), ids, **options)))
    allowed = reference.group_advantages(rounded(scores), ids, **options)
    own = reference.group_advantages(scores, ids, **options)
    got = torch_impl.group_advantages(torch.tensor(scores), torch.tensor(ids), **options).numpy()
    for found in (own, got):
        assert_all_enclosed(allowed, found)
        for members in groups([name for _, name in batch]):
            if len(set(scores[members])) == 1:
                assert not found[members].any()


@examples(60)
@given(scored)
def test_rloo_advantages(batch: Any) -> None:
    scores, ids = np.array([x for x, _ in batch]), np.array([name for _, name in batch])
    got = torch_impl.rloo_advantages(torch.tensor(scores), torch.tensor(ids)).numpy()
    allowed = reference.rloo_advantages(rounded(scores), ids)
    for found in (got, reference.rloo_advantages(scores, ids), reference.rloo_by_group_mean(scores, ids)):
        assert_all_enclosed(allowed, found)
        for members in groups([name for _, name in batch]):
            if len(set(scores[members])) == 1:
                assert not found[members].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.1, -1 / 3, 7.7, 1e-3])
def test_equal_rewards_give_zero_in_every_dtype(dtype: torch.dtype, value: float) -> None:
    for count in range(1, 20):
        scores = torch.cat([torch.full((count,), value, dtype=dtype), torch.arange(3).to(dtype)])
        ids = torch.tensor([4] * count + [9] * 3)
        for options in OPTIONS:
            found = torch_impl.group_advantages(scores, ids, **options)
            assert found.dtype == dtype
            assert not found[:count].any()
            assert found[count:].any()
        assert not torch_impl.rloo_advantages(scores, ids)[:count].any()


def test_other_groups_do_not_matter() -> None:
    scores, ids = np.array([1.0, np.nan, 3.0, np.inf, 2.0]), np.array([3, 0, 3, -1, 3])
    alone, zeros = scores[[0, 2, 4]], np.zeros(3, dtype=int)
    for name in ("group_advantages", "rloo_advantages"):
        expected = getattr(reference, name)(alone, zeros)
        with np.errstate(invalid="ignore"):
            assert np.array_equal(getattr(reference, name)(scores, ids)[[0, 2, 4]], expected)
        found = getattr(torch_impl, name)(torch.tensor(scores), torch.tensor(ids))[[0, 2, 4]]
        expected = getattr(torch_impl, name)(torch.tensor(alone), torch.tensor(zeros))
        assert torch.equal(found, expected)


LOSSES: list[dict[str, Any]] = [
    {"aggregation": "token-mean"},
    {"aggregation": "seq-mean-token-mean", "ratio_level": "sequence", "empty_rows": "drop"},
    {"aggregation": "seq-mean-token-sum", "ratio_level": "sequence-token", "clip_low": 0.0},
    {"aggregation": "seq-mean-token-sum-norm", "horizon": 7.0, "log_ratio_clip": None, "clip_high": 1.0},
    {
        "aggregation": "seq-mean-token-sum-norm",
        "kl_coef": 0.0,
        "ratio_level": "sequence",
        "log_ratio_clip": 0.5,
    },
]
DEFAULTS: dict[str, Any] = {
    "clip_low": 0.25,
    "clip_high": 0.5,
    "kl_coef": 0.04,
    "horizon": None,
    "empty_rows": "count",
    "ratio_level": "token",
    "log_ratio_clip": 20.0,
}


@st.composite
def rows(draw: Any) -> list[Any]:
    """Log-probabilities of three policies, advantages and a mask."""
    count, width = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    size = count * width
    arrays = [
        np.reshape(draw(st.lists(logprob, min_size=size, max_size=size)), (count, width)) for _ in "123"
    ]
    advantages = np.array(draw(st.lists(advantage, min_size=count, max_size=count)))
    mask = np.reshape(draw(st.lists(st.booleans(), min_size=size, max_size=size)), (count, width))
    return [*arrays, advantages, mask]


@pytest.mark.parametrize("chosen", LOSSES)
@examples(40)
@given(rows())
def test_grpo_loss_in_float64(chosen: dict[str, Any], batch: Any) -> None:
    options, upstream, mask = DEFAULTS | chosen, -1.25, batch[4]
    converted = {name: rounded(x) if type(x) is float else x for name, x in options.items()}
    widened = [*map(rounded, batch[:4]), mask]
    hidden = [np.where(mask, x, np.nan) for x in batch[:3]]
    leaves = [torch.tensor(x, requires_grad=True) for x in (*hidden, batch[3])]
    allowed = reference.grpo_loss(*widened, **converted)
    got = torch_impl.grpo_loss(*leaves, torch.tensor(mask), **options)
    assert encloses(allowed, got.item())
    assert encloses(allowed, float(reference.grpo_loss(*hidden, batch[3], mask, **options)))
    gradients: Any = torch.autograd.grad(got * upstream, leaves, allow_unused=True)
    assert gradients[1:] == (None, None, None)
    permitted = reference.grpo_loss_gradient(rounded(upstream), *widened, **converted)
    own = reference.grpo_loss_gradient(upstream, *hidden, batch[3], mask, **options)
    assert_all_enclosed(permitted, gradients[0].numpy())
    assert_all_enclosed(permitted, own)
    assert not own[~mask].any()


def test_loss_is_exact_where_nothing_rounds() -> None:
    number = np.frompyfunc(dyadics.number, 1, 1)
    zeros, mask = number(np.zeros((1, 2))), np.array([[True, True]])
    for mode in policy_loss.MODES:
        options = {"clip_low": 0.25, "clip_high": 0.25, "kl_coef": dyadics.number(0.5), "aggregation": mode}
        arguments = (zeros, zeros, zeros, number(np.array([2.0])), mask)
        assert reference.grpo_loss(*arguments, **options).value == (
            -4 if mode == "seq-mean-token-sum" else -2
        )
        gradient = reference.grpo_loss_gradient(dyadics.number(1.0), *arguments, **options)
        assert [x.value for x in gradient[0]] == ([-2, -2] if mode == "seq-mean-token-sum" else [-1, -1])


def test_advantages_are_exact_where_nothing_rounds() -> None:
    scores = np.frompyfunc(dyadics.number, 1, 1)(np.array([1.0, 0.1, 3.0, 0.1, 0.1]))
    ids = np.array([0, 1, 0, 1, 1])
    found = reference.group_advantages(scores, ids, scale="none")
    assert [x.value for x in found] == [-1, 0, 1, 0, 0]
    found = reference.group_advantages(scores, ids, scale="std")
    assert [x.value for x in found] == [None, 0, None, 0, 0]
    assert [x.value for x in reference.rloo_advantages(scores, ids)] == [-2, 0, 2, 0, 0]


def test_symbols_run() -> None:
    rewards = symbols.array("r", (3,))
    for operation in (reference.group_advantages, reference.rloo_advantages, reference.rloo_by_group_mean):
        assert all(x.free_symbols for x in operation(rewards, np.zeros(3, dtype=int)))


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_loss_is_rounded_once(dtype: torch.dtype) -> None:
    shape = (3, 5)
    generator = torch.Generator().manual_seed(0)
    arrays = [torch.randn(shape, generator=generator).to(dtype) for _ in range(3)]
    advantages, mask = torch.tensor([1.0, -0.5, 0.3]).to(dtype), torch.ones(shape, dtype=torch.bool)
    for chosen in LOSSES:
        options = DEFAULTS | chosen
        got = torch_impl.grpo_loss(*arrays, advantages, mask, **options)
        wide = torch_impl.grpo_loss(*(x.float() for x in (*arrays, advantages)), mask, **options)
        assert got.dtype == dtype
        assert torch.equal(got, wide.to(dtype))


def test_helpers() -> None:
    assert reference.advantage_bound(4) == 1.5
    assert reference.binary_advantages(0.5) == (1.0, -1.0)
    with pytest.raises(ValueError, match="success_rate"):
        reference.binary_advantages(1.0)
    with pytest.raises(ValueError, match="buffer"):
        reference.overlong_penalty([1.0], max_length=4, buffer=0)
    with pytest.raises(ValueError, match=r"^buffer must be at most max_length, 4, got 5$"):
        reference.overlong_penalty([1.0], max_length=4, buffer=5)
    assert reference.overlong_penalty([1.0], max_length=4, buffer=4) == [-0.25]
    (penalty,) = reference.overlong_penalty(balls.array([1.0]), max_length=4, buffer=balls.array(4.0))
    assert encloses(penalty, -0.25)
    buffer = sympy.Symbol("buffer", positive=True)
    (penalty,) = reference.overlong_penalty([1.0], max_length=4, buffer=buffer)
    assert penalty.subs(buffer, 4) == -0.25
    with pytest.raises(ValueError, match=r"^ddof must be 0 or 1, got 2$"):
        reference.advantage_bound(4, ddof=2)
    with pytest.raises(ValueError, match="group_size"):
        reference.advantage_bound(0)


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"scale": "batch"}, "scale"),
    ({"ddof": 2}, "ddof"),
    ({"ddof": -1}, "ddof"),
    ({"ddof": True}, "ddof"),
    ({"eps": -1e-6}, "eps"),
    ({"eps": float("inf")}, "eps"),
]


@pytest.mark.parametrize(("options", "named"), BAD_OPTIONS)
def test_bad_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        reference.group_advantages([0.0, 1.0], [0, 0], **options)
    with pytest.raises(ValueError, match=named):
        torch_impl.group_advantages(torch.zeros(2), torch.zeros(2, dtype=torch.long), **options)


def test_bad_arrays_are_named() -> None:
    two, ids, mask = np.zeros(2), np.zeros(2, dtype=int), np.ones((2, 3), dtype=bool)
    square = np.zeros((2, 3))
    options: dict[str, Any] = DEFAULTS | {"aggregation": "token-mean"}
    for implementation, convert in ((reference, np.asarray), (torch_impl, torch.tensor)):
        for operation in (implementation.group_advantages, implementation.rloo_advantages):
            with pytest.raises(ValueError, match="group_ids must be"):
                operation(convert(two), convert(two))
            with pytest.raises(ValueError, match="group_ids must have shape"):
                operation(convert(two), convert(np.zeros(3, dtype=int)))
            with pytest.raises(ValueError, match="scores"):
                operation(convert(square), convert(ids))
        loss = implementation.grpo_loss
        arrays = [convert(x) for x in (square, square, square, two, mask)]
        for place, name in enumerate(("old_logprobs", "ref_logprobs", "advantages", "mask"), start=1):
            wrong = [
                *arrays[:place],
                convert(np.zeros((3, 2), dtype=bool if place == 4 else float)),
                *arrays[place + 1 :],
            ]
            with pytest.raises(ValueError, match=f"{name} must have shape"):
                loss(*wrong, **options)
        for bad in ("kl_coef", "clip_low", "log_ratio_clip"):
            with pytest.raises(ValueError, match=bad):
                loss(*arrays, **(options | {bad: -1.0}))
        with pytest.raises(ValueError, match="aggregation"):
            loss(*arrays, **(options | {"aggregation": "mean"}))
