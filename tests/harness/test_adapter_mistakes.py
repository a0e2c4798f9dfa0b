"""What an adapter gets wrong ends in one message that says so, and costs no other operation its verdict."""

import re
from pathlib import Path

import pytest

from tests.harness.suite import ROOT, Outcome, run_pytest, run_suite

COLUMNS = ROOT / "tests" / "right_backends" / "columns.py"
TD_ERRORS = "def td_errors(rewards, values, mask, bootstrap_value, *, gamma):\n    "
RIGHT = "return (rewards * 0).astype(rewards.dtype)"

CALLS = {
    "shape": ("return rewards[:, :-1]", "td_errors returned shape (3, 4), expected (B, T) = (3, 5)"),
    "dtype": ("return rewards.astype('f2')", "returned dtype float16 for inputs of dtype float32"),
    "NaN": ("return rewards * np.nan", "nan]], expected finite numbers"),
    "list": ("return rewards.tolist()", "wrong kind of object: expected a NumPy array, got a Python list"),
    "None": ("rewards + gamma", "expected a NumPy array, got None (is a return missing?)"),
    "objects": ("return rewards.astype(object)", "an array of Python objects, expected numbers"),
    "mutates": ("rewards += 1; return rewards", "td_errors changed its own input: rewards"),
    "raises": ("return {}['key']", "td_errors raised KeyError: 'key' (at "),
    "exits": ("raise SystemExit(3)", "td_errors raised SystemExit: 3 (at "),
    "hangs": ("import time; time.sleep(600)", "did not return within 1 s (--time-limit)"),
    "dies": ("import os; os._exit(3)", "killed its process (exit status 3)"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "killed its process (signal SIGKILL)"),
    "crashes": (
        "import faulthandler; faulthandler._sigsegv()",
        "(signal SIGSEGV; its last words: File ",
    ),
}

BROKEN = {
    **dict.fromkeys(("shape", "dtype", "list", "None", "objects"), "contract.shapes"),
    "mutates": "contract.pure",
}
"""The clause that a mistake breaks; where a call gave nothing to judge, there is none."""

IMPORTS = {
    "no library": ("import no_such_library", "it needs 'no_such_library', which is not installed"),
    "no name": ("from os import no_such_name", "importing it raised ImportError: cannot import name"),
    "syntax": ("def f(:", "importing it raised SyntaxError: invalid syntax (at "),
    "raises": ("raise OSError('no licence')", "importing it raised OSError: no licence (at "),
    "dies": ("import os; os._exit(7)", "importing it killed the process (exit status 7)"),
    "hangs": ("import time; time.sleep(600)", "importing it took longer than 5 s: raise --time-limit"),
    "no operation": ("array_library = 'numpy'", "it provides no operation of the protocol: define one of td"),
    "no library named": (
        TD_ERRORS + "pass",
        "set array_library to one of 'numpy', 'torch', 'jax', or define",
    ),
    "unknown library": (
        "array_library = 'tensorflow'\n" + TD_ERRORS + "pass",
        "array_library is 'tensorflow', expected one of 'numpy', 'torch', 'jax'",
    ),
    "an option of no operation": (
        "array_library = 'numpy'\noptions = {'td_error': {'gamma': (1.0,)}}\n" + TD_ERRORS + "pass",
        "its options name 'td_error', which is no operation",
    ),
    "an option that there is not": (
        "array_library = 'numpy'\noptions = {'td_errors': {'discount': (1.0,)}}\n" + TD_ERRORS + "pass",
        "its options name 'discount': td_errors has gamma",
    ),
    "an option with one value": (
        "array_library = 'numpy'\noptions = {'td_errors': {'gamma': 1.0}}\n" + TD_ERRORS + "pass",
        "its options are {'td_errors': {'gamma': 1.0}}, expected something like",
    ),
    "a value that there is not": (
        "array_library = 'numpy'\noptions = {'aggregate': {'mode': ('token_mean',)}}\n" + TD_ERRORS + "pass",
        "its options give aggregate.mode the value 'token_mean', which the protocol does not have: mode must",
    ),
    "a lost dtype": (
        "import numpy as np\ndef asarray(x, dtype, device): return np.array(x, 'f4')\n"
        "def to_numpy(x): return x\ndef gradient(function, arrays, cotangent): pass\n" + TD_ERRORS + "pass",
        "asarray and to_numpy change what they convert",
    ),
}


