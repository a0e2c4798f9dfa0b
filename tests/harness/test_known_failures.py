"""Known failures: they are told and do not fail the run; an entry that does not come true does."""

from pathlib import Path

import pytest

from conformance.known import BadFile, read
from tests.harness.suite import ROOT, Outcome, run_suite

COLUMNS = (ROOT / "tests" / "right_backends" / "columns.py").read_text(encoding="utf-8")
WRONG = "\n\ndef td_errors(rewards, values, mask, bootstrap_value, *, gamma):\n    return rewards - values\n"
ENTRY = """
[[known]]
pattern = "{pattern}"
reason = "it has no discount"
link = "https://example.org/thread"
error = "{error}"
"""
BREAKS = "td_errors in float32 breaks"


@pytest.fixture
def backend(tmp_path: Path) -> Path:
    """A backend that breaks every clause of td_errors that looks at the next value."""
    path = tmp_path / "backend.py"
    path.write_text(COLUMNS + WRONG, encoding="utf-8")
    return path


def run(backend: Path, *entries: str, words: tuple[str, ...] = ()) -> Outcome:
    """Run the suite on td_errors and whiten with a file of known failures."""
    known = backend.with_name("known.toml")
    known.write_text("".join(entries), encoding="utf-8")
    options = ("--profile", "quick", "--dtype", "float32", "--known-failures", known, *words)
    return run_suite("--backend", backend, *options, shrink=False)


def entry(pattern: str, error: str = BREAKS) -> str:
    return ENTRY.format(pattern=pattern, error=error)


@pytest.mark.parametrize("processes", [(), ("-n", "2")])
def test_known_failures_do_not_fail_the_run(backend: Path, processes: tuple[str, ...]) -> None:
    outcome = run(backend, entry("* td_errors *"), words=processes)
    assert outcome.status == 0, outcome.output
    assert outcome.failed == []
    assert outcome.verdict["verdict"].startswith(
        "columns conforms but for known failures (cpu, float32, quick"
    )
    found = [r for r in outcome.verdict["results"] if r["outcome"] == "known failure"]
    assert {r["operation"] for r in found} == {"td_errors"}
    assert "known failure: * td_errors *: it has no discount (https://example.org/thread)" in outcome.output


def test_what_cannot_be_called_breaks_no_clause(tmp_path: Path) -> None:
    backend = tmp_path / "backend.py"
    backend.write_text(COLUMNS + WRONG.replace("return rewards - values", "raise OSError"), encoding="utf-8")
    raised = "td_errors raised OSError"
    assert run(backend, entry("* td_errors *", raised)).status == 0
    [failed] = run(
        backend, entry("contract.* td_errors *", raised), entry("gae.* td_errors *", raised)
    ).failed
    assert failed["smoke"]


def test_another_failure_is_not_known(backend: Path) -> None:
    outcome = run(backend, entry("gae.td-error td_errors float32"))
    assert outcome.status == 1
    assert outcome.failed
    assert all("gae.td-error" not in result["clauses"] for result in outcome.failed)


def test_a_failure_of_another_text_is_not_known(backend: Path) -> None:
    outcome = run(backend, entry("* td_errors *", "did not return within"))
    assert outcome.status == 1
    assert {result["operation"] for result in outcome.failed} == {"td_errors"}
    assert "FAIL: the known failure '* td_errors *' did not fail as it says" in outcome.output


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("gae.whitening whiten float32", "did not fail as it says: remove it, or set it right"),
        ("gae.whitenings whiten float32", "matches no test of this run: remove it, or set it right"),
        ("rm.gradient reward_model_loss float32", "did not fail as it says: remove it, or set it right"),
    ],
)
def test_what_does_not_come_true_fails_the_run(backend: Path, pattern: str, said: str) -> None:
    outcome = run(backend, entry("* td_errors *"), entry(pattern))
    assert outcome.status == 1
    assert outcome.failed == []
    assert f"FAIL: the known failure {pattern!r} {said}" in outcome.output


def test_a_selection_does_not_miss_what_it_leaves_out(backend: Path) -> None:
    entries = entry("* td_errors *"), entry("gae.whitening whiten float64")
    assert run(backend, *entries, words=("-k", "td_errors")).status == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("known = 1", "has known, expected [[known]] entries alone"),
        ("[[unknown]]", "has unknown, expected [[known]] entries alone"),
        ("[[known]", "is no TOML"),
        ("[[known]]\npattern = 'a b c'", "entry 1 lacks 'reason'"),
        (entry("a b c") + "why = 'x'", "entry 1 has 'why', which is none of pattern, reason, link, error"),
        (
            entry("a b c") + entry("a b"),
            "entry 2 has the pattern 'a b', expected clause, operation and dtype",
        ),
        (entry("a b c", ""), "entry 1 has error = '', expected a text"),
    ],
)
def test_a_bad_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadFile) as refused:
        read(path)
    assert message in str(refused.value)
    outcome = run_suite("--known-failures", path, "-k", "whiten-float32")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert f"--known-failures: {path}" in outcome.output


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"nothing\.toml cannot be read: No such file"):
        read(tmp_path / "nothing.toml")
