"""The chapter `ppo`: answers of torch_impl are those its dtype may give; edges, errors, symbols.

Values and gradients on drawn inputs are held against a second definition in `test_second_definitions`.
"""

import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from reference import logprobs, policy_loss
from reference.numbers import balls, dyadics, symbols
from reference.numbers.formats import FORMATS, Format
from tests.examples import examples
from tests.numbers.enclosure import encloses, is_bounded
from torch_impl import logprobs as torch_logprobs
from torch_impl import policy_loss as torch_policy_loss

Batch = dict[str, Any]
Options = dict[str, Any]
EXACT: Callable[[Any], Any] = balls.array
UPSTREAM = -1.75
ROWS = ("logprobs", "old_logprobs", "advantages", "mask", "rollout_weights")
PENALISED = ("logprobs", "old_logprobs", "advantages", "kl", "mask")
DTYPES = {name: getattr(torch, name) for name in FORMATS}

change = st.one_of(
    st.sampled_from([0.0, -1.0, -0.25, -0.5, -2.0, 0.125, 21.0, -21.0, 40.0, 1e-3]),
    st.floats(-1.0, 1.0, allow_subnormal=False),
)
advantage = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, -2.0]), st.floats(-4.0, 4.0, allow_subnormal=False)
)
weight = st.sampled_from([1.0, 0.0, 0.5, 2.0, 0.1])
logit = st.one_of(
    st.sampled_from([0.0, 1.0, -np.inf, -2.0, 1e4, -1e4, 0.1]), st.floats(-20.0, 20.0, allow_subnormal=False)
)
temperature = st.sampled_from([1.0, 0.5, 0.7, 2.0])
aggregation = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(policy_loss.MODES),
        "horizon": st.sampled_from([None, 8, 2.5]),
        "empty_rows": st.sampled_from(policy_loss.EMPTY_ROWS),
    }
)
clips = st.fixed_dictionaries(
    {
        "clip_low": st.sampled_from([0.2, 0.0, 0.25, 1.0, 1.5]),
        "clip_high": st.sampled_from([0.2, 0.0, 0.28, 2.0]),
        "dual_clip": st.sampled_from([None, 3.0, 1.5, 1.125]),
    }
)
losses = st.builds(
    lambda clips, how, level, clamp: (
        clips
        | {"aggregation": how["mode"], "horizon": how["horizon"], "empty_rows": how["empty_rows"]}
        | {"ratio_level": level, "log_ratio_clip": clamp}
    ),
    clips,
    aggregation,
    st.sampled_from(["token", "sequence", "sequence-token"]),
    st.sampled_from([20.0, None, 0.5]),
)