@pytest.mark.parametrize("mistake", CALLS)
def test_a_call_goes_wrong(mistake: str, tmp_path: Path) -> None:
    body, message = CALLS[mistake]
    outcome = _run(tmp_path, TD_ERRORS + body)
    (failure,) = outcome.failed
    assert failure["operation"] == "td_errors"
    headline, *below = failure["detail"].splitlines()
    assert message in failure["detail"] if mistake == "NaN" else message in headline
    assert "again      pytest 'conformance/test_smoke.py" in below[-1]
    _accuses(outcome, BROKEN.get(mistake), "is not finite" if mistake == "NaN" else "could not be called: ")
    _keeps_the_other_operation(outcome)


ALONE = """


def rloo_advantages(scores, group_ids):
    same = group_ids[:, None] == group_ids
    with np.errstate(invalid="ignore"):
        others = np.where(same, scores, 0).sum(axis=1) - scores
        return scores - others / (same.sum(axis=1) - 1).astype(scores.dtype)
"""


def test_what_a_response_alone_gets_is_told_by_its_clause(tmp_path: Path) -> None:
    backend = tmp_path / "backend.py"
    backend.write_text(COLUMNS.read_text() + ALONE)
    words = ("--backend", backend, "--profile", "quick", "--dtype", "float32", "-k", "rloo_advantages")
    outcome = run_suite(*words, shrink=False)
    assert not any(failure["smoke"] for failure in outcome.failed)
    assert any(failure["clauses"] == ["grpo.single"] for failure in outcome.failed)


def test_a_required_keyword_is_missing(tmp_path: Path) -> None:
    outcome = _run(tmp_path, TD_ERRORS.replace(", *, gamma", "") + RIGHT)
    (failure,) = outcome.failed
    assert "td_errors takes no keyword 'gamma': every call gives it one" in failure["detail"]
    _keeps_the_other_operation(outcome)


def test_an_argument_is_missing(tmp_path: Path) -> None:
    outcome = _run(tmp_path, TD_ERRORS.replace(", bootstrap_value", "") + RIGHT)
    (failure,) = outcome.failed
    assert "td_errors raised TypeError: td_errors() takes 3 positional arguments but 4" in failure["detail"]
    _keeps_the_other_operation(outcome)


def test_a_fault_in_a_library_is_traced_to_the_call_of_it(tmp_path: Path) -> None:
    outcome = _run(tmp_path, TD_ERRORS + "import json; json.loads('x')")
    (failure,) = outcome.failed
    line = len((tmp_path / "backend.py").read_text().splitlines())
    assert f"(at {tmp_path / 'backend.py'}:{line}, in json/decoder.py:" in failure["detail"]
    _keeps_the_other_operation(outcome)


def test_a_late_hang_ends_the_operation_alone(tmp_path: Path) -> None:
    outcome = _run(
        tmp_path, TD_ERRORS + "if rewards.shape[1] == 1: import time; time.sleep(600)\n    " + RIGHT
    )
    hung = [failure for failure in outcome.failed if "did not return within 1 s" in failure["detail"]]
    assert len(hung) == 1
    assert "called with shapes {'rewards': (" in hung[0]["detail"]
    later = [r["detail"] for r in outcome.verdict["results"] if r["outcome"] == "not run"]
    assert later
    assert all("td_errors did not return within 1 s" in detail for detail in later)
    _keeps_the_other_operation(outcome)


def test_every_case_is_refused(tmp_path: Path) -> None:
    outcome = _run(tmp_path, TD_ERRORS + "raise NotImplementedError('not yet')")
    assert outcome.failed == []
    assert set(outcome.tests("td_errors").values()) == {"limited"}
    assert "limited: td_errors: not yet" in outcome.output
    assert "FAIL: td_errors is provided, and no case of it was executed" in outcome.output
    assert re.search(r"^td_errors +float32 +FAIL ", outcome.output, re.MULTILINE)
    _keeps_the_other_operation(outcome)


