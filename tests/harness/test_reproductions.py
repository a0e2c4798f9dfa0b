"""The code of a failure runs alone, and gives the answer that the failure tells of."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.harness.suite import run_suite

QUICK = ("--profile", "quick", "--dtype", "float32")

BACKENDS = {
    "whiten": """
import numpy as np

array_library = "numpy"


def whiten(x, mask, *, ddof=1):  # the suite leaves out what it does not take, and so has the code to
    return (x - x[mask].mean()) / np.sqrt(x[mask].var() + np.float32(1e-8)) if mask.any() else x
""",
    "kl_estimate": """
array_library = "torch"


def kl_estimate(logprobs, ref_logprobs, *, estimator, log_ratio_clip=None, value_clip=None):
    return logprobs * 2 - ref_logprobs
""",
    "value_loss": """
import jax.numpy as jnp

array_library = "jax"


def value_loss(values, old_values, returns, mask, **options):
    return jnp.where(mask, (values - returns) ** 2, 0).sum()
""",
    "conjugate_gradient": """
array_library = "torch"


def conjugate_gradient(matvec, b, *, max_iters, tol):
    return matvec(b)
""",
    "backtracking_line_search": """
array_library = "torch"


def backtracking_line_search(evaluate, parameters, full_step, *, max_kl, backtrack=0.5, max_steps=10):
    evaluate(parameters)
    return parameters + full_step
""",
    "policy_metrics": """
array_library = "torch"


def policy_metrics(logprobs, old_logprobs, advantages, mask, *, clip_low, clip_high, dual_clip=None):
    kl = (old_logprobs - logprobs).mean()
    return {"approx_kl": kl, "clip_fraction": kl, "dual_clip_fraction": kl}
""",
    "policy_loss": """
array_library = "torch"


def policy_loss(logprobs, old_logprobs, advantages, mask, *, clip_low, clip_high):  # and no rollout_weights
    return (logprobs * advantages).sum()
""",
    "proportional_kl_coef": """
array_library = "numpy"


def proportional_kl_coef(*, coef, kl, target, horizon, n_steps):
    return coef
""",
    "discounted_returns": """
import numpy as np


def asarray(x, dtype, device):
    return np.asarray(x, dtype).tolist()


def to_numpy(x):
    return np.asarray(x, np.float32)


def gradient(function, arrays, cotangent):
    raise NotImplementedError("none")


def discounted_returns(rewards, mask, bootstrap_value, *, gamma):
    return rewards
""",
}


@pytest.mark.parametrize("operation", BACKENDS)
def test_it_runs_alone(operation: str, tmp_path: Path) -> None:
    backend = tmp_path / "backend.py"
    backend.write_text(BACKENDS[operation], encoding="utf-8")
    failed = run_suite("--backend", backend, *QUICK, "-k", "not contract").failed
    told = [(r["reproduction"], found) for r in failed if (found := _got(r["detail"]))][:4]
    assert told
    for code, (gradient, index, got) in told:
        printed = _run(code, tmp_path)
        assert ("upstream" in code) == gradient
        answer = np.atleast_1d(np.asarray(_numbers(printed), dtype=np.float32))  # None becomes NaN
        assert np.array_equal(answer[index or 0], np.float32(got), equal_nan=True)


def test_a_long_input_is_whole_in_the_report(tmp_path: Path) -> None:
    backend = tmp_path / "backend.py"
    many = BACKENDS["whiten"].replace(
        "    return", "    if x.size <= 40:\n        raise NotImplementedError\n    return"
    )
    backend.write_text(many, encoding="utf-8")
    words = ("--backend", backend, *QUICK, "-k", "test_whiten")
    long = [r for r in run_suite(*words, shrink=False).failed if "shortened, shape" in r["detail"]]
    assert long
    assert _numbers(_run(long[0]["reproduction"], tmp_path))


def _got(story: str) -> tuple[bool, tuple[int, ...], float] | None:
    """What a story says the answer was: whether it is a gradient's, where, and the number."""
    match = re.search(r"^got +(result|gradient in \w+)(?:\[([\d, ]*)\])? = (\S+)$", story, re.MULTILINE)
    if match is None:
        return None
    index = tuple(int(word) for word in match[2].split(", ")) if match[2] else ()
    return match[1] != "result", index, float(match[3])


def _run(code: str, folder: Path) -> str:
    """Run code as its reader would, where the project cannot be imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    return done.stdout


def _numbers(printed: str) -> Any:
    """What was printed, as numbers: a list, a number, or a dict's values."""
    value = ast.literal_eval(printed.replace("nan", "None"))
    return list(value.values()) if isinstance(value, dict) else value