@st.composite
def batches(draw: Any) -> Batch:
    """A few rows of tokens with holes, and NaN under the mask."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))

    def array(elements: Any) -> Any:
        size = shape[0] * shape[1]
        return np.reshape(draw(st.lists(elements, min_size=size, max_size=size)), shape)

    mask = array(st.sampled_from([True, True, False]))
    old = array(st.sampled_from([-1.0, -0.5, -3.0]))
    found = {"logprobs": old + array(change), "old_logprobs": old, "advantages": array(advantage)}
    found |= {"kl": array(change), "rollout_weights": array(weight) if draw(st.booleans()) else None}
    hidden = {name: x if x is None else np.where(mask, x, np.nan) for name, x in found.items()}
    return hidden | {"mask": mask}


@st.composite
def vocabularies(draw: Any) -> tuple[Any, Any]:
    """Logits with at least one real one in each position, and a token that is possible."""
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 4)))
    size = shape[0] * shape[1] * shape[2]
    logits = np.reshape(draw(st.lists(logit, min_size=size, max_size=size)), shape)
    tokens = np.array(draw(st.lists(st.integers(0, shape[2] - 1), min_size=size // shape[2], max_size=size)))
    tokens = np.resize(tokens, shape[:2])
    chosen = np.take_along_axis(logits, tokens[..., None], axis=-1)
    np.put_along_axis(logits, tokens[..., None], np.where(np.isinf(chosen), 0.5, chosen), axis=-1)
    return logits, tokens


def rounded(form: Format) -> Callable[[Any], Any]:
    """Balls of what a format may make of some numbers."""
    return lambda x: balls.array(x, balls.Rounding(form, 2.0), 2 * form.unit_roundoff)


def run(function: Any, arguments: Any, options: Options, convert: Callable[[Any], Any]) -> Any:
    """Call a function of the reference with its real arguments and float options converted."""
    real = [
        convert(x) if isinstance(x, float | np.ndarray) and np.asarray(x).dtype == np.float64 else x
        for x in arguments
    ]
    return function(*real, **{name: convert(x) if type(x) is float else x for name, x in options.items()})


def assert_enclosed(enclosures: Any, values: Any) -> None:
    enclosures, values = np.atleast_1d(enclosures), np.atleast_1d(values)
    assert enclosures.shape == values.shape
    assert all(encloses(ball, value) for ball, value in zip(enclosures.flat, values.flat, strict=True))


def assert_permitted(allowed: Any, got: Any, form: Format) -> None:
    """Enclosed, or infinite where the ball passes the largest number; an unbounded ball decides nothing."""
    allowed, got = np.atleast_1d(allowed), np.atleast_1d(got.detach().double().numpy())
    assert allowed.shape == got.shape
    for ball, value in zip(allowed.flat, got.flat, strict=True):
        if np.isinf(value) and is_bounded(ball):
            assert (ball.value.upper() if value > 0 else -ball.value.lower()) >= form.largest
        elif is_bounded(ball):
            assert encloses(ball, float(value))


def in_torch(x: Any, dtype: torch.dtype) -> Any:
    """An array as a tensor, one of floats as a leaf of this dtype."""
    if not isinstance(x, np.ndarray):
        return x
    tensor = torch.from_numpy(x.copy())
    return tensor.to(dtype).requires_grad_() if x.dtype == np.float64 else tensor


def in_format(batch: Batch, form: Format) -> Batch:
    """The batch in numbers of a format."""
    return {
        name: form.round(x) if x is not None and x.dtype == np.float64 else x for name, x in batch.items()
    }


@pytest.mark.parametrize("dtype", DTYPES)
@examples(40)
@given(vocabularies(), temperature)
def test_torch_logprobs_and_entropy(dtype: str, drawn: tuple[Any, Any], tau: float) -> None:
    form, option = FORMATS[dtype], {"temperature": tau}
    logits, tokens = form.round(drawn[0]), drawn[1]
    upstream = np.resize([-1.5, 0.75, 2.0], tokens.shape)
    for name, arguments in (("token_logprobs", (tokens,)), ("token_entropy", ())):
        leaf = in_torch(logits, DTYPES[dtype])
        got = getattr(torch_logprobs, name)(leaf, *map(torch.from_numpy, arguments), **option)
        assert got.dtype == leaf.dtype
        got.backward(in_torch(upstream, DTYPES[dtype]).detach())
        allowed = run(getattr(logprobs, name), (logits, *arguments), option, rounded(form))
        assert_permitted(allowed, got, form)
        gradient = getattr(logprobs, f"{name}_gradient")
        assert_permitted(
            run(gradient, (upstream, logits, *arguments), option, rounded(form)), leaf.grad, form
        )


@pytest.mark.parametrize("dtype", DTYPES)
@examples(40)
@given(batches(), aggregation)
def test_torch_aggregate(dtype: str, batch: Batch, options: Options) -> None:
    form = FORMATS[dtype]
    batch = in_format(batch, form)
    leaf = in_torch(batch["advantages"], DTYPES[dtype])
    got = torch_policy_loss.aggregate(leaf, in_torch(batch["mask"], DTYPES[dtype]), **options)
    (got * UPSTREAM).backward()  # type: ignore[no-untyped-call]
    rows = batch["advantages"], batch["mask"]
    assert_permitted(run(policy_loss.aggregate, rows, options, rounded(form)), got, form)
    allowed = run(policy_loss.aggregate_gradient, (UPSTREAM, *rows), options, rounded(form))
    assert_permitted(allowed, leaf.grad, form)


@pytest.mark.parametrize("dtype", DTYPES)
@examples(80)
@given(batches(), losses)
def test_torch_policy_loss(dtype: str, batch: Batch, options: Options) -> None:
    form = FORMATS[dtype]
    batch = in_format(batch, form)
    rows = [batch[name] for name in ROWS]
    tensors = [in_torch(x, DTYPES[dtype]) for x in rows]
    got = torch_policy_loss.policy_loss(*tensors, **options)
    assert got.dtype == DTYPES[dtype]
    (got * UPSTREAM).backward()  # type: ignore[no-untyped-call]
    assert_permitted(run(policy_loss.policy_loss, rows, options, rounded(form)), got, form)
    allowed = run(policy_loss.policy_loss_gradient, (UPSTREAM, *rows), options, rounded(form))
    assert_permitted(allowed, tensors[0].grad, form)
    assert all(x is None or x.grad is None for x in tensors[1:])
    assert not tensors[0].grad[~tensors[3]].any()


@pytest.mark.parametrize("dtype", DTYPES)
@examples(40)
@given(batches(), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from(policy_loss.MODES))
def test_torch_kl_penalty_loss(dtype: str, batch: Batch, coef: float, mode: str) -> None:
    form = FORMATS[dtype]
    options: Options = {"kl_coef": coef, "aggregation": mode}
    batch = in_format(batch, form)
    rows = [batch[name] for name in PENALISED]
    tensors = [in_torch(x, DTYPES[dtype]) for x in rows]
    got = torch_policy_loss.kl_penalty_loss(*tensors, **options)
    (got * UPSTREAM).backward()  # type: ignore[no-untyped-call]
    assert_permitted(run(policy_loss.kl_penalty_loss, rows, options, rounded(form)), got, form)
    allowed = run(policy_loss.kl_penalty_loss_gradient, (UPSTREAM, *rows), options, rounded(form))
    for gradient, leaf in zip(allowed, (tensors[0], tensors[3]), strict=True):
        assert_permitted(gradient, leaf.grad, form)
    assert tensors[1].grad is None
    assert tensors[2].grad is None


@pytest.mark.parametrize("dtype", DTYPES)
@examples(40)
@given(batches(), clips)
def test_torch_policy_metrics(dtype: str, batch: Batch, options: Options) -> None:
    form = FORMATS[dtype]
    batch = in_format(batch, form)
    rows = [batch[name] for name in ROWS[:4]]
    allowed = run(policy_loss.policy_metrics, rows, options, rounded(form))
    got = torch_policy_loss.policy_metrics(*(in_torch(x, DTYPES[dtype]) for x in rows), **options)
    assert allowed.keys() == got.keys()
    for name, value in got.items():
        assert not value.requires_grad
        assert value.dtype == DTYPES[dtype]
        assert_permitted(allowed[name], value, form)


@pytest.mark.parametrize("clamp", [None, 100.0], ids=str)  # e¹⁰⁰ is beyond float32
@pytest.mark.parametrize("advantage", [1.0, 0.0])
def test_ratio_that_overflows_where_the_clip_holds_sends_nothing_back(
    advantage: float, clamp: float | None
) -> None:
    leaf, old = torch.tensor([[200.0, 0.0]], requires_grad=True), torch.zeros(1, 2)
    advantages, mask = torch.tensor([[advantage, 1.0]]), torch.tensor([[True, True]])
    for level in ("token", "sequence", "sequence-token"):
        loss = torch_policy_loss.policy_loss(
            leaf, old, advantages, mask, clip_low=0.2, clip_high=0.2, log_ratio_clip=clamp, ratio_level=level
        )
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert loss.isfinite()
        assert gradient[0, 0] == 0.0
        assert gradient.isfinite().all()


def test_metrics_count_ratios_that_a_loss_would_clamp() -> None:
    """e³⁰ is beyond a clip that e²⁰, where losses clamp by default, is within."""
    rows: Any = [[30.0]], [[0.0]], [[1.0]], np.array([[True]])
    tensors: Any = [torch.tensor(x) for x in rows]
    clips: Any = {"clip_low": 0.5, "clip_high": 1e9}
    assert policy_loss.policy_metrics(*rows, **clips)["clip_fraction"] == 1.0
    assert torch_policy_loss.policy_metrics(*tensors, **clips)["clip_fraction"] == 1.0


def test_metrics_do_not_count_a_ratio_at_the_dual_clip() -> None:
    """ρ > c is strict: the exponential of 1, as float64 has it, is no more than itself."""
    rows: Any = [*(torch.tensor([[x]]).double() for x in (1.0, 0.0, -1.0)), torch.tensor([[True]])]
    clips: Any = {"clip_low": 0.2, "clip_high": 0.2}
    at = torch.tensor(1.0, dtype=torch.float64).exp().item()
    for dual_clip, share in ((at, 0.0), (math.nextafter(at, 0.0), 1.0)):
        found = torch_policy_loss.policy_metrics(*rows, dual_clip=dual_clip, **clips)
        assert found["dual_clip_fraction"] == share


def test_exact_on_policy_in_dyadic_rationals() -> None:
    ones, advantages = np.ones((2, 2)), np.array([[1.0, -2.0], [0.5, 4.0]])
    to_dyadics = np.frompyfunc(dyadics.number, 1, 1)
    options: Options = {"clip_low": 0.25, "clip_high": 0.25}
    rows = (ones, ones, advantages, ones == 1.0)
    loss = run(policy_loss.policy_loss, rows, options, to_dyadics)
    gradient = run(policy_loss.policy_loss_gradient, (1.0, *rows), options, to_dyadics)
    assert loss.value == -advantages.mean()
    assert [x.value for x in gradient.flat] == list((-advantages / 4).flat)


def test_symbols_run() -> None:
    x, old = (symbols.array(name, (1, 2)) for name in ("x", "o"))
    mask: Any = np.array([[True, False]])
    loss: Any = policy_loss.policy_loss(x, old, x - x + 1, mask, clip_low=0.5, clip_high=0.5)
    assert loss.free_symbols == {x[0, 0], old[0, 0]}


GOOD: Batch = {
    "logprobs": np.zeros((2, 3)),
    "old_logprobs": np.zeros((2, 3)),
    "advantages": np.zeros((2, 3)),
    "mask": np.ones((2, 3), dtype=bool),
    "rollout_weights": np.ones((2, 3)),
    "kl": np.zeros((2, 3)),
    "x": np.zeros((2, 3)),
    "logits": np.zeros((2, 3, 4)),
    "tokens": np.zeros((2, 3), dtype=np.int64),
}
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "policy_loss": ROWS,
    "policy_metrics": ROWS[:4],
    "kl_penalty_loss": PENALISED,
    "aggregate": ("x", "mask"),
    "token_logprobs": ("logits", "tokens"),
    "token_entropy": ("logits",),
}
CLIPPED: Options = {"clip_low": 0.2, "clip_high": 0.2}
OPTIONS: dict[str, Options] = {
    "policy_loss": CLIPPED,
    "policy_metrics": CLIPPED,
    "kl_penalty_loss": {"kl_coef": 0.1, "aggregation": "token-mean"},
}
BAD_OPTIONS = [
    ("policy_loss", {"clip_low": -0.1}),
    ("policy_loss", {"clip_high": np.inf}),
    ("policy_loss", {"dual_clip": 1.0}),
    ("policy_loss", {"ratio_level": "row"}),
    ("policy_loss", {"aggregation": "mean"}),
    ("policy_loss", {"log_ratio_clip": 0.0}),
    ("policy_loss", {"horizon": 0, "aggregation": "seq-mean-token-sum-norm"}),
    ("policy_loss", {"empty_rows": "skip"}),
    ("policy_metrics", {"clip_low": np.nan}),
    ("policy_metrics", {"dual_clip": 0.5}),
    ("kl_penalty_loss", {"kl_coef": -1.0}),
    ("kl_penalty_loss", {"aggregation": "sum"}),
    ("aggregate", {"mode": "sum"}),
    ("aggregate", {"horizon": -1.0}),
    ("aggregate", {"empty_rows": None}),
    ("token_logprobs", {"temperature": 0.0}),
    ("token_entropy", {"temperature": "1"}),
]
BAD_SHAPES = [(operation, name) for operation, names in ARGUMENTS.items() for name in names]


@pytest.mark.parametrize("torch_too", [False, True])
@pytest.mark.parametrize(("operation", "wrong"), BAD_OPTIONS)
def test_bad_options(operation: str, wrong: Options, torch_too: bool) -> None:
    function, arguments = implementation(operation, torch_too)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        function(*arguments.values(), **OPTIONS.get(operation, {}) | wrong)


@pytest.mark.parametrize("torch_too", [False, True])
@pytest.mark.parametrize(("operation", "name"), BAD_SHAPES)
def test_bad_arrays(operation: str, name: str, torch_too: bool) -> None:
    function, arguments = implementation(operation, torch_too)
    for wrong in (arguments[name][0], arguments[name] + 0j):
        with pytest.raises(ValueError, match=name if name != "logits" else "logits|tokens"):
            function(*(arguments | {name: wrong}).values(), **OPTIONS.get(operation, {}))


def test_tokens_outside_the_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"tokens must lie in \[0, 4\), got 4 to 4"):
        logprobs.token_logprobs(GOOD["logits"], GOOD["tokens"] + 4)


def implementation(operation: str, torch_too: bool) -> tuple[Any, Batch]:
    """An operation of the reference or of torch_impl, and good arguments for it."""
    modules = (torch_policy_loss, torch_logprobs) if torch_too else (policy_loss, logprobs)
    function = next(getattr(module, operation) for module in modules if hasattr(module, operation))
    arguments = {name: GOOD[name] for name in ARGUMENTS[operation]}
    return function, {k: torch.from_numpy(x) for k, x in arguments.items()} if torch_too else arguments
