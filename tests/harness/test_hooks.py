"""The hooks between NumPy and a backend's library: nothing is lost, and gradients are those of calculus."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.arrays import HOOKS, LIBRARIES, NumpyArrays, dtype_name
from conformance.loading import LoadError, hooks
from reference.numbers.formats import FORMATS
from tests.harness.suite import ROOT, run_suite

DTYPES = {
    "numpy": ("float64", "float32", "float16"),
    "torch": ("float64", "float32", "bfloat16", "float16"),
    "jax": ("float64", "float32", "bfloat16", "float16"),
}
PAIRS = [(library, dtype) for library, dtypes in DTYPES.items() for dtype in dtypes]

OWN_HOOKS = """
from conformance.arrays import NumpyArrays

del array_library
library = NumpyArrays()
asarray, to_numpy, gradient = library.asarray, library.to_numpy, library.gradient
"""


def _library(name: str) -> Any:
    if name != "numpy":
        pytest.importorskip(name)
    return LIBRARIES[name]()


@pytest.mark.parametrize(("library", "dtype"), PAIRS)
def test_numbers_survive_both_ways(library: str, dtype: str) -> None:
    form, own = FORMATS[dtype], _library(library)
    x = form.round(np.random.default_rng(0).standard_normal((3, 4)))
    x[0] = 0.0, np.inf, -np.inf, np.nan
    x[1, :2] = form.largest, 1.0 + 2 * form.unit_roundoff
    array = own.asarray(x, dtype, "cpu")
    back = own.to_numpy(array)
    assert dtype_name(array, back) == dtype
    np.testing.assert_array_equal(back.astype(np.float64), x)


@pytest.mark.parametrize("library", DTYPES)
@pytest.mark.parametrize("x", [np.array([[True, False]]), np.array([3, -1])])
def test_masks_and_ids_survive(library: str, x: np.ndarray) -> None:
    own = _library(library)
    array = own.asarray(x, str(x.dtype), "cpu")
    back = own.to_numpy(array)
    assert dtype_name(array, back) == str(x.dtype)
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gradients_are_those_of_calculus(library: str, dtype: str) -> None:
    """d Σ g·x²y = 2gxy dx + gx² dy, on numbers for which this is exact."""
    own = _library(library)
    rng = np.random.default_rng(0)
    x, y, upstream = (rng.integers(-8, 9, (3, 4)).astype(np.float64) for _ in range(3))
    arrays = [own.asarray(v, dtype, "cpu") for v in (x, y)]
    found = own.gradient(lambda x, y: x * x * y, arrays, upstream)
    np.testing.assert_array_equal(own.to_numpy(found[0]), 2 * upstream * x * y)
    np.testing.assert_array_equal(own.to_numpy(found[1]), upstream * x * x)


@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize("function", [lambda x, y: x * x, lambda x, y: 0 * x.shape[0] + y], ids=["x", "y"])
def test_the_gradient_of_what_is_not_used_is_zero(library: str, function: Callable[..., Any]) -> None:
    own = _library(library)
    x = own.asarray(np.array([2.0, 3.0]), "float32", "cpu")
    found = [own.to_numpy(g) for g in own.gradient(function, [x, x], np.array([1.0, 2.0]))]
    assert [g.any() for g in found] in ([True, False], [False, True])


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_no_gradient_through_a_constant(library: str) -> None:
    own = _library(library)
    x = own.asarray(np.array([2.0, 3.0]), "float32", "cpu")
    constant = own.asarray(np.array([5.0, 7.0]), "float32", "cpu")
    (found,) = own.gradient(lambda x: constant, [x], np.array([1.0, 2.0]))
    np.testing.assert_array_equal(own.to_numpy(found), [0.0, 0.0])


@pytest.mark.parametrize(
    ("way", "upstream", "strides"),
    [
        ("plain", [[2.0, 3.0]], (2, 1)),
        ("strided", [[2.0, 3.0]], (4, 2)),
        ("expanded", [[2.0, 2.0]], (0, 0)),
        ("expanded", [[2.0, 2.0], [3.0, 3.0]], (1, 0)),
    ],
)
def test_leaves_lie_where_the_arrays_do_and_upstream_as_it_may(way: str, upstream: Any, strides: Any) -> None:
    own, seen = _library("torch"), []
    wide = own.asarray(np.array([[3.0, 9.0, 5.0, 9.0]] * len(upstream)), "float32", "cpu")
    x = wide[:, ::2]

    def function(leaf: Any) -> Any:
        assert leaf.data_ptr() == x.data_ptr()
        result = leaf * leaf
        result.register_hook(lambda g: seen.append(g.stride()))
        return result

    found = own.differentiate(function, [x], np.array(upstream), way)
    np.testing.assert_array_equal(own.to_numpy(found.gradients[0]), 2 * own.to_numpy(x) * upstream)
    np.testing.assert_array_equal(own.to_numpy(found.result), own.to_numpy(x) ** 2)
    assert not found.changed
    assert seen == [strides]


def test_an_upstream_gradient_that_is_overwritten_is_seen() -> None:
    own = _library("torch")

    def function(leaf: Any) -> Any:
        result = leaf * 2
        result.register_hook(lambda g: g.clone() + 0 * g.neg_())
        return result

    x = own.asarray(np.array([1.0, 2.0]), "float32", "cpu")
    assert own.differentiate(function, [x], np.array([1.0, 2.0])).changed == ["its upstream gradient"]


def test_a_gradient_that_is_left_behind_is_seen() -> None:
    own = _library("torch")

    def function(leaf: Any) -> Any:
        result = (leaf * 2).sum()
        result.backward(retain_graph=True)
        return result

    x = own.asarray(np.array([1.0, 2.0]), "float32", "cpu")
    assert own.differentiate(function, [x], np.array(1.0)).changed == ["the grad of an argument"]


def test_again_is_another_call_and_a_second_backward_pass() -> None:
    own, torch, calls, passes = _library("torch"), pytest.importorskip("torch"), [], []

    class Workspace(torch.autograd.Function):  # type: ignore[name-defined, misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            calls.append(x.tolist())
            return x * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            passes.append(g.tolist())
            return 2 * torch.tensor(calls[-1]) * g

    x = own.asarray(np.array([1.0, 2.0]), "float32", "cpu")
    found = own.differentiate(Workspace.apply, [x], np.array([1.0, 1.0]), "again")
    assert calls == [[1.0, 2.0], [2.0, 1.0]]
    assert passes == [[1.0, 1.0], [1.0, 1.0]]
    np.testing.assert_array_equal(own.to_numpy(found.gradients[0]), [4.0, 2.0])


def test_a_second_backward_pass_may_be_refused() -> None:
    own, torch = _library("torch"), pytest.importorskip("torch")

    class Once(torch.autograd.Function):  # type: ignore[name-defined, misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.first = True
            return 3 * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            if not ctx.first:
                raise RuntimeError("its numbers are gone")
            ctx.first = False
            return 3 * g

    x = own.asarray(np.array([1.0, 2.0]), "float32", "cpu")
    found = own.differentiate(Once.apply, [x], np.array([1.0, 2.0]), "again")
    np.testing.assert_array_equal(own.to_numpy(found.gradients[0]), [3.0, 6.0])


def test_numpy_has_no_gradient() -> None:
    with pytest.raises(NotImplementedError):
        NumpyArrays().gradient(lambda x: x, [np.ones(2)], np.ones(2))


@pytest.mark.parametrize("library", DTYPES)
@pytest.mark.parametrize("result", [None, [1.0], 1.0, "1"])
def test_only_arrays_are_results(library: str, result: object) -> None:
    with pytest.raises(TypeError, match="expected a "):
        _library(library).to_numpy(result)


def test_a_backend_brings_its_own_hooks(tmp_path: Path) -> None:
    columns = ROOT / "tests" / "right_backends" / "columns.py"
    backend = tmp_path / "backend.py"
    backend.write_text(columns.read_text() + OWN_HOOKS)
    outcome = run_suite("--backend", backend, "--profile", "quick", "-k", "td_errors")
    assert outcome.status == 0, outcome.output


OWN_GRADIENT = """
import torch


