"""What torch_impl.gae promises beyond the protocol: it never waits, rounds once, has clean gradients."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.formulas.recording import Recorder
from torch_impl import gae
from torch_impl import rows as rows_of_arrays
from torch_impl.rows import discounted_sums

Rows = tuple[Tensor, Tensor, Tensor, Tensor]

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "td_errors": lambda r, v, m, b: gae.td_errors(r, v, m, b, gamma=0.9),
    "n_step_advantages": lambda r, v, m, b: gae.n_step_advantages(r, v, m, b, gamma=0.9, n=3),
    "gae": lambda r, v, m, b: gae.gae(r, v, m, b, gamma=0.9, lam=0.8),
    "gae, holes as steps": lambda r, v, m, b: gae.gae(r, v, m, b, gamma=0.9, lam=0.8, masked="zero"),
    "lambda_returns": lambda r, v, m, b: gae.lambda_returns(r, v, m, b, gamma=0.9, lam=0.8),
    "discounted_returns": lambda r, v, m, b: gae.discounted_returns(r, m, b, gamma=0.9),
    "whiten": lambda r, v, m, b: gae.whiten(r, m),
    "whiten, mean kept": lambda r, v, m, b: gae.whiten(r, m, shift_mean=False, ddof=0),
}
CONSTANTS = ("gae", "gae, holes as steps", "lambda_returns")
"""The operations whose results are constants of a loss."""

every_operation = pytest.mark.parametrize("name", OPERATIONS)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
HALF = [torch.bfloat16, torch.float16]


def rows(
    dtype: torch.dtype = torch.float32, shape: tuple[int, int] = (3, 7), under_mask: float = 0.0
) -> Rows:
    """Normal numbers in rows with holes, one of them empty."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(shape, generator=generator) < 0.7
    mask[1] = False
    rewards, values = (
        torch.where(mask, torch.randn(shape, generator=generator), under_mask).to(dtype) for _ in range(2)
    )
    return rewards, values, mask, torch.randn(shape[0], generator=generator).to(dtype)


@every_operation
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_result_has_the_dtype_and_shape_of_the_first_argument(name: str, dtype: torch.dtype) -> None:
    given = rows(dtype)
    result = OPERATIONS[name](*given)
    assert result.dtype == dtype
    assert result.shape == given[0].shape
    assert result.device == given[0].device


@every_operation
@pytest.mark.parametrize("other", DTYPES, ids=str)
def test_first_argument_decides_where_dtypes_differ(name: str, other: torch.dtype) -> None:
    rewards, values, mask, bootstrap_value = rows()
    result = OPERATIONS[name](rewards, values.to(other), mask, bootstrap_value.to(torch.float64))
    assert result.dtype == rewards.dtype


@every_operation
def test_default_dtype_does_not_matter(name: str) -> None:
    given, before = rows(), torch.get_default_dtype()
    expected = OPERATIONS[name](*given)
    torch.set_default_dtype(torch.float64)
    try:
        got = OPERATIONS[name](*given)
    finally:
        torch.set_default_dtype(before)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


@every_operation
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_is_rounded_once(name: str, dtype: torch.dtype) -> None:
    """It is the float32 result on the same numbers, rounded: bit by bit."""
    given = rows(dtype, shape=(5, 40))
    widened = (x if x.dtype == torch.bool else x.float() for x in given)
    assert torch.equal(OPERATIONS[name](*given), OPERATIONS[name](*widened).to(dtype))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_rounding_every_step_would_show(dtype: torch.dtype) -> None:
    """1 and then many halves of its spacing: added one at a time, they would all be rounded away."""
    half_an_ulp = torch.finfo(dtype).eps / 2
    rewards = torch.full((1, 65), half_an_ulp, dtype=dtype)
    rewards[0, -1] = 1.0
    returns = gae.discounted_returns(
        rewards, torch.ones(1, 65, dtype=torch.bool), rewards[:, 0] * 0, gamma=1.0
    )
    assert returns[0, 0].item() == 1.0 + 64 * half_an_ulp


@every_operation
def test_runs_without_values(name: str) -> None:
    """On the meta device and on fake tensors there is nothing to read, so whoever reads raises."""
    meta = OPERATIONS[name](*(x.to("meta") for x in rows()))
    assert (meta.shape, meta.dtype, meta.device.type) == ((3, 7), torch.float32, "meta")
    with FakeTensorMode() as mode:
        fake = OPERATIONS[name](*(mode.from_tensor(x) for x in rows()))
    assert (fake.shape, fake.dtype) == ((3, 7), torch.float32)


