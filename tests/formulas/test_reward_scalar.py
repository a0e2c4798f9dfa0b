"""The chapter `rm`: answers of reference and torch_impl are those float64 may give; edges, errors, symbols.

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

from reference import reward
from reference.numbers import balls, dyadics, symbols
from reference.numbers.formats import FORMATS
from tests.examples import examples
from tests.formulas import scalar_reward as scalar
from tests.formulas.scalars import real
from tests.numbers.enclosure import DIGITS, encloses
from torch_impl import reward as in_torch

reference: Any = reward
"""As a module of anything: balls, dyadic rationals and symbols go where floats are declared."""

torch_impl: Any = in_torch

FORM = FORMATS["float64"]
ROUNDING = balls.Rounding(FORM, 2.0)

score = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, 3.0, -89.0, 89.0, 1e3, -1e3, 1e4, -1e4]),
    st.floats(-50.0, 50.0, allow_subnormal=False),
)
pairs = st.lists(st.tuples(score, score), max_size=5)
margins = st.sampled_from([0.0, 1.0, -0.5, 0.3, 100.0])
logprob = st.one_of(
    st.sampled_from([0.0, -0.5, -1.0, -2.0, -10.0]), st.floats(-30.0, 0.0, allow_subnormal=False)
)
coefficients = st.sampled_from([0.5, 0.0, 1.0, 0.1, 0.03])
estimators = st.sampled_from(["k1", "k2", "k3", "abs"])


@st.composite
def responses(draw: Any) -> tuple[Any, Any, Any, Any]:
    """Scores, log-probabilities under both policies, and a mask."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 5)))
    size = shape[0] * shape[1]
    scores = draw(st.lists(score, min_size=shape[0], max_size=shape[0]))
    logs, refs = (np.reshape(draw(st.lists(logprob, min_size=size, max_size=size)), shape) for _ in range(2))
    mask = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return np.array(scores), logs, refs, np.array(mask).reshape(shape)


def scalar_k_wise_loss(scores: Any) -> Any:
    """The mean over prompts of the mean over their pairs."""
    means = []
    for row in [[Fraction(x) for x in row] for row in scores]:
        losses = [scalar.pair_loss(row[i] - row[j]).value for j in range(len(row)) for i in range(j)]
        means.append(mpmath.fsum(map(real, losses)) / len(losses))
    return mpmath.fsum(means) / len(means)


def scalar_rewards(batch: Any, kl_coef: float, estimator: str) -> dict[tuple[int, int], Any]:
    """The reward of each active token."""
    *arrays, mask = batch
    scores, logprobs, refs = (np.frompyfunc(Fraction, 1, 1)(x).tolist() for x in arrays)
    options: Any = {"kl_coef": Fraction(kl_coef), "estimator": estimator}
    rewards = scalar.shaped_rewards(scores, logprobs, refs, mask.tolist(), **options)
    return {(i, t): rewards[i][t] for i, t in np.argwhere(mask).tolist()}


def columns(batch: Any) -> tuple[Any, Any]:
    """Chosen and rejected scores."""
    return np.array([c for c, _ in batch]), np.array([r for _, r in batch])


def rounded(x: Any) -> Any:
    """Balls of what float64 may make of these numbers."""
    return balls.array(x, ROUNDING, 2 * FORM.unit_roundoff)


def assert_all_enclosed(enclosures: Any, values: Any) -> None:
    enclosures, values = np.atleast_1d(enclosures), np.atleast_1d(values)
    assert enclosures.shape == values.shape
    for ball, value in zip(enclosures.flat, values.flat, strict=True):
        assert encloses(ball, float(value) if isinstance(value, np.floating) else value)


