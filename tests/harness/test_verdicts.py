"""What a run leaves behind: a verdict that can be read, repeated and trusted to have looked."""

import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest

from conformance.report import SCHEMA_VERSION
from tests.harness.suite import ROOT, Outcome, run_pytest, run_suite

COLUMNS = ROOT / "tests" / "right_backends" / "columns.py"
QUICK = ("--profile", "quick", "--dtype", "float32")
OFF_BY_GAMMA = (
    "\n\ndef td_errors(rewards, values, mask, bootstrap_value, *, gamma):\n    return rewards - values\n"
)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backend whose td_errors are wrong."""
    backend = tmp_path_factory.mktemp("wrong") / "backend.py"
    backend.write_text(COLUMNS.read_text() + OFF_BY_GAMMA)
    return backend


@pytest.fixture(scope="module")
def failure(wrong: Path) -> Outcome:
    """A run of the wrong operation and of a right one."""
    return run_suite("--backend", wrong, *QUICK, "-k", "td_errors or whiten")


def test_the_report_of_a_failure(failure: Outcome) -> None:
    assert failure.status == 1
    assert failure.verdict["schema_version"] == SCHEMA_VERSION
    assert failure.verdict["verdict"].startswith(
        "columns does not conform (cpu, float32, quick profile, seed 0): "
    )
    assert {result["operation"] for result in failure.failed} == {"td_errors"}
    assert "columns does not conform" in failure.files["verdict.md"]
    assert all(result["detail"] in failure.files["verdict.md"] for result in failure.failed)
    suite = ElementTree.fromstring(failure.files["junit.xml"])[0]
    assert int(suite.attrib["failures"]) == len(failure.failed)


def test_the_report_of_a_pass() -> None:
    outcome = run_suite("--backend", COLUMNS, *QUICK, "-k", "whiten")
    assert outcome.status == 0
    assert set(outcome.files) == {"verdict.json", "verdict.md", "junit.xml"}
    passes = "columns passes the part of the suite that was asked for (cpu, float32, quick profile, seed 0): "
    assert outcome.verdict["verdict"].startswith(passes)
    assert outcome.verdict["shortcomings"] == []


def test_a_failure_is_told_in_25_lines(failure: Outcome) -> None:
    assert all(len(result["detail"].splitlines()) <= 25 for result in failure.failed)


def test_a_wrong_default_is_told(tmp_path: Path) -> None:
    text = (ROOT / "tests" / "right_backends" / "torch_kl.py").read_text()
    (tmp_path / "backend.py").write_text(text.replace('estimator: str = "k1"', 'estimator: str = "k3"'))
    words = ("--backend", tmp_path / "backend.py", *QUICK, "-k", "test_estimates")
    [failed] = run_suite(*words, shrink=False).failed
    assert "note       this is what kl_estimate with estimator='k3' gives" in failed["detail"]
    assert "estimator=" not in failed["reproduction"]


def test_a_failure_names_what_is_needed(failure: Outcome) -> None:
    story = failure.failed[0]["detail"]
    assert story.startswith("columns: td_errors in float32 breaks gae.td-error\nclause     gae.td-error@")
    for part in (
        "region     ",
        "rewards = np.array(",
        "print(backend.td_errors(asarray(rewards), asarray(values), asarray(mask)",
        "got  ",
        "permitted  ",
    ):
        assert f"\n{part}" in story


def test_a_known_variant_is_named(failure: Outcome) -> None:
    notes = [line for r in failure.failed for line in r["detail"].splitlines() if line.startswith("note ")]
    assert any("td_errors with gamma=0.0" in note for note in notes)


def test_the_command_fails_again(failure: Outcome) -> None:
    story = failure.failed[0]["detail"].splitlines()
    words = shlex.split(story[-1].removeprefix("again"))
    assert words[0] == "pytest"
    again = run_pytest(*words[1:], folder=ROOT)
    assert again.returncode == 1
    assert "\n".join(story[:2]) in again.stdout
    assert "1 failed" in again.stdout


def test_the_command_has_every_option(wrong: Path) -> None:
    given = ["--profile", "quick", "--seed", "3", "--time-limit", "30.0", "--dtype", "float64"]
    outcome = run_suite("--backend", wrong, *given, "-x", "-k", "td_errors")
    words = shlex.split(outcome.failed[0]["detail"].splitlines()[-1])
    assert [str(wrong), *given] == words[words.index("--backend") + 1 :]


def test_the_same_seed_gives_the_same_verdict(wrong: Path) -> None:
    first, second = (run_suite("--backend", wrong, *QUICK, "-k", "td_errors or whiten") for _ in range(2))
    assert _outcomes(first) == _outcomes(second)


def test_another_seed_draws_other_inputs() -> None:
    runs = [run_suite("--backend", COLUMNS, *QUICK, "--seed", seed, "-k", "whiten") for seed in (0, 0, 1)]
    distances = [[r["worst_distance"] for r in run.verdict["results"]] for run in runs]
    assert distances[0] == distances[1]
    assert distances[0] != distances[2]


def test_nothing_executed_is_a_failure() -> None:
    """A NumPy backend refuses every test of gradients."""
    outcome = run_suite("--backend", COLUMNS, *QUICK, "-k", "test_constants")
    assert outcome.status == 1
    assert "FAIL: " in outcome.output
    assert outcome.verdict["shortcomings"]


def test_nothing_selected_is_a_failure() -> None:
    outcome = run_suite("--backend", COLUMNS, *QUICK, "-k", "no_such_test")
    assert outcome.status == pytest.ExitCode.NO_TESTS_COLLECTED


def test_nothing_provided_of_what_is_selected_is_a_failure(tmp_path: Path) -> None:
    backend = tmp_path / "backend.py"
    backend.write_text(COLUMNS.read_text() + "\n\ndel gae\n")
    outcome = run_suite("--backend", backend, *QUICK, "-k", "gae-")
    assert outcome.status == 1
    assert "nothing was executed" in outcome.output
    assert outcome.verdict["verdict"].endswith("no test; not provided: gae; nothing was executed")


def test_an_operation_that_is_not_provided_is_neither_passed_nor_failed(tmp_path: Path) -> None:
    backend = tmp_path / "backend.py"
    backend.write_text(COLUMNS.read_text() + "\n\ndel gae\n")
    outcome = run_suite("--backend", backend, *QUICK, "-k", "gae- or whiten-")
    assert outcome.status == 0
    assert set(outcome.tests("gae").values()) == {"not provided"}
    assert outcome.verdict["verdict"].endswith("not provided: gae")


def test_a_package_in_the_way_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "reference"
    package.mkdir()
    (package / "__init__.py").touch()
    words = ["--import-mode=importlib", "--pyargs", "conformance", "--backend", "reference"]
    run = run_pytest(*words, folder=tmp_path)
    assert run.returncode not in (0, 1)
    assert (
        f"`import reference` finds {package}, the suite belongs to {ROOT / 'reference'}"
        in run.stdout + run.stderr
    )


def test_the_suite_runs_from_elsewhere(tmp_path: Path) -> None:
    words = ["--pyargs", "conformance", "--backend", str(COLUMNS), *QUICK, "-k", "td_errors"]
    run = run_pytest(*words, folder=tmp_path)
    assert run.returncode == 0, run.stdout
    assert "columns passes" in run.stdout


def _outcomes(run: Outcome) -> list[tuple[str, str]]:
    return [(result["test"], result["outcome"]) for result in run.verdict["results"]]