def asarray(x, dtype, device):
    return torch.tensor(x, dtype=getattr(torch, dtype))


def to_numpy(x):
    return x.numpy()


def differentiate():
    raise AssertionError("this is no hook")


def gradient(function, arrays, cotangent):
    leaves = [x.requires_grad_() for x in arrays]
    result = function(*leaves)
    found = torch.autograd.grad(result, leaves, torch.tensor(cotangent, dtype=result.dtype))
    return RETURNED


def implicit_rewards(policy_logprobs, ref_logprobs, *, beta):
    rewards = beta * (policy_logprobs - ref_logprobs.detach())
    return rewards if policy_logprobs.requires_grad else rewards.detach()
"""


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("list(found)", ""),
        ("[*found, *found]", "gradient returned 2 arrays, expected one for each of policy_logprobs"),
        ("[x.sum() for x in found]", "the gradient in policy_logprobs has shape (), expected (3,)"),
    ],
)
def test_gradients_of_a_backends_own(returned: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "backend.py").write_text(OWN_GRADIENT.replace("RETURNED", returned))
    words = ("--backend", tmp_path / "backend.py", "--profile", "quick", "--dtype", "float32")
    outcome = run_suite(*words, "-k", "gradient or differentiated", shrink=False)
    assert outcome.status == bool(told), outcome.output
    assert bool(outcome.failed) == bool(told)
    headlines = [result["detail"].splitlines()[0] for result in outcome.failed]
    assert all("implicit_rewards in float32 breaks " in line and told[:30] in line for line in headlines)


OTHER_ORDERS = """
from types import SimpleNamespace

