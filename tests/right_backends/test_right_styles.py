"""Right backends pass, whatever their style: other loops, associations, libraries, precisions, seeds."""

from pathlib import Path

import pytest

from tests.harness.suite import Outcome, run_suite
from tests.right_backends.styles import STYLES, Style

HERE = Path(__file__).parent


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("style", ["token_lists", "scan"])
def test_every_seed(style: str, seed: int) -> None:
    dtype = ("float32", "float64")[seed % 2]
    words = ["--profile", "quick", "--seed", seed, "--dtype", dtype]
    _conforms(run_suite("--backend", HERE / f"{style}.py", *words))


@pytest.mark.parametrize(
    "style", ["columns", "other_associations", "matrix_blocks", "doubling", "float64_inside"]
)
def test_another_association(style: str) -> None:
    _conforms(run_suite("--backend", HERE / f"{style}.py", "--dtype", "float32"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_half_precision_all_the_way(dtype: str) -> None:
    _conforms(run_suite("--backend", HERE / "torch_columns.py", "--dtype", dtype))


@pytest.mark.parametrize(
    ("style", "dtype"), [(s, d) for s in STYLES for d in s.dtypes if s.what.endswith("autograd")]
)
def test_autograd(style: Style, dtype: str) -> None:
    _conforms(run_suite("--backend", HERE / f"{style.module}.py", "--dtype", dtype, "--profile", "quick"))


def _conforms(outcome: Outcome) -> None:
    assert outcome.status == 0, "\n\n".join(result["detail"] for result in outcome.failed) or outcome.output
