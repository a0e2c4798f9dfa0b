"""A setting of its library that a call leaves changed is named."""

from pathlib import Path

from tests.harness.suite import Outcome, run_suite

BACKEND = """
import jax

array_library = "jax"


def importance_ratio(logprobs, old_logprobs, *, log_ratio_clip=20.0):
    jax.config.update("jax_enable_x64", {float64})
    bound = jax.numpy.inf if log_ratio_clip is None else log_ratio_clip
    return jax.numpy.exp(jax.numpy.clip(logprobs - jax.lax.stop_gradient(old_logprobs), -bound, bound))
"""


def test_float64_switched_off(tmp_path: Path) -> None:
    (failure,) = _run(tmp_path, float64=False).failed
    assert "a setting of its library: jax_enable_x64 was True, and is False" in failure["detail"]


def test_settings_left_alone(tmp_path: Path) -> None:
    outcome = _run(tmp_path, float64=True)
    assert outcome.status == 0, outcome.output


def _run(folder: Path, *, float64: bool) -> Outcome:
    backend = folder / "backend.py"
    backend.write_text(BACKEND.format(float64=float64), encoding="utf-8")
    return run_suite("--backend", backend, "--profile", "quick", "--dtype", "float32")
