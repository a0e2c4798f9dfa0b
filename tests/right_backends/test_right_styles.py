"""Right backends pass, whatever their style: other loops, associations, libraries, precisions, seeds."""

import shutil
from pathlib import Path

import pytest

from tests.harness.suite import Outcome, run_suite
from tests.right_backends.styles import STYLES, Style
from torch_impl import kernels

HERE = Path(__file__).parent
AUTOGRAD = [style for style in STYLES if style.what.endswith("autograd")]


@pytest.mark.parametrize("seed", range(8))
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


@pytest.mark.parametrize(
    ("style", "dtype", "operations"),
    [
        ("reference", "float16", "whiten or effective_sample_size or conjugate_gradient"),
        ("torch_impl", "float16", "discounted_returns or rloo_advantages or policy_metrics"),
        ("closed_rows", "float32", "n_step_advantages or gae- or discounted_returns"),
        ("as_if_large", "bfloat16", "gae- or whiten or policy_loss or aggregate or token_logprobs"),
        ("linear_head", "bfloat16", "token_logprobs or token_entropy"),
        ("triton_interpreted", "bfloat16", "gae- or lambda_returns"),
        ("widened", "bfloat16", "lambda_returns or kl_estimate or trust_region_step"),
        ("sums_in_sequence", "float16", "importance_sampling_mean or whiten or grpo_loss"),
        ("sums_pairwise", "float32", "aggregate or sequence_importance_ratio or conjugate_gradient"),
        ("chunked", "bfloat16", "token_entropy or kl_penalty_loss or effective_sample_size"),
        ("log_space", "float64", "kl_divergence or reward_model_loss or dpo_loss"),
        ("number_by_number", "float16", "policy_loss or shaped_rewards or group_advantages"),
        ("jax_losses", "bfloat16", "reward_model_loss"),
        ("compiled", "float32", "sequence_logprobs"),
    ],
)
def test_some_operations(style: str, dtype: str, operations: str) -> None:
    """A part of what the campaign asks of these."""
    if style == "compiled" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler")
    if style == "triton_interpreted" and not kernels.TRITON:
        pytest.skip("Triton is not installed")
    [chosen] = [one for one in STYLES if one.module == style]
    assert dtype in chosen.dtypes
    words = ("--dtype", dtype, "--profile", "quick", "-k", operations)
    _conforms(run_suite("--backend", chosen.backend, *words))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_half_precision_all_the_way(dtype: str) -> None:
    _conforms(run_suite("--backend", HERE / "torch_columns.py", "--dtype", dtype))


@pytest.mark.parametrize(
    ("style", "dtype"),
    [(style, dtype) for n, style in enumerate(AUTOGRAD) for dtype in style.dtypes[n % 2 :: 2]],
    ids=lambda one: getattr(one, "module", one),
)
def test_autograd(style: Style, dtype: str) -> None:
    """Each in every other of its dtypes."""
    _conforms(run_suite("--backend", HERE / f"{style.module}.py", "--dtype", dtype, "--profile", "quick"))


def _conforms(outcome: Outcome) -> None:
    assert outcome.status == 0, "\n\n".join(result["detail"] for result in outcome.failed) or outcome.output
