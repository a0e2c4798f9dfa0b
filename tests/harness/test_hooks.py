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


@pytest.mark.parametrize("missing", HOOKS)
def test_two_of_three_hooks_are_not_enough(missing: str) -> None:
    backend = type("Backend", (), {name: staticmethod(print) for name in HOOKS if name != missing})()
    with pytest.raises(LoadError, match="or define asarray, to_numpy, gradient"):
        hooks(backend)
