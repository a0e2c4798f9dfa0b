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

from conformance.cases import Case
from conformance.reproduction import MAX_NUMBERS, WHOLE, Call, Source, script
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


RETURNS = """
array_library = "torch"
import torch


def discounted_returns(rewards, mask, bootstrap_value, *, gamma):
    out, following = torch.zeros_like(rewards), {end}
    for t in reversed(range(rewards.shape[1])):
        following = torch.where(mask[:, t], rewards[:, t] + gamma * following, following)
        out[:, t] = following
    return out{less}
"""
NOT_BEHIND_PADDING = "bootstrap_value * (mask[:, -1].any() | (mask.shape[1] < 8))"
RELATIONS = {
    "test_padding": RETURNS.format(end=NOT_BEHIND_PADDING, less=""),
    "test_permutation": RETURNS.format(
        end="bootstrap_value", less=" + (len(rewards) > 1) * (rewards[0, 0] > rewards[-1, 0])"
    ),
    "test_more_logits_than_16_bits_count": """
import torch

array_library = "torch"


class Backend:
    def token_entropy(self, logits, *, temperature=1.0):
        return torch.distributions.Categorical(logits=logits / temperature).entropy()
""",
    "test_mean_gradients_of_estimates": """
array_library = "torch"


def kl_estimate(logprobs, ref_logprobs, *, estimator="k1", log_ratio_clip=None, value_clip=None):
    ell = logprobs - ref_logprobs
    return {"k1": ell, "k2": ell * ell / 2}.get(estimator, (-ell).expm1() + ell + ell * ell / 8)
""",
    "test_means_of_estimates": """
array_library = "numpy"


def kl_estimate(logprobs, ref_logprobs, *, estimator="k1", log_ratio_clip=None, value_clip=None):
    return (logprobs - ref_logprobs) / 2
""",
}
"""What breaks a relation between calls: by the test that finds it."""

FAULTS = {
    "a list": ("return rewards.tolist()", "[["),
    "nothing": ("rewards + gamma", "None"),
    "another dtype": ("return rewards.astype('f2')", "dtype=float16"),
    "another shape": ("return rewards[:, :1]", "array([["),
}
"""What comes in the place of a result, and what the code prints of it."""

ADAPTER = """
import numpy as np

array_library = "numpy"
KEPT = {{}}


def td_errors(rewards, values, mask, bootstrap_value, *, gamma):
    {body}
"""


@pytest.mark.parametrize("test", RELATIONS)
def test_it_makes_the_call_that_failed(test: str, tmp_path: Path) -> None:
    (tmp_path / "backend.py").write_text(RELATIONS[test], encoding="utf-8")
    backend = f"{tmp_path / 'backend.py'}{':Backend' * ('class Backend' in RELATIONS[test])}"
    (failure,) = run_suite("--backend", backend, *QUICK, "-k", test).failed
    index, got = _told(failure["detail"])
    answer = np.atleast_1d(np.asarray(_numbers(_run(failure["reproduction"], tmp_path)), dtype=np.float32))
    assert np.array_equal(answer[index or 0], np.float32(got), equal_nan=True), failure["detail"]


@pytest.mark.parametrize("fault", FAULTS)
def test_it_shows_what_came_in_the_place_of_a_result(fault: str, tmp_path: Path) -> None:
    body, shown = FAULTS[fault]
    assert shown in _run(_fault(body, tmp_path), tmp_path)


def test_it_shows_what_became_of_an_argument(tmp_path: Path) -> None:
    code = _fault("rewards *= 0; return rewards + 1", tmp_path)
    assert not np.any(_numbers(_run(code, tmp_path)))


def test_it_shows_what_became_of_a_result(tmp_path: Path) -> None:
    body = "out = KEPT.setdefault(rewards.shape, rewards); out[:] = rewards; return out"
    before, after = _run(_fault(body, tmp_path), tmp_path).splitlines()
    assert _numbers(before) != _numbers(after)


def _fault(body: str, folder: Path) -> str:
    """The code of what the first calls of an adapter show."""
    backend = folder / "backend.py"
    backend.write_text(ADAPTER.format(body=body), encoding="utf-8")
    (failure,) = run_suite("--backend", backend, *QUICK).failed
    return str(failure["reproduction"])


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
        "    return", f"    if x.size <= {MAX_NUMBERS}:\n        raise NotImplementedError\n    return"
    )
    backend.write_text(many, encoding="utf-8")
    words = ("--backend", backend, *QUICK, "-k", "test_whiten")
    long = [r for r in run_suite(*words, shrink=False).failed if WHOLE in r["detail"]]
    assert long
    assert _numbers(_run(long[0]["reproduction"], tmp_path))


def _got(story: str) -> tuple[bool, tuple[int, ...], float] | None:
    """What a story says the answer was: whether it is a gradient's, where, and the number."""
    match = re.search(r"^got +(result|gradient in \w+)(?:\[([\d, ]*)\])? = (\S+)$", story, re.MULTILINE)
    if match is None:
        return None
    index = tuple(int(word) for word in match[2].split(", ")) if match[2] else ()
    return match[1] != "result", index, float(match[3])


def _told(story: str) -> tuple[tuple[int, ...], float]:
    """Where a story says that an answer is wrong, and what it is there."""
    [(place, number)] = re.findall(r"^got +.+?(?:\[([\d, ]*)\])? = (\S+)$", story, re.MULTILINE)
    return tuple(int(word) for word in place.split(", ") if word), float(number)


@pytest.mark.parametrize("value", [0.0, -np.inf])
def test_an_array_is_filled_where_that_is_shorter(value: float) -> None:
    array = np.full((3, 70), value)
    array[1, 3], array[2, 1], array[2, 2] = 7.0, np.inf, -0.0
    for x in (array, np.arange(2.0 * MAX_NUMBERS), array > 0, array[:, :2]):
        found: dict[str, Any] = {"np": np}
        exec("\n".join(_lines(x, whole=True)), found)
        np.testing.assert_array_equal(found["x"], x)
        np.testing.assert_array_equal(np.signbit(1.0 * found["x"]), np.signbit(1.0 * x))
    assert len("".join(_lines(array, whole=False))) < len(repr(array.tolist())) / 4


def _lines(x: np.ndarray, whole: bool) -> list[str]:
    """The line of a reproduction that makes an array."""
    case = Case("whiten", {"x": x}, {}, "float32", "generic")
    lines = script(Call(case), Source("x.py", False, "numpy", "cpu"), whole)
    return [line for line in lines if line.startswith("x = ")]


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
