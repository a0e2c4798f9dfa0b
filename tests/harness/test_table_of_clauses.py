"""The tables of a verdict: which clauses stand beside an operation, and how many inputs were judged."""

from pathlib import Path

import pandas as pd
import pytest

from conformance.operations import CHAPTERS
from tests.harness import together
from tests.harness.suite import ROOT, Outcome, run_suite

LOSSES = ROOT / "tests" / "right_backends" / "torch_policy_loss.py"
QUICK = ("--profile", "quick", "--dtype", "float32")
LIMITED = "\n\noptions = {'policy_loss': {'dual_clip': (None,), 'ratio_level': ('token',)}}\n"
MISSPELT = """

del token_entropy
polcy_metrics = policy_metrics
del policy_metrics


def aggregate(x, mask, *, mode, horizn=None, empty_rows="count"):
    return _aggregate(x, mask, mode, None, empty_rows)


def wihten(mask, x):
    return x


def td_errors(values, rewards, mask, *, bootstrap_value, gamma):
    return rewards


def backtracking_line_search(parameters, evaluate, full_step, *, max_kl):
    return parameters
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A run of losses that take no dual clip and know the ratio of a token alone; some names are misspelt."""
    backend = tmp_path_factory.mktemp("limited") / "backend.py"
    backend.write_text(LOSSES.read_text(encoding="utf-8") + LIMITED + MISSPELT, encoding="utf-8")
    return run_suite("--backend", backend, *QUICK, "-k", "policy_loss or aggregate or token_logprobs")


def cells(outcome: Outcome, clause: str) -> dict[str, str]:
    """What the table says of a clause, by operation."""
    table = next(x for x in outcome.files["verdict.md"].split("\n\n") if f"| {clause} " in x)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    frame = pd.DataFrame(rows[2:], columns=rows[0]).set_index("clause")
    return {str(operation): word for operation, word in frame.loc[clause].items() if word}


def test_a_clause_stands_beside_the_operations_that_it_is_about(limited: Outcome) -> None:
    assert cells(limited, "ppo.clip") == {"policy_loss": "pass"}
    assert cells(limited, "ppo.token-logprobs") == {"token_logprobs": "pass"}


def test_what_was_refused_in_part_did_not_simply_pass(limited: Outcome) -> None:
    assert cells(limited, "ppo.dual-clip") == {"policy_loss": "partly"}


def test_names_that_are_nearly_right_are_told(limited: Outcome) -> None:
    assert limited.status == 0
    assert limited.verdict["notes"] == [
        "aggregate takes 'horizn', which is no option of it; near: horizon",
        "backtracking_line_search takes parameters, evaluate, full_step; "
        "they come as evaluate, parameters, full_step",
        "polcy_metrics is no operation; near: policy_metrics",
        "td_errors takes bootstrap_value by name; arguments come by position",
        "td_errors takes values, rewards, mask; they come as rewards, values, mask, bootstrap_value",
        "wihten is no operation; near: whiten",
    ]
    assert all(f"\nnote: {note}\n" in limited.output for note in limited.verdict["notes"])


def test_an_input_that_fails_is_counted_once(tmp_path: Path) -> None:
    wrong = tmp_path / "backend.py"
    wrong.write_text(
        LOSSES.read_text(encoding="utf-8").replace("logits / temperature", "logits * temperature")
    )
    words = ("--backend", wrong, *QUICK, "-k", "test_token_logprobs or test_entropy")
    outcome = run_suite(*words)
    assert {result["operation"] for result in outcome.failed} == {"token_logprobs", "token_entropy"}
    assert all(0 < result["executed"] <= result["expected"] for result in outcome.failed)
    assert outcome.verdict["shortcomings"] == []


def test_causes_show_before_what_follows_from_them() -> None:
    files = list(dict.fromkeys(test.file.stem for test in together.tests()))
    smoke, *chapters = files[: files.index("test_expectations")]
    assert smoke == "test_smoke"
    assert sorted(chapters) == sorted(f"test_{name}" for name in CHAPTERS)


def test_the_fourth_failure_is_told_without_its_call(tmp_path: Path) -> None:
    wrong = tmp_path / "backend.py"
    wrong.write_text(
        LOSSES.read_text(encoding="utf-8").replace("logits / temperature", "logits * temperature")
    )
    outcome = run_suite("--backend", wrong, *QUICK, "-vv", "-k", "token_logprobs", shrink=False)
    assert len(outcome.failed) > 3
    assert outcome.output.count("\nregion  ") == 3
    numbers = [r["detail"].partition("\ngot  ")[2].splitlines()[0] for r in outcome.failed]
    assert all(f"\ngot  {number}\n" in outcome.output for number in numbers)
    told = "shortened  3 failures of token_logprobs in float32 are told in full; --report DIR keeps all"
    assert outcome.output.count(told) == len(outcome.failed) - 3
    assert all("\nregion  " in result["detail"] for result in outcome.failed)
