"""A backend that shows its intermediates is told where a wrong answer begins."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.cases import ordinary
from conformance.operations import OPERATIONS
from conformance.trace import INTERMEDIATES, first_divergence
from tests.harness.suite import run_suite

BACKEND = """
import numpy as np

array_library = "numpy"


def trace(operation, x, mask, *, shift_mean=True, ddof=1, eps=1e-8):
    if not mask.any():
        raise NotImplementedError("nothing active")
    mean = MEAN
    return {"mean": np.asarray(mean), "deviations": x - mean}


def whiten(x, mask, *, shift_mean=True, ddof=1, eps=1e-8):
    count = int(mask.sum())
    if count <= ddof:
        return np.zeros_like(x)
    mean = MEAN
    variance = ((x - mean)[mask] ** 2).sum() / DIVISOR
    return (x - mean) / np.sqrt(variance + x.dtype.type(eps)) + (0 if shift_mean else mean)
"""


@pytest.mark.parametrize(
    ("mean", "divisor", "told"),
    [
        ("x[mask].sum() / x.size", "(count - ddof)", "begins     in mean[] = "),
        ("x[mask].mean()", "count", "begins     after deviations, which is right"),
    ],
)
def test_message_says_where(mean: str, divisor: str, told: str, tmp_path: Path) -> None:
    backend = tmp_path / "backend.py"
    backend.write_text(BACKEND.replace("MEAN", mean).replace("DIVISOR", divisor), encoding="utf-8")
    words = ("--profile", "quick", "--dtype", "float32", "-k", "test_gae and test_whiten")
    failed = run_suite("--backend", backend, *words).failed
    lines = [line for result in failed for line in result["detail"].splitlines()]
    assert any(line.startswith(told) for line in lines), lines


@pytest.mark.parametrize("operation", INTERMEDIATES)
def test_right_intermediates_hold_and_wrong_ones_are_named(operation: str) -> None:
    case = ordinary(operation, "float64", {})
    formulas = {
        name: found
        for name, formula in INTERMEDIATES[operation].items()
        if (found := formula(*case.arguments.values(), **case.options)) is not None
    }
    right: dict[str, Any] = {name: np.asarray(x, dtype=np.float64) for name, x in formulas.items()}
    if right:
        assert first_divergence(case, right) == [f"begins     after {list(right)[-1]}, which is right"]
    for name, x in right.items():
        (line,) = first_divergence(case, {**right, name: x + 0.5})
        assert line.startswith(f"begins     in {name}[")
        (line,) = first_divergence(case, {**right, name: x[None]})
        assert line.startswith(f"begins     in {name}, of shape (1")


def test_intermediates_are_those_of_operations() -> None:
    assert set(INTERMEDIATES) <= set(OPERATIONS)
