"""`rlspec vectors`: what is written holds right answers and no others, and is the same every time."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from inspect import getsource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.callables import bind
from conformance.cases import Case
from conformance.commands import main
from conformance.marks import shown
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, permitted, permitted_gradients
from conformance.vectors import encoding
from conformance.vectors.recorder import SINGLE_CALLS, named_operations, suite
from reference.numbers.formats import FORMATS
from spec.registry import ROOT, current
from tests.vectors.reading import Interval, Vector, read

OPERATION_AND_DTYPE = [(operation, dtype) for operation in OPERATIONS for dtype in FORMATS]
FEW = ("policy_loss", "kl_estimate", "whiten", "conjugate_gradient")
"""Operations with gradients, options, dense numbers and functions."""


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


def reference(vector: Vector) -> dict[str, np.ndarray]:
    """The reference's float64 answers, rounded to the dtype."""
    operation, case = OPERATIONS[vector.case.operation], vector.case
    arguments = bind(case.operation, tuple(case.arguments.values()))
    with np.errstate(all="ignore"):
        answer = operation.reference(*arguments, **case.options)
        found = {"result": [answer[key] for key in operation.keys] if operation.keys else answer}
        if operation.gradient is not None and vector.upstream is not None:
            slopes = operation.gradient(vector.upstream, *arguments, **case.options)
            slopes = slopes if isinstance(slopes, tuple) else (slopes,)
            found |= dict(zip(operation.differentiable, slopes, strict=True))
        return {name: FORMATS[case.dtype].round(np.asarray(x, dtype=float)) for name, x in found.items()}


def oracle(vector: Vector) -> dict[str, Permitted]:
    """What the oracle permits, asked anew about the case as it was read."""
    found = {"result": permitted(vector.case)}
    return found if vector.upstream is None else found | permitted_gradients(vector.case, vector.upstream)


@pytest.mark.parametrize(("operation", "dtype"), OPERATION_AND_DTYPE)
def test_the_references_answer_is_inside(operation: str, dtype: str, folder: Path) -> None:
    for vector in read(folder / f"{operation}-{dtype}.json"):
        answers = reference(vector)
        wrong = [x for x in vector.decided if not x.low <= answers[x.what][x.index] <= x.high]
        assert not wrong, (vector.case, wrong, answers)


@pytest.mark.parametrize(("operation", "dtype"), OPERATION_AND_DTYPE)
def test_inputs_are_numbers_of_the_dtype(operation: str, dtype: str, folder: Path) -> None:
    for vector in read(folder / f"{operation}-{dtype}.json"):
        real = [x for x in (*vector.case.arguments.values(), vector.upstream) if x is not None]
        assert all(FORMATS[dtype].represents(x) for x in real if x.dtype == np.float64)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_beyond_an_interval_the_oracle_refuses(operation: str, dtype: str, folder: Path) -> None:
    for vector in read(folder / f"{operation}-{dtype}.json"):
        finite = [x for x in vector.decided if np.isfinite([x.low, x.high]).all() and x.low < x.high]
        allowed = oracle(vector) if finite else {}
        for interval in finite:
            for answer in beyond(interval):
                assert allowed[interval.what].distance(interval.index, answer) > 1.0, (
                    vector.case,
                    interval,
                )


def beyond(interval: Interval) -> tuple[float, float]:
    """Numbers below and above an interval, by its width."""
    width = interval.high - interval.low
    return interval.low - width, interval.high + width


def test_exact_answers_are_single_numbers(folder: Path) -> None:
    intervals = [x for v in read(folder / "gae-float32.json") if v.case.region == "exact" for x in v.decided]
    assert any(x.low == x.high for x in intervals)
    assert not any(x.low == x.high != 0.0 for x in inexact(folder))


def inexact(folder: Path) -> list[Interval]:
    return [x for v in read(folder / "gae-float32.json") if v.case.region == "generic" for x in v.decided]


def test_infinity_is_an_end_where_an_exponential_overflows() -> None:
    largest = FORMATS["float32"].largest
    old_logprobs = np.array([[-88.0, np.float32(-np.log(largest)), -89.0]], dtype=np.float64)
    arguments = {"logprobs": np.zeros((1, 3)), "old_logprobs": old_logprobs}
    case = Case("importance_ratio", arguments, {"log_ratio_clip": None}, "float32", "extremes")
    below, there, above = (encoding.interval(permitted(case), (0, t)) for t in range(3))
    assert below is not None
    assert there is not None
    assert below[0] < np.exp(88.0) < below[1] < largest
    assert below[1] < there[0] < largest < there[1] == np.inf
    assert above == (np.inf, np.inf)


def test_nothing_is_decided_where_rounding_uses_up_the_residual(folder: Path) -> None:
    found = manifest(folder)["files"]
    assert found["conjugate_gradient-bfloat16.json"]["undecided"] > 0
    assert found["gae-float64.json"]["undecided"] == 0