@pytest.mark.parametrize("mistake", IMPORTS)
def test_a_backend_is_unusable(mistake: str, tmp_path: Path) -> None:
    text, message = IMPORTS[mistake]
    backend = tmp_path / "backend.py"
    backend.write_text(text + "\n")
    _is_refused(str(backend), message, "--time-limit", 1)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nowhere/backend.py", "there is no file nowhere/backend.py"),
        ("no.such.module", "there is no module 'no.such.module' to import, and no registered backend"),
        ("refrence", "(registered: reference, torch_impl, verl; a file needs its .py)"),
        (f"{COLUMNS}:Backend", "has no 'Backend'; it has "),
    ],
)
def test_a_backend_is_not_there(what: str, message: str) -> None:
    _is_refused(what, message)


def test_a_class_cannot_be_made(tmp_path: Path) -> None:
    backend = tmp_path / "backend.py"
    backend.write_text("class Backend:\n    def __init__(self):\n        raise OSError('no device')\n")
    _is_refused(f"{backend}:Backend", "importing it raised OSError: no device (at ")


@pytest.mark.parametrize("option", ["--report", "--replay"])
def test_a_file_where_a_folder_is_expected(option: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = run_pytest("conformance/", option, str(tmp_path / "file"), folder=ROOT)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"{option} {tmp_path / 'file'}: that is a file, expected a folder" in run.stderr


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file" / "report")
    run = run_pytest("conformance/", "--report", folder, folder=ROOT)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"--report {folder}: Not a directory, expected a folder to write into" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_dtype_that_the_library_lacks() -> None:
    _is_refused(str(COLUMNS), "NumPy has no dtype bfloat16; name others with --dtype", "--dtype", "bfloat16")


def test_a_device_that_is_not_there() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for device, said in (("cuda", "CUDA"), ("gpu", "device string: gpu")):
        put = f"its arrays cannot be put on the device {device!r}: "
        assert said in _is_refused("torch_impl", put, "--device", device)
    _is_refused(str(COLUMNS), "NumPy arrays live on the cpu, not on 'cuda'", "--device", "cuda")


def _run(folder: Path, td_errors: str) -> Outcome:
    """Run a right `whiten` beside another `td_errors`."""
    backend = folder / "backend.py"
    backend.write_text(COLUMNS.read_text() + f"\n\n{td_errors}\n")
    words = ["--profile", "quick", "--dtype", "float32", "--time-limit", 1, "-k", "td_errors or whiten"]
    outcome = run_suite("--backend", backend, *words)
    assert outcome.status == 1, outcome.output
    _is_quiet(outcome)
    return outcome


def _accuses(outcome: Outcome, clause: str | None, otherwise: str) -> None:
    """Headline, table and results name the clause that is broken, and no other; or none at all."""
    (failure,) = outcome.failed
    what = f"breaks {clause}" if clause else otherwise
    assert failure["detail"].startswith(f"columns: td_errors in float32 {what}")
    assert "shows also" not in failure["detail"]
    assert failure["clauses"] == ([clause] if clause else [])
    of_contract, of_operation = re.findall(r"^td_errors .*", outcome.output, re.MULTILINE)
    assert of_contract.count("FAIL") == bool(clause)
    assert "FAIL" in of_operation


def _keeps_the_other_operation(outcome: Outcome) -> None:
    tests = outcome.tests("whiten")
    assert len(tests) >= 10
    assert set(tests.values()) == {"passed"}
    assert re.search(r"^whiten +float32 +pass ", outcome.output, re.MULTILINE)


def _is_refused(what: str, message: str, *words: object) -> str:
    """Demand that the run ends before it begins, with one line; return it."""
    outcome = run_suite("--backend", what, *words)
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    (line,) = re.findall(r"^ERROR: .*", outcome.output, re.MULTILINE)
    assert line.startswith(f"ERROR: backend {what}: ")
    assert message in line
    _is_quiet(outcome)
    return str(line)


def _is_quiet(outcome: Outcome) -> None:
    """No traceback, and no place in the suite's own code."""
    assert "INTERNALERROR" not in outcome.output
    assert "Traceback" not in outcome.output
    assert not re.search(r"conformance/\w+\.py:\d+: ", outcome.output)