import numpy as np

ORDERS = np.random.default_rng(0)


class OnDevice(np.ndarray):
    device = SimpleNamespace(type="cuda")


def asarray(x, dtype, device):
    return np.array(x, dtype=dtype).view(OnDevice)


def to_numpy(x):
    return np.asarray(x)


def gradient(function, arrays, cotangent):
    raise NotImplementedError("no gradients")


def aggregate(x, mask, *, mode, horizon=None, empty_rows="count"):
    if mode != "token-mean":
        raise NotImplementedError(mode)
    active = np.asarray(x)[np.asarray(mask)MASK]
    total = x.dtype.type(0)
    for place in ORDERS.permutation(len(active)):
        total += active[place]
    return np.asarray(total / x.dtype.type(max(mask.sum(), 1)), dtype=x.dtype).view(OnDevice)
"""


@pytest.mark.parametrize("mask", ["", " | True"], ids=["right", "without the mask"])
def test_a_device_that_adds_up_in_any_order(mask: str, tmp_path: Path) -> None:
    (tmp_path / "backend.py").write_text(OTHER_ORDERS.replace("MASK", mask))
    words = ("--backend", tmp_path / "backend.py", "--dtype", "float32", "--device", "cuda")
    outcome = run_suite(*words, "-k", "aggregate and (masked or pure)", shrink=False)
    failed = {result["test"].partition("::")[2].partition("[")[0] for result in outcome.failed}
    assert failed == ({"test_masked_garbage", "test_masked_nonfinite"} if mask else set()), outcome.output


@pytest.mark.parametrize("returned", ["np.array(after)", "np.float64(after)", "float(after)", "OnCpu(after)"])
def test_a_coefficient_is_a_number_of_any_kind(returned: str, tmp_path: Path) -> None:
    text = (
        "import numpy as np\nfrom types import SimpleNamespace\n"
        "def asarray(x, dtype, device):\n    return np.array(x, dtype)\n"
        "def to_numpy(x):\n    return np.asarray(x)\n"
        "def gradient(*given):\n    raise NotImplementedError('none')\n"
        "class OnCpu(np.ndarray):\n    device = SimpleNamespace(type='cpu')\n"
        "    def __new__(cls, x):\n        return np.array(x).view(cls)\n"
        "def adaptive_kl_coef(*, coef, kl, target):\n"
        "    after = 2 * coef if kl > 1.5 * target else coef / 2 if kl < target / 1.5 else coef\n"
        f"    return {returned}\n"
    )
    (tmp_path / "backend.py").write_text(text)
    outcome = run_suite("--backend", tmp_path / "backend.py", "--profile", "quick", "--device", "cuda")
    assert outcome.status == 0, outcome.output


@pytest.mark.parametrize("missing", HOOKS)
def test_two_of_three_hooks_are_not_enough(missing: str) -> None:
    backend = type("Backend", (), {name: staticmethod(print) for name in HOOKS if name != missing})()
    with pytest.raises(LoadError, match="or define asarray, to_numpy, gradient"):
        hooks(backend)
