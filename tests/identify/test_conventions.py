"""The readings themselves: each is what it says, and each is told from a backend that follows it."""

from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from conformance.asking import Answer, Call, calls
from conformance.cases import REGIONS, Case, cases
from conformance.conventions import FAMILIES, hypotheses
from conformance.conventions.family import Family, Hypothesis
from conformance.identify import distance, identify
from conformance.operations import OPERATIONS
from conformance.oracle import computed, permitted_by
from spec.registry import current
from tests.identify.formulas import FormulaBackend

EDITS = [edit for operation in OPERATIONS for edit in hypotheses(operation)]
TOO_FINE = {"aggregate with 1e-8 added to the count": "float32 rounds the count and 1e-8 to the count"}
"""Readings that float32 does not tell from the clause's own, and why."""


def all_calls(family: Family, dtype: str) -> list[Call]:
    """What is asked of a backend that takes every option."""
    return list(calls(family, dtype, frozenset(OPERATIONS[family.operation].options), {}))


def by_label(edit: Hypothesis) -> str:
    return edit.label


def test_every_operation_has_a_family() -> None:
    assert set(FAMILIES) == set(OPERATIONS)


def test_every_clause_exists_and_no_label_means_two_things() -> None:
    assert {edit.clause for edit in EDITS} <= set(current().clauses)
    assert len({edit.label for edit in EDITS}) == len(EDITS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_at_its_defaults_a_formula_is_the_reference(operation: str) -> None:
    family, own = FAMILIES[operation], OPERATIONS[operation]
    for call in all_calls(family, "float64"):
        with np.errstate(all="ignore"):
            right = (
                computed(call.case, own.gradient, *call.upstream)  # type: ignore[arg-type]
                if call.upstream
                else computed(call.case, own.reference)
            )
        assert distance(Answer(call, right), Hypothesis(family, {})) <= 1.0


@pytest.mark.parametrize("edit", EDITS, ids=by_label)
def test_a_backend_that_follows_a_reading_is_told_to(edit: Hypothesis) -> None:
    backend = FormulaBackend(edit)
    found = identify(backend, edit.family.operation, "float32")  # type: ignore[arg-type]
    assert found.known
    assert not found.misses
    [(name, label)] = edit.choices.items()
    [choices] = [finding.choices for finding in found.findings if finding.convention.name == name]
    assert label in choices
    assert (len(choices) > 1) == (edit.label in TOO_FINE)


@pytest.mark.parametrize("edit", [e for e in EDITS if e.label in TOO_FINE], ids=by_label)
def test_float64_tells_what_is_too_fine_for_float32(edit: Hypothesis) -> None:
    found = identify(FormulaBackend(edit), edit.family.operation, "float64")  # type: ignore[arg-type]
    [(name, label)] = edit.choices.items()
    assert [x.choices for x in found.findings if x.convention.name == name] == [(label,)]


def test_what_an_observation_is_said_not_to_see_changes_no_answer() -> None:
    looked_at = 0
    for family in FAMILIES.values():
        edits = list(family.edits())
        for call in all_calls(family, "float32"):
            if call.sees is None:
                continue
            for seen, unseen in product([Hypothesis(family, {}), *edits], edits):
                names = set(seen.choices), set(unseen.choices)
                if names[0] <= set(call.sees) and not names[1] <= set(call.sees):
                    both = Hypothesis(family, {**seen.choices, **unseen.choices})
                    assert _answers(call, both) == _answers(call, seen), (
                        f"{call.observation.name}: {both.label}"
                    )
                    looked_at += 1
    assert looked_at > 0


def _answers(call: Call, reading: Hypothesis) -> bytes:
    formula = reading.gradient if call.upstream else reading.formula
    assert formula is not None
    return computed(call.case, formula, *call.upstream).tobytes()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_reading_runs_on_whatever_the_suite_draws(operation: str) -> None:
    limits = settings(
        max_examples=2,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )

    def check(case: Case) -> None:
        for edit in hypotheses(operation):
            shape = permitted_by(case, edit.formula).balls.shape
            assert shape == OPERATIONS[operation].result_shape(case.arguments)

    for region in REGIONS:
        limits(given(case=cases(operation, region, "float32"))(check))()
