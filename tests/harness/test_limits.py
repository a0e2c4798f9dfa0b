"""What a backend says that it cannot be called with, and what its signatures say."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conformance.limits import unknown_value, without_place
from conformance.loading import places, provided, tracer
from conformance.operations import OPERATIONS
from conformance.values import option_values
from tests.harness.suite import ROOT, run_suite

OPTIONS = {name: list(operation.options) for name, operation in OPERATIONS.items()}

UNKNOWN = {
    "aggregate": ("mode", "token_mean", "mode must be one of 'token-mean', 'seq-mean-token-sum', "),
    "whiten": ("ddof", "1", "ddof must be an integer of at least 0"),
    "train_step": ("algorithm", "pp0", "algorithm must be one of 'ppo', 'grpo', "),
    "conjugate_gradient": ("max_iters", 2.0, "max_iters must be an integer of at least "),
}


def _four(logprobs: Any, old_logprobs: Any, advantages: Any, mask: Any, *, clip_low: Any) -> Any: ...
def _options_by_place(
    logprobs: Any, old_logprobs: Any, advantages: Any, mask: Any, clip_low: Any, clip_high: Any
) -> Any: ...
def _five(logprobs: Any, old_logprobs: Any, advantages: Any, mask: Any, weights: Any = None) -> Any: ...
def _three(logprobs: Any, old_logprobs: Any, advantages: Any, *, mask: Any) -> Any: ...
def _any(logprobs: Any, *others: Any) -> Any: ...


@pytest.mark.parametrize("operation", UNKNOWN)
def test_a_value_that_there_is_not_is_named(operation: str) -> None:
    name, value, expected = UNKNOWN[operation]
    (right, *_) = option_values(operation, name)
    told = unknown_value({operation: {name: (right, value)}})
    what = f"its options give {operation}.{name} the value {value!r}, which the protocol does not have: "
    assert told.startswith(what + expected)
    assert ", got " not in told


def test_no_value_of_the_protocol_is_refused() -> None:
    every = {
        operation: {
            name: (*option_values(operation, name), *option_values(operation, name, exact=True))
            for name in options
        }
        for operation, options in OPTIONS.items()
    }
    assert unknown_value(every) == ""


def test_values_that_go_together_are_tried_alone() -> None:
    assert unknown_value({"dpo_loss": {"label_smoothing": (0.1,), "loss_type": ("hinge", "sigmoid")}}) == ""
    assert unknown_value({"train_step": {"minibatch_rows": (3,), "algorithm": ("dpo", "grpo")}}) == ""


@pytest.mark.parametrize(
    ("function", "lacking"),
    [
        (_four, ("rollout_weights",)),
        (_options_by_place, ("rollout_weights",)),
        (_five, ()),
        (_three, ()),
        (_any, ()),
        (print, ()),
        ("no function", ()),
    ],
)
def test_an_argument_is_left_out_where_that_is_certain(
    function: Callable[..., Any], lacking: tuple[str, ...]
) -> None:
    found = without_place(places(SimpleNamespace(policy_loss=function), OPTIONS))
    assert found.get("policy_loss", ()) == lacking


def _wrapper(*arguments: Any, **given: Any) -> Any: ...
def _keywords(x: Any, mask: Any, **given: Any) -> Any: ...


class _Module:
    """Called with anything, as a `torch.nn.Module` is, and written as `forward`."""

    def __call__(self, *arguments: Any, **given: Any) -> Any: ...
    def forward(self, x: Any, mask: Any, *, eps: float) -> Any: ...


@pytest.mark.parametrize(
    ("function", "taken"),
    [
        (_wrapper, ["shift_mean", "eps"]),
        (_keywords, None),
        (_Module(), ["x", "mask", "eps"]),
    ],
)
def test_an_option_fixed_at_its_default_is_not_given_to_a_wrapper(
    function: Callable[..., Any], taken: list[str] | None
) -> None:
    limits = {"whiten": {"ddof": (1,), "eps": (0.0,)}}
    assert provided(SimpleNamespace(whiten=function, options=limits), OPTIONS) == {"whiten": taken}


def test_a_trace_that_a_library_brings_is_none() -> None:
    assert tracer(SimpleNamespace(trace=np.trace)) is None
    assert tracer(SimpleNamespace()) is None
    assert tracer(SimpleNamespace(trace=_wrapper)) is _wrapper


def test_an_operation_is_served_without_an_argument_that_it_lacks(tmp_path: Path) -> None:
    text = (ROOT / "tests" / "right_backends" / "torch_policy_loss.py").read_text()
    for old, new in (
        ("    rollout_weights: Tensor | None = None,\n", ""),
        ("    if rollout_weights is not None:\n        objective = ", "    if False:\n        objective = "),
        ("mask, rollout_weights, 0", "mask, 1, 0"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    backend = tmp_path / "backend.py"
    backend.write_text(text, encoding="utf-8")
    words = ("--profile", "quick", "--dtype", "float32", "-k", "policy_loss-")
    outcome = run_suite("--backend", backend, *words, shrink=False)
    assert outcome.status == 0, outcome.output
    assert set(outcome.tests("policy_loss").values()) == {"passed"}
    assert "limited: policy_loss: rollout_weights is only None" in outcome.output
    assert "limited: policy_loss: policy_loss has no argument 'rollout_weights'" in outcome.output
