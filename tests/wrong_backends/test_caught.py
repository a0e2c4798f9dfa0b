"""Wrong backends are caught, in the operation that is wrong and by a clause that says what is wrong."""

import re
from collections import Counter
from pathlib import Path

import pytest

from conformance.operations import OPERATIONS
from tests.harness.suite import run_suite
from tests.wrong_backends.edits import Edit, source
from tests.wrong_backends.equivalents import EQUIVALENT
from tests.wrong_backends.table import EDITS, sample
from tests.wrong_backends.threads import NOT_EXPRESSIBLE

FEWEST = 5
"""Wrong backends of each operation, at least."""
THREAD = r"[\w.-]+/[\w.-]+(#\d+|,? commit [0-9a-f]{7,}|[ @][0-9a-f]{7,})( \(.+\))?"
"""A repository, and the number of a thread or a commit of it."""


@pytest.mark.parametrize("edit", sample(), ids=lambda edit: f"{edit.operation}: {edit.name}")
def test_caught(edit: Edit, tmp_path: Path) -> None:
    backend = tmp_path / "wrong.py"
    backend.write_text(source(edit), encoding="utf-8")
    outcome = run_suite("-x", "--backend", backend, "--dtype", edit.dtype, shrink=False)
    assert outcome.status == 1, outcome.output
    (failure,) = outcome.failed
    assert failure["operation"] == edit.operation
    assert any(slug.startswith(edit.clause) for slug in failure["clauses"]), failure["detail"]
    assert ("gradient" in failure["detail"]) >= edit.values_equal, failure["detail"]


@pytest.mark.parametrize("edit", [edit for edit, _ in EQUIVALENT], ids=lambda edit: edit.name)
def test_what_is_no_mistake_passes(edit: Edit, tmp_path: Path) -> None:
    backend = tmp_path / "right.py"
    backend.write_text(source(edit), encoding="utf-8")
    outcome = run_suite("--backend", backend, "--dtype", edit.dtype)
    assert outcome.status == 0, outcome.output


def test_enough_edits_of_every_operation() -> None:
    counts = Counter(edit.operation for edit in EDITS)
    assert not {name: counts[name] for name in OPERATIONS if counts[name] < FEWEST}
    assert not {edit.operation for edit in sample()} ^ set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_edits_are_edits(operation: str) -> None:
    for edit in EDITS:
        if edit.operation == operation:
            compile(source(edit), edit.name, "exec")


def test_a_wrong_gradient_behind_right_values_of_every_loss() -> None:
    differentiable = {name for name, operation in OPERATIONS.items() if operation.differentiable}
    assert differentiable <= {edit.operation for edit in EDITS if edit.values_equal}


def test_names_are_unique() -> None:
    assert max(Counter((edit.operation, edit.name) for edit in EDITS).values()) == 1


def test_an_edit_that_does_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="occurs 0 times in gae"):
        source(Edit("gae", "", "not there", "there"))
    with pytest.raises(ValueError, match="occurs 2 times in discounted_returns"):
        source(Edit("discounted_returns", "", "gamma", "1"))


def test_a_thread_is_shown_or_it_is_said_why_not() -> None:
    shown = {edit.thread for edit in EDITS if edit.thread}
    elsewhere = [thread for thread, _, _ in NOT_EXPRESSIBLE]
    assert len(set(elsewhere)) == len(elsewhere)
    assert not shown & set(elsewhere)
    assert all(re.fullmatch(THREAD, thread) for thread in [*shown, *elsewhere])