@every_operation
def test_no_kernel_waits_for_a_device_and_none_depends_on_values(name: str) -> None:
    with Recorder() as recorder:
        OPERATIONS[name](*(x.to("meta") for x in rows()))
    assert recorder.kernels
    assert not recorder.waiting


@every_operation
def test_on_the_cpu_the_layout_of_the_mask_is_all_that_is_read(name: str) -> None:
    """Whether it is whole, whether rows are side by side, and of those whether they all begin at the left."""
    with Recorder() as recorder:
        OPERATIONS[name](*rows())
    reads = 0 if name.startswith("whiten") else 3 if name == "gae, holes as steps" else 2
    assert len(recorder.waiting) == reads


@pytest.mark.parametrize(
    ("width", "gamma"),
    [*product([0, 1, 31, 32, 33, 64, 65, 1100], [0.0, 1.0]), *product([1, 2, 31, 32, 33, 40], [0.5])],
)
def test_blocks_sum_as_columns_do(width: int, gamma: float) -> None:
    """On small whole numbers, halved no more often than float64 has room: bit by bit."""
    generator = torch.Generator().manual_seed(width)
    x = torch.randint(-3, 4, (3, width), generator=generator).double()
    sums, following = torch.zeros_like(x), x.new_zeros(3)
    for t in reversed(range(width)):
        sums[:, t] = following = x[:, t] + gamma * following
    assert torch.equal(discounted_sums(x, gamma), sums)


@pytest.mark.parametrize("chunk", [4, 10, rows_of_arrays.CHUNK])
def test_arrays_beside_the_first_may_have_no_columns(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_of_arrays, "CHUNK", chunk)
    x, beside = torch.arange(12.0).reshape(3, 4), torch.tensor([1.0, -1.0, 0.5])
    found = rows_of_arrays.in_chunks(lambda x, beside: x + beside[:, None], x, beside)
    assert torch.equal(found, x + beside[:, None])


def test_powers_are_made_where_they_are_used() -> None:
    """What multiplies on the meta device does not mind where its factors are; a GPU would."""
    powers = rows_of_arrays._powers(0.5, 3, torch.float32, torch.device("meta"))
    assert powers.device.type == "meta"


def test_autocast_does_not_reach_the_sums() -> None:
    given = rows(shape=(3, 70))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = gae.gae(*given, gamma=0.9, lam=0.8)
    assert torch.equal(got, gae.gae(*given, gamma=0.9, lam=0.8))


def test_the_recorder_sees_a_wait() -> None:
    with Recorder() as recorder:
        bool(torch.ones(()) > 0)
    assert recorder.waiting


@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("outer", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_no_gradient_flows_through_constants(name: str, outer: Callable[[], Any]) -> None:
    given = [x if x.dtype == torch.bool else x.requires_grad_() for x in rows()]
    with outer():
        result = OPERATIONS[name](*given)
        assert torch.is_grad_enabled() == (outer is torch.enable_grad)
    assert not result.requires_grad
    assert result.grad_fn is None


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_scales_the_gradient_of_a_loss(name: str) -> None:
    """The gradient of Σ A log π with respect to log π is A, and the values get none."""
    rewards, values, mask, bootstrap_value = rows()
    logprobs = torch.zeros_like(rewards, requires_grad=True)
    values.requires_grad_()
    advantages = OPERATIONS[name](rewards, values, mask, bootstrap_value)
    loss = (advantages * logprobs).sum()
    found, none = torch.autograd.grad(loss, [logprobs, values], allow_unused=True)
    assert torch.equal(found, advantages)
    assert none is None


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in CONSTANTS])
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e4])
def test_gradients_are_clean_under_the_mask(name: str, garbage: float) -> None:
    """What lies there gets gradient 0, and changes no other: 0 times NaN is taken nowhere."""

    def gradients(under_mask: float) -> list[Tensor]:
        given = [x if x.dtype == torch.bool else x.requires_grad_() for x in rows(under_mask=under_mask)]
        result = OPERATIONS[name](*given)
        upstream = torch.linspace(-1.0, 2.0, result.numel()).reshape(result.shape)
        inputs = [x for x in given if x.requires_grad]
        found = torch.autograd.grad(result, inputs, upstream, allow_unused=True, materialize_grads=True)
        return list(found)

    mask = rows()[2]
    for got, clean in zip(gradients(garbage), gradients(0.0), strict=True):
        assert torch.equal(got, clean)
        if got.shape == mask.shape:
            assert not got[~mask].any()


