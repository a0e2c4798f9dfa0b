"""The suite has an input for each option that can be left out, and each other value that it may be taken for."""

from typing import Any

import pytest

from conformance import test_defaults
from conformance.operations import OPERATIONS
from conformance.protocol import REQUIRED
from conformance.run import Run
from conformance.test_defaults import WITH_DEFAULTS, telling
from tests.harness.together import Here

OPTIONS = [
    (name, option)
    for name in WITH_DEFAULTS
    for option, default in OPERATIONS[name].options.items()
    if default is not REQUIRED
]


@pytest.mark.parametrize(("operation", "option"), OPTIONS, ids=map(".".join, OPTIONS))
def test_an_input_shows_each_default(operation: str, option: str) -> None:
    found, untold = telling(operation, "float64", option, {})
    assert found
    assert not untold


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
