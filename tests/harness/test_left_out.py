"""The suite has an input at which each default shows, and each value that is far out."""

from typing import Any

import pytest

from conformance import test_defaults
from conformance.operations import OPERATIONS
from conformance.protocol import REQUIRED
from conformance.run import Run
from conformance.telling import of_option, telling
from conformance.test_defaults import WITH_DEFAULTS, others
from conformance.values import FAR, option_values
from tests.harness.together import Here

OPTIONS = [
    (name, option)
    for name in WITH_DEFAULTS
    for option, default in OPERATIONS[name].options.items()
    if default is not REQUIRED
]
FAR_OUT = [
    (name, option, value)
    for name, operation in OPERATIONS.items()
    for option in operation.options
    for value in of_option(FAR, name, option, ())
]


@pytest.mark.parametrize(("operation", "option"), OPTIONS, ids=map(".".join, OPTIONS))
def test_an_input_shows_each_default(operation: str, option: str) -> None:
    default = OPERATIONS[operation].options[option]
    found, untold = telling(operation, "float64", option, default, others(operation, option), {})
    assert found
    assert not untold


@pytest.mark.parametrize(("operation", "option", "value"), FAR_OUT, ids=str)
def test_an_input_shows_each_far_value(operation: str, option: str, value: Any) -> None:
    found, _ = telling(operation, "float64", option, value, option_values(operation, option), {})
    assert found


def test_each_option_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = set()
    at_default = Run.at_default

    def noted(run: Run, case: Any, option: str) -> None:
        left_out.add((case.operation, option))
        at_default(run, case, option)

    monkeypatch.setattr(Run, "at_default", noted)
    backend = Here("reference")
    for operation in WITH_DEFAULTS:
        test_defaults.test_options_left_out(Run(backend, operation, "float64", "quick", 0, "left out"))
    assert left_out == set(OPTIONS)