@examples(100)
@given(pairs.filter(len), margins, st.sampled_from([1.0, -1.5, 0.3]))
def test_reward_model_loss_in_float64(batch: Any, margin: float, upstream: float) -> None:
    wide = [rounded(x) for x in columns(batch)]
    allowed = reference.reward_model_loss(*wide, margin=rounded(margin))
    assert encloses(allowed, float(reference.reward_model_loss(*columns(batch), margin=margin)))
    given_scores = [torch.tensor(x, requires_grad=True) for x in columns(batch)]
    loss = torch_impl.reward_model_loss(*given_scores, margin=margin)
    assert encloses(allowed, loss.item())
    got = torch.autograd.grad(loss, given_scores, torch.tensor(upstream, dtype=torch.float64))
    slopes = reference.reward_model_loss_gradient(rounded(upstream), *wide, margin=rounded(margin))
    own = reference.reward_model_loss_gradient(upstream, *columns(batch), margin=margin)
    for k in range(2):
        assert_all_enclosed(slopes[k], got[k].numpy())
        assert_all_enclosed(slopes[k], own[k])


def test_no_pairs() -> None:
    nothing = np.zeros(0)
    assert reference.reward_model_loss(nothing, nothing) == 0
    assert [x.size for x in reference.reward_model_loss_gradient(1.0, nothing, nothing)] == [0, 0]
    assert torch_impl.reward_model_loss(torch.zeros(0), torch.zeros(0)).item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("ahead", [-2e4, -90.0, 90.0, 2e4])
def test_extreme_scores_are_finite(ahead: float, dtype: torch.dtype) -> None:
    scores = [torch.tensor([sign * ahead / 2], dtype=dtype, requires_grad=True) for sign in (1, -1)]
    loss = torch_impl.reward_model_loss(*scores)
    gradients = torch.autograd.grad(loss, scores)
    assert all(bool(x.isfinite().all()) for x in (loss, *gradients))


@examples(30)
@given(
    st.integers(2, 4).flatmap(
        lambda k: st.lists(st.lists(score, min_size=k, max_size=k), min_size=1, max_size=3)
    )
)
def test_k_wise_loss(scores: Any) -> None:
    with mpmath.workdps(DIGITS):
        assert encloses(reference.k_wise_loss(balls.array(scores)), scalar_k_wise_loss(scores))
    assert encloses(reference.k_wise_loss(rounded(scores)), float(reference.k_wise_loss(np.array(scores))))


@examples(30)
@given(st.tuples(score, score))
def test_probability_is_what_the_loss_is_the_logarithm_of(pair: Any) -> None:
    chosen, rejected = (balls.array([x]) for x in pair)
    with mpmath.workdps(DIGITS):
        loss = real(scalar.pair_loss(Fraction(pair[0]) - Fraction(pair[1])).value)
        assert encloses(reference.preference_probability(chosen, rejected)[0], mpmath.exp(-loss))


@examples(100)
@given(responses(), coefficients, estimators)
def test_shaped_rewards(batch: Any, kl_coef: float, estimator: str) -> None:
    *arrays, mask = batch
    options: dict[str, Any] = {"estimator": estimator}
    allowed = reference.shaped_rewards(*map(rounded, arrays), mask, kl_coef=rounded(kl_coef), **options)
    scores = np.where(mask.any(axis=1), arrays[0], np.nan)
    hidden = [scores, *(np.where(mask, x, np.nan) for x in arrays[1:])]
    own = reference.shaped_rewards(*hidden, mask, kl_coef=kl_coef, **options)
    tensors = [torch.tensor(x, requires_grad=True) for x in hidden]
    got = torch_impl.shaped_rewards(*tensors, torch.tensor(mask), kl_coef=kl_coef, **options)
    assert not got.requires_grad
    assert_all_enclosed(allowed[mask], own[mask])
    assert_all_enclosed(allowed[mask], got.numpy()[mask])
    assert not own[~mask].any()
    assert not got[~torch.tensor(mask)].any()


@examples(60)
@given(responses(), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from(["k1", "k2", "abs"]))
def test_dyadic_rewards_are_exact(batch: Any, kl_coef: float, estimator: str) -> None:
    *arrays, mask = batch
    dyadic = [np.frompyfunc(dyadics.number, 1, 1)(x) for x in arrays]
    rewards = reference.shaped_rewards(*dyadic, mask, kl_coef=kl_coef, estimator=estimator)
    for index, value in scalar_rewards(batch, kl_coef, estimator).items():
        assert rewards[index].value == value