def test_manifest_lists_what_is_there(folder: Path) -> None:
    found = manifest(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    assert set(files) == set(found["files"]) == {f"{o}-{d}.json" for o, d in OPERATION_AND_DTYPE}
    assert {n: hashlib.sha256(text).hexdigest() for n, text in files.items()} == {
        name: entry["sha256"] for name, entry in found["files"].items()
    }
    cited: Counter[str] = Counter()
    for name, entry in found["files"].items():
        vectors = list(read(folder / name))
        assert entry["cases"] == len(vectors) > 0
        assert entry["regions"] == Counter(vector.case.region for vector in vectors)
        assert entry["decided"] == sum(len(vector.decided) for vector in vectors)
        assert entry["decided"] > 0 or entry["dtype"] not in ("float32", "float64")
        assert entry["undecided"] == sum(vector.undecided for vector in vectors)
        cited.update(citation for vector in vectors for citation in vector.clauses)
    assert found["clauses"] == cited


def test_every_clause_is_cited_or_a_relation(folder: Path) -> None:
    found = manifest(folder)
    tested = {clause for clause in current().clauses.values() if current().tests_of(clause.slug)}
    citations = {clause.citation.removeprefix("spec: ") for clause in tested}
    assert set(found["clauses"]) | set(found["relations"]) == citations
    assert not set(found["clauses"]) & set(found["relations"])


@pytest.mark.parametrize("name", [name for name, test in suite().items() if "run.over(" in getsource(test)])
def test_every_test_that_draws_from_regions_is_recorded(name: str, folder: Path) -> None:
    """But for relations that hold of every operation."""
    for operation in named_operations(suite()[name]):
        slugs = shown(suite()[name].pytestmark, operation)
        relation = any(slug.startswith("contract.") and slug not in SINGLE_CALLS for slug in slugs)
        clauses = [current().clauses[slug].citation.removeprefix("spec: ") for slug in slugs]
        found = [vector for vector in read(folder / f"{operation}-float32.json") if vector.clauses == clauses]
        assert bool(found) != relation


def test_the_same_bytes_in_another_process(folder: Path, tmp_path: Path) -> None:
    """Whatever else is written, whatever is loaded, in whatever order sets come."""
    for hash_seed in ("1", "2"):
        again = tmp_path / hash_seed
        command = [sys.executable, "-m", "conformance.commands", "vectors", str(again), "--cases", "1"]
        command += [word for operation in FEW for word in ("--operation", operation)]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        names = {f"{operation}-{dtype}.json" for operation in FEW for dtype in ("float32", "float64")}
        assert {path.name for path in again.iterdir()} == {*names, "manifest.json"}
        for name in names:
            assert (again / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "1" / "manifest.json").read_bytes() == (tmp_path / "2" / "manifest.json").read_bytes()


def test_another_seed_and_more_cases_are_other_cases(folder: Path, tmp_path: Path) -> None:
    options = ["--operation", "whiten", "--dtype", "float64"]
    name = "whiten-float64.json"
    assert main(["vectors", str(tmp_path / "seed"), *options, "--cases", "1", "--seed", "1"]) == 0
    assert main(["vectors", str(tmp_path / "more"), *options, "--cases", "2"]) == 0
    before, other, more = (list(read(x / name)) for x in (folder, tmp_path / "seed", tmp_path / "more"))
    assert len(more) > len(before) == len(other)
    assert [same(a.case, b.case) for a, b in zip(before, other, strict=True)].count(True) < len(before) / 2


def test_files_are_counted_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--operation", "proportional_kl_coef", "--cases", "1", "--dtype", "float64"]
    for more, count in ([], "1 file"), (["--dtype", "float32"], "2 files"):
        folder = tmp_path / count
        assert main(["vectors", str(folder), *words, *more]) == 0
        assert capsys.readouterr().out == f"{count}, listed in {folder / 'manifest.json'}\n"


def same(one: Case, other: Case) -> bool:
    """Whether two cases hold the same numbers."""
    pairs = zip(one.arguments.values(), other.arguments.values(), strict=True)
    return one.options == other.options and all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--operation", "gea"], "rlspec: there is no operation gea; near: gae"),
        (
            ["--operation", "gae", "--operation", "x"],
            "rlspec: there is no operation x; the operations are td_errors, ",
        ),
    ],
)
def test_unknown_operation(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vectors", str(tmp_path / "new"), *arguments]) == 1
    assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "float8"], "invalid choice: 'float8'"),
        (["--cases", "0"], "expected at least 1, got 0"),
        (["--cases", "many"], "invalid count value: 'many'"),
    ],
)
def test_usage(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["vectors", str(tmp_path / "new"), *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine", encoding="utf-8")
    assert main(["vectors", str(tmp_path), "--operation", "whiten"]) == 1
    assert (
        capsys.readouterr().err
        == f"rlspec: {tmp_path} is not empty: name a new folder, nothing here is overwritten\n"
    )
    assert main(["vectors", str(mine), "--operation", "whiten"]) == 1
    assert (
        capsys.readouterr().err
        == f"rlspec: {mine} is a file: name a new folder, nothing here is overwritten\n"
    )
    assert main(["vectors", str(mine / "new"), "--operation", "whiten"]) == 1
    assert re.fullmatch(rf"rlspec: {re.escape(str(mine))}\S*: [A-Z][\w ]+\n", capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert mine.read_text(encoding="utf-8") == "mine"
