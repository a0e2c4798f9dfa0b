"""docs/vectors.md: its case is one that is written, its program judges, its tables are the code's."""

import json
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.callables import SOURCES
from conformance.commands import main
from conformance.operations import OPERATIONS
from conformance.vectors.commands import DTYPES, INPUTS
from conformance.vectors.writing import SCHEMA
from tests.documentation.vectors import BLOCK, PAGE, example

TEXT = PAGE.read_text(encoding="utf-8")
TABLES = [
    set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))
    for table in re.findall(r"\| key \| meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", TEXT)
]
SHOWN = ("discounted_returns", "kl_estimate", "conjugate_gradient", "policy_metrics")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    operations = [word for name in SHOWN for word in ("--operation", name)]
    assert main(["vectors", str(folder), "--dtype", "float64", *operations]) == 0
    return folder


def judge(path: Path, function: Callable[..., Any]) -> dict[str, int]:
    """The page's own program."""
    code = re.search(r"```python\n# judge\.py\n(.*?)```", TEXT, re.DOTALL)
    assert code is not None
    module = types.ModuleType("judge")
    exec(code[1], vars(module))
    counts: dict[str, int] = module.judge(path, function)
    return counts


def discounted_returns(
    rewards: list[list[float]], mask: list[list[bool]], bootstrap_value: list[float], *, gamma: float
) -> list[list[float]]:
    """An implementation that knows nothing of arrays."""
    results = []
    for row, active, following in zip(rewards, mask, bootstrap_value, strict=True):
        returns = []
        for reward, here in zip(reversed(row), reversed(active), strict=True):
            following = reward + gamma * following if here else following
            returns.append(following)
        results.append(returns[::-1])
    return results


def test_the_case_is_as_it_is_written() -> None:
    found = BLOCK.search(TEXT)
    assert found is not None
    assert found[0] == example()


def test_the_program_passes_what_is_right(folder: Path) -> None:
    counts = judge(folder / "discounted_returns-float64.json", discounted_returns)
    assert counts["passed"] > 0
    assert counts["failed"] == counts["undecided"] == counts["skipped"] == 0


def test_the_program_counts_gradients_as_skipped(folder: Path) -> None:
    reference = OPERATIONS["kl_estimate"].reference
    path = folder / "kl_estimate-float64.json"
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    counts = judge(path, lambda *x, **options: reference(*map(np.array, x), **options).tolist())
    assert counts["failed"] == 0
    assert counts["skipped"] == sum("result" not in case for case in cases)


def test_the_program_reads_a_dictionary_of_scalars(folder: Path) -> None:
    path, known = folder / "policy_metrics-float64.json", OPERATIONS["policy_metrics"]
    assert known.keys

    def right(*x: Any, **options: Any) -> dict[str, float]:
        arrays = [None if y is None else np.array(y) for y in x]
        return {key: float(value) for key, value in known.reference(*arrays, **options).items()}

    counts = judge(path, right)
    assert counts["passed"] > 0
    assert counts["failed"] == 0
    swapped = dict(zip(known.keys, reversed(known.keys), strict=True))
    wrong = judge(path, lambda *x, **options: {swapped[k]: y for k, y in right(*x, **options).items()})
    assert wrong["failed"] > 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda *rows, gamma: discounted_returns(*rows, gamma=gamma**2),
        lambda *rows, gamma: [
            [x * (1 + 1e-12) for x in row] for row in discounted_returns(*rows, gamma=gamma)
        ],
        lambda *rows, gamma: [[np.nan for _ in row] for row in discounted_returns(*rows, gamma=gamma)],
        lambda *rows, gamma: discounted_returns(*rows, gamma=gamma)[:1],
    ],
    ids=["gamma squared", "less than 1e-11 off", "NaN", "one row"],
)
def test_the_program_fails_what_is_wrong(wrong: Callable[..., Any], folder: Path) -> None:
    assert judge(folder / "discounted_returns-float64.json", wrong)["failed"] > 0


def test_keys_are_those_of_the_files(folder: Path) -> None:
    of_manifest, of_file, of_case = TABLES
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert of_manifest == set(manifest)
    files = [json.loads((folder / name).read_text(encoding="utf-8")) for name in manifest["files"]]
    assert of_file == set().union(*files)
    assert of_case == set().union(*(case for file in files for case in file["cases"]))
    (entries,) = re.findall(r"^\| `files` \|(.*)\|$", TEXT, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", entries)) == set().union(*manifest["files"].values())


def test_figures_are_the_codes() -> None:
    assert f"version of this format, {SCHEMA};" in TEXT
    assert f"for each test of the suite | {INPUTS} |" in TEXT
    assert f"may be repeated | {' and '.join(DTYPES)} |" in TEXT
    assert "(1 + 8/16) · 2⁻¹ = 0.75" in TEXT
    assert float.fromhex("0x1.8p-1") == (1 + 8 / 16) / 2 == 0.75


def test_functions_are_those_of_the_protocol() -> None:
    table = TEXT.split("## Arguments that are functions")[1].split("##")[0]
    described = {
        name: re.findall(r"`(\w+)`", arrays) for name, arrays in re.findall(r"\| `(\w+)` \| (.*?) \|", table)
    }
    assert described == {
        name: [a.name for a in OPERATIONS[operation].arguments if a.name in used]
        for operation, name, used in (
            ("conjugate_gradient", "matvec", {"matrix"}),
            ("backtracking_line_search", "evaluate", {"matrix", "slope", "parameters"}),
        )
    }
    assert {names[0] for _, names in SOURCES.values()} == set(described)
    assert f"{('No', 'One', 'Two', 'Three')[len(SOURCES)]} operations take a function" in TEXT


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", TEXT))
def test_link_leads_somewhere(target: str) -> None:
    assert (PAGE.parent / target).exists()