SUMS: dict[str, Callable[..., Tensor]] = {
    "td_errors": lambda r, v, m, b: gae.td_errors(r, v, m, b, gamma=1.0),
    "n_step_advantages": lambda r, v, m, b: gae.n_step_advantages(r, v, m, b, gamma=1.0, n=3),
    "gae": lambda r, v, m, b: gae.gae(r, v, m, b, gamma=1.0, lam=1.0),
    "lambda_returns": lambda r, v, m, b: gae.lambda_returns(r, v, m, b, gamma=1.0, lam=1.0),
    "discounted_returns": lambda r, v, m, b: gae.discounted_returns(r, m, b, gamma=1.0),
}
"""What whole numbers give is whole, whichever way it is added up."""


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
@pytest.mark.parametrize("name", SUMS)
def test_rows_with_holes_are_the_same_where_the_mask_is_not_read(name: str) -> None:
    """As it is while compiling, and elsewhere than on the CPU: by bits on whole numbers."""
    torch.compiler.reset()
    rewards, values, mask, bootstrap_value = rows(shape=(5, 40))
    given = (rewards * 8).round(), (values * 8).round(), mask, (bootstrap_value * 8).round()
    compiled = torch.compile(SUMS[name], backend="eager", fullgraph=True)
    assert torch.equal(compiled(*given), SUMS[name](*given))


@every_operation
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("recorded", [False, True])
def test_where_there_is_no_token_there_is_no_result(
    name: str, shape: tuple[int, int], recorded: bool
) -> None:
    r, v, b = (torch.zeros(size, requires_grad=recorded) for size in (shape, shape, shape[:1]))
    assert OPERATIONS[name](r, v, torch.ones(shape, dtype=torch.bool), b).shape == shape


@every_operation
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -1e4])
def test_result_is_zero_under_the_mask(name: str, garbage: float) -> None:
    given = rows(under_mask=garbage)
    result = OPERATIONS[name](*given)
    assert not result[~given[2]].any()
    assert torch.equal(result, OPERATIONS[name](*rows()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [0.1, 1.0, -1e4, 1 / 3])
@pytest.mark.parametrize("count", [2, 3, 7, 64])
def test_equal_values_whiten_to_what_rounding_leaves(dtype: torch.dtype, value: float, count: int) -> None:
    """The first mean is off by (count - 1) u |x|, the second one by that share of what is left."""
    x = torch.full((1, count), value, dtype=dtype)
    whitened = gae.whiten(x, torch.ones(1, count, dtype=torch.bool), eps=1e-8)
    wide = torch.finfo(torch.promote_types(dtype, torch.float32))
    left = (count * wide.eps) ** 2 * abs(x[0, 0].item())  # eps is 2u: room for the quotients too
    assert whitened.abs().max().item() <= left / 1e-8**0.5


@pytest.mark.parametrize("chunk", [10, rows_of_arrays.CHUNK])
@pytest.mark.parametrize("shift_mean", [True, False])
def test_whitening_is_as_exact_far_from_zero(
    chunk: int, shift_mean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of 1e4 that differ by 0.1, a tenth of them active, in rows that are taken together or alone.

    Two roundings of a distance, half of those of a variance and one of a quotient: no mean is among them.
    """
    monkeypatch.setattr(rows_of_arrays, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        x = 1e4 + 0.1 * torch.randn(8, 40, generator=generator)
        mask = torch.rand(8, 40, generator=generator) < 0.1
        wide = gae.whiten(x.double(), mask, shift_mean=shift_mean, eps=0.0)
        error = (gae.whiten(x, mask, shift_mean=shift_mean, eps=0.0) - wide).abs().max()
        assert error <= (8 + mask.sum() / 2) * 2.0**-24 * wide.abs().max()


@pytest.mark.parametrize("count", [3, 10, 1000])
def test_equal_values_keep_their_mean(count: int) -> None:
    x, mask = torch.full((1, count), 0.1), torch.ones(1, count, dtype=torch.bool)
    assert torch.equal(gae.whiten(x, mask, shift_mean=False, ddof=0), x)


@pytest.mark.parametrize("ddof", [0, 1, 2, 3])
@pytest.mark.parametrize("active", [0, 1, 2])
def test_too_few_to_whiten_are_zero_and_have_no_gradient(active: int, ddof: int) -> None:
    x = torch.tensor([[1.0, 2.0, 4.0]], requires_grad=True)
    whitened = gae.whiten(x, torch.arange(3)[None] < active, ddof=ddof)
    (gradient,) = torch.autograd.grad(whitened.sum(), x)
    assert torch.isfinite(gradient).all()
    if active <= ddof:
        assert not whitened.any()
        assert not gradient.any()
