"""Side by side, backends get the verdict that the suite gives each of them alone."""

from pathlib import Path
from typing import Any

import pytest

from tests.harness import together
from tests.harness.suite import run_suite
from tests.wrong_backends.edits import Edit, source
from tests.wrong_backends.museum import Accused, Trial, side_by_side
from tests.wrong_backends.table import EDITS

SOME = {
    "n_step_advantages": "written into the values",  # the smoke test fails, and no other is run
    "adaptive_kl_coef": "never raised",  # the second of the draws of one region shows it
    "kl_estimate": "half the gradient of k2",
    "lambda_returns": "remembered by all but the values",  # what it was asked before matters
}


def apart(edit: Edit) -> Trial:
    """Side by side, in a process of its own."""
    with together.pool(1) as pool:
        [trial] = pool.submit(side_by_side, (edit,), 3, "quick").result()
    return trial


@pytest.mark.parametrize("edit", [edit for edit in EDITS if SOME.get(edit.operation) == edit.name])
def test_the_verdict_is_the_suites(edit: Edit, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(source(edit), encoding="utf-8")
    words = ("--backend", wrong, "--dtype", edit.dtype, "--profile", "quick", "--seed", 3)
    alone = [result["test"] for result in run_suite(*words, shrink=False).failed]
    assert list(apart(edit).tests) == alone != []


FEW_MODES = """
from conformance.adapters.torch_impl import aggregate
array_library = "torch"
options = {"aggregate": {"mode": ("token-mean",), "empty_rows": ("drop",), "horizon": (None, 100)}}
"""
"""Token means read no horizon, so that no input can show whether it is used."""


def its_verdicts(name: str) -> list[together.Verdict]:
    return list(together.verdicts({"it": together.Here(name)}, "bfloat16", "quick", 3, ["aggregate"]))


def test_what_no_input_decides_is_no_failure(tmp_path: Path) -> None:
    """The suite says of it that it was not run."""
    right = tmp_path / "right.py"
    right.write_text(FEW_MODES, encoding="utf-8")
    with together.pool(1) as pool:
        found = pool.submit(its_verdicts, str(right)).result()
    outcome = run_suite("--backend", right, "--dtype", "bfloat16", "--profile", "quick", "--seed", 3)
    not_run = [test for test, how in outcome.tests("aggregate").items() if how == "not run"]
    assert [verdict.test for verdict in found if verdict.undecided] == not_run != []
    assert not any(verdict.failure for verdict in found)
    assert outcome.status == 0


def test_there_are_all_of_these() -> None:
    assert SOME.items() <= {(edit.operation, edit.name) for edit in EDITS}


def test_a_right_backend_that_fails_is_told() -> None:
    """columns.py is right in the dtypes that it says; nothing may be concluded from others."""
    edit = next(edit for edit in EDITS if edit.operation == "td_errors")
    with pytest.raises(Accused, match="td_errors of columns, seed 3"):
        apart(Edit("td_errors", edit.name, edit.old, edit.new, dtype="bfloat16"))


def under_two_seeds(name: str, passed: together.Passed | None) -> list[Any]:
    """The verdicts on a file under one seed and another, and after each how many given cases are passed."""
    backends = {"it": together.Here(name)}
    told: list[Any] = []
    for seed in (0, 1):
        found = list(together.verdicts(backends, "float32", "quick", seed, ["dpo_loss"], passed=passed))
        told.append([(verdict.test, bool(verdict.failure)) for verdict in found])
        told.append(len(passed or ()))
    return told


def test_what_is_given_is_passed_once(tmp_path: Path) -> None:
    """Under another seed the verdict is the same, and there is nothing new among what is given."""
    edit = next(edit for edit in EDITS if edit.operation == "dpo_loss")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(source(edit), encoding="utf-8")
    right = Path(__file__).parents[1] / "right_backends" / "torch_preference.py"
    for file, is_wrong in ((right, False), (wrong, True)):
        with together.pool(1) as pool:
            first, count, second, still = pool.submit(under_two_seeds, str(file), {}).result()
            alone = pool.submit(under_two_seeds, str(file), None).result()
        assert alone == [first, 0, second, 0]
        assert len(first) > 10
        assert any(failure for _, failure in first) == is_wrong
        assert count == still > 5