def test_dyadic_losses_are_lost() -> None:
    zero = np.array([dyadics.number(0)], dtype=object)
    assert reference.reward_model_loss(zero, zero).value is None


def test_symbols_give_the_formula() -> None:
    scores, logprobs, refs = symbols.array("s", (1,)), symbols.array("l", (1, 2)), symbols.array("k", (1, 2))
    rewards = reference.shaped_rewards(scores, logprobs, refs, np.array([[True, False]]), kl_coef=2)
    assert rewards[0, 0] == scores[0] - 2 * (logprobs[0, 0] - refs[0, 0])
    assert rewards[0, 1] == 0


def test_nothing_warns_of_what_is_masked() -> None:
    beyond = np.array([[-1.0, -np.inf]])
    rewards = reference.shaped_rewards([5.0], beyond, beyond, np.array([[True, False]]), kl_coef=0.5)
    assert np.array_equal(rewards, [[5.0, 0.0]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = (torch.randn(64, generator=generator).to(dtype) for _ in range(2))
    loss = torch_impl.reward_model_loss(chosen, rejected, margin=0.3)
    wide = torch_impl.reward_model_loss(chosen.float(), rejected.float(), margin=0.3)
    assert torch.equal(loss, wide.to(dtype))
    logs = [-torch.rand((4, 16), generator=generator).to(dtype) for _ in range(2)]
    mask = torch.rand((4, 16), generator=generator) < 0.7
    shaped = torch_impl.shaped_rewards(chosen[:4], *logs, mask, kl_coef=0.1, estimator="k3")
    floats = (chosen[:4].float(), *(x.float() for x in logs))
    assert torch.equal(
        shaped, torch_impl.shaped_rewards(*floats, mask, kl_coef=0.1, estimator="k3").to(dtype)
    )


PAIRS = [np.zeros(3), np.zeros(3)]
RESPONSES = [np.zeros(2), np.zeros((2, 3)), np.zeros((2, 3)), np.ones((2, 3), dtype=bool)]
BAD: list[tuple[str, int | None, Any, dict[str, Any], str]] = [
    ("reward_model_loss", None, None, {"margin": float("nan")}, "margin must be .*finite"),
    ("reward_model_loss", None, None, {"margin": "1"}, "margin must be a"),
    ("reward_model_loss", 0, np.zeros((3, 1)), {}, r"chosen must have shape \(any\), got \(3, 1\)"),
    (
        "reward_model_loss",
        1,
        np.zeros(1),
        {},
        r"rejected must have shape \(3\) to agree with chosen, got \(1,\)",
    ),
    ("shaped_rewards", None, None, {"kl_coef": -0.1}, "kl_coef must be .*-0.1"),
    ("shaped_rewards", None, None, {"kl_coef": 0.1, "estimator": "k4"}, "estimator must be one of .*'k4'"),
    ("shaped_rewards", 0, np.zeros((2, 3)), {"kl_coef": 0.1}, r"scores must have shape \(2\)"),
    ("shaped_rewards", 1, np.zeros(3), {"kl_coef": 0.1}, r"logprobs must have shape \(any, any\)"),
    ("shaped_rewards", 2, np.zeros((2, 1)), {"kl_coef": 0.1}, r"ref_logprobs must have shape \(2, 3\)"),
    ("shaped_rewards", 3, np.ones((2, 3)), {"kl_coef": 0.1}, "mask must be boolean"),
]


@pytest.mark.parametrize(("operation", "place", "wrong", "options", "message"), BAD)
def test_bad_arguments(
    operation: str, place: int | None, wrong: Any, options: dict[str, Any], message: str
) -> None:
    good = PAIRS if operation == "reward_model_loss" else RESPONSES
    arguments = [wrong if k == place else x for k, x in enumerate(good)]
    with pytest.raises(ValueError, match=message):
        getattr(reference, operation)(*arguments, **options)
    with pytest.raises(ValueError, match=message):
        getattr(torch_impl, operation)(*map(torch.tensor, arguments), **options)
    if operation == "reward_model_loss":
        with pytest.raises(ValueError, match=message):
            reference.reward_model_loss_gradient(1.0, *arguments, **options)
