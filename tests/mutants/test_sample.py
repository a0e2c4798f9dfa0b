"""A few mutants of every kind are killed, an unchanged project is not, and nothing else is a verdict."""

import signal
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns import Record
from tests.harness import together
from tests.mutants import beside, campaign, score
from tests.mutants.__main__ import main
from tests.mutants.campaign import Campaign, Trial, Unsound, _key, every_mutant
from tests.mutants.equivalents import Equivalent, idle, read
from tests.mutants.operators import Mutant
from tests.mutants.plans import plan
from tests.mutants.reach import reaching
from tests.mutants.running import NO_TEST, PASSED, ROOT, Selection, changed, run_tests, snapshot
from torch_impl.kernels import TRITON

EVERY = every_mutant(ROOT)
LIMIT = 300.0

FEW = (
    ("reference.checks:_check_shape", "logic", "len(got) == len(expected) and "),
    ("reference.clipping:clipped_objective", "arithmetic", "1 - clip_low"),
    ("reference.gae:whiten", "branches", ""),
    ("reference.kl:adaptive_kl_coef", "constant", ""),
    ("reference.policy_loss:aggregation_divisors", "comparison", ""),
    ("reference.rows:through_last_active", "constant", "0"),
    ("torch_impl.checks:positive", "comparison", ""),
    ("torch_impl.softmax:statistics", "arithmetic", "chosen"),
    ("torch_impl.group:rloo_advantages", "arithmetic", ""),
    ("torch_impl.policy_loss:aggregate_sums", "opposite", ""),
    ("torch_impl.preference:sequence_logprobs", "deletion", "sums = "),
    ("torch_impl.value_loss:value_loss", "opposite", ""),
    *([("torch_impl.kernels.gae:_compose", "arithmetic", "")] if TRITON else []),
)
"""Function, operator and how what stood there begins: the first mutant that is so."""


def chosen(function: str, operator: str, old: str) -> Mutant:
    there = [m for m in EVERY if (f"{m.package}.{m.module}:{m.function}", m.operator) == (function, operator)]
    return next(mutant for mutant in there if mutant.old.startswith(old))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("mutants") / "project")


@pytest.fixture(scope="module")
def trials(project: Path) -> dict[str, Trial]:
    few = [chosen(*one) for one in FEW]
    return {one.mutant.id: one for one in Campaign(project, LIMIT, trust=True).trials(few, 2)}


@pytest.mark.parametrize(("function", "operator", "old"), FEW, ids=[" ".join(few) for few in FEW])
def test_killed(function: str, operator: str, old: str, trials: dict[str, Trial]) -> None:
    one = trials[chosen(function, operator, old).id]
    assert one.seen_by, one


@pytest.mark.parametrize("package", ["reference", "torch_impl"])
def test_an_unchanged_project_survives(package: str, project: Path) -> None:
    """What would fail of itself would kill every mutant."""
    mutant = chosen(f"{package}.kl:adaptive_kl_coef", "arithmetic", "")
    same = replace(mutant, text=(ROOT / package / "kl.py").read_text(encoding="utf-8"))
    [one] = Campaign(project, LIMIT, trust=True).trials([same], 1)
    assert not one.seen_by, one


def test_what_does_not_return_is_seen(project: Path) -> None:
    """A call that takes too long is a failure, and ends."""
    mutant = chosen("torch_impl.kl:adaptive_kl_coef", "arithmetic", "")
    endless = "\n\ndef adaptive_kl_coef(**_):\n    while True:\n        pass\n"
    [one] = Campaign(project, LIMIT, trust=True).trials([replace(mutant, text=mutant.text + endless)], 1)
    assert one.seen_by.startswith("conformance/test_smoke.py"), one


def test_failures_that_no_mutant_causes_are_no_verdict(project: Path) -> None:
    name = "tests/formulas/test_second_definitions.py"
    broken = {name: (project / name).read_text(encoding="utf-8") + "\n\nassert False\n"}
    with changed(project, broken) as tree, pytest.raises(Unsound, match="fails without any mutant"):
        Campaign(tree, LIMIT).trial(chosen("reference.kl:adaptive_kl_coef", "constant", ""))


def test_one_test_alone() -> None:
    selection = Selection(("a.py", "b.py"), operations=("gae",), options=("--dtype", "float64"))
    alone = Selection(("b.py",), ("test_x[gae::y]",), options=("--dtype", "float64"))
    assert selection.alone("b.py::test_x[gae::y]") == alone
    assert selection.alone("exit status 2") == selection


def test_what_is_on_record_is_not_run_again(project: Path, tmp_path: Path) -> None:
    mutant, file = chosen("reference.kl:adaptive_kl_coef", "constant", ""), tmp_path / "record.jsonl"
    first = Campaign(project, LIMIT, trust=True, record=Record(file))
    assert first.trials([mutant], 1, minutes=0) == []
    [one] = first.trials([mutant], 1)
    assert one.seen_by
    again = Campaign(project, 0.0, record=Record(file))
    assert again.trials([mutant], 1, minutes=0) == [one]
    assert again.recorded(replace(mutant, text=mutant.text + "\n")) is None


def test_a_survivor_on_record_is_run_again_by_other_tests(project: Path) -> None:
    mutant, record = chosen("reference.kl:adaptive_kl_coef", "constant", ""), Record(None)
    now = Campaign(project, LIMIT, record=record)
    record.put(_key(mutant), ["", 2.0, now.code(mutant)])
    known = Trial(mutant, "", 2.0)
    assert now.recorded(mutant) == known
    for file, found in (
        ("tests/formulas/test_kl_scalar.py", None),
        ("tests/formulas/scalar_kl.py", None),
        ("conformance/oracle.py", None),
        ("tests/formulas/test_gae_scalar.py", known),
        ("tests/training/test_new.py", known),
    ):
        with changed(project, {file: ""}) as tree:
            assert Campaign(tree, LIMIT, record=record).recorded(mutant) == found


class AtOnce:
    """A pool that runs what it is given in this process, before it goes on."""

    def submit(self, function: Callable[..., Any], *given: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*given))
        return future


def test_a_round_that_has_not_seen_a_mutant_is_on_record(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an interruption the next round follows; the first one again where what it reads has changed."""
    mutant, record = chosen("torch_impl.kl:adaptive_kl_coef", "arithmetic", ""), Record(None)
    asked: list[tuple[str, ...]] = []

    def nothing(_: object, some: list[beside.Asked], *stage: str) -> dict[str, tuple[str, float]]:
        asked.append(stage)
        return {one.mutant.id: ("", 1.0) for one in some}

    monkeypatch.setattr(together, "pool", lambda _: nullcontext(AtOnce()))
    monkeypatch.setattr(beside, "seen", nothing)
    monkeypatch.setattr(Campaign, "_one_by_one", lambda *_: iter([]))
    every = beside.ROUNDS
    for rounds, now in ((every[:2], every[:2]), (every, every[2:]), (every, ())):
        monkeypatch.setattr(beside, "ROUNDS", rounds)
        assert Campaign(project, LIMIT, record=record).trials([mutant], 1) == []
        assert asked == [*now]
        asked.clear()
    for file, again in (("tests/formulas/test_new.py", ()), ("tests/right_backends/new.py", every)):
        with changed(project, {file: ""}) as tree:
            Campaign(tree, LIMIT, record=record).trials([mutant], 1)
        assert asked == [*again]
        asked.clear()


def test_a_selection_of_nothing_is_no_verdict(project: Path) -> None:
    with changed(project) as tree:
        selection = Selection(("tests/formulas/test_second_definitions.py",), ("test_agreement[nothing]",))
        assert run_tests(tree, selection, LIMIT).status == NO_TEST


def test_what_does_not_end_is_ended(project: Path) -> None:
    endless = {"reference/kl.py": "while True:\n    pass\n"}
    with changed(project, endless) as tree:
        outcome = run_tests(tree, Selection(("tests/formulas/test_kl_scalar.py",)), 5.0)
    assert outcome.status == -signal.SIGKILL != PASSED


def test_the_project_itself_is_left_alone(project: Path) -> None:
    path = ROOT / "torch_impl" / "kl.py"
    before = path.read_bytes()
    with changed(project, {"torch_impl/kl.py": ""}) as tree:
        assert (tree / "torch_impl" / "kl.py").read_bytes() == b""
        assert (project / "torch_impl" / "kl.py").read_bytes() == path.read_bytes() == before


def test_who_uses_what() -> None:
    kl = "def kl(x):\n    return _kl(x)\n\n\ndef _kl(x):\n    return rows.pack(x)\n"
    texts = {
        "rows": "def pack(x):\n    return x\n\n\nLIMIT = 2\n",
        "kl": f"from package import rows\n\n\n{kl}",
        "loss": "from package.kl import kl\n\n\ndef loss(x):\n    return kl(x)\n",
    }
    users = reaching("package", texts)
    assert users["rows", "pack"] == {("rows", "pack"), ("kl", "_kl"), ("kl", "kl"), ("loss", "loss")}
    assert users["kl", "kl"] == {("kl", "kl"), ("loss", "loss")}
    assert users["rows", "LIMIT"] == {("rows", "LIMIT")}


def test_every_mutant_has_tests_that_may_see_it() -> None:
    users = {
        p: reaching(p, {f.stem: f.read_text("utf-8") for f in (ROOT / p.replace(".", "/")).glob("*.py")})
        for p in campaign.PACKAGES
    }
    functions = {(m.package, m.module, m.function): m for m in EVERY}
    for mutant in functions.values():
        selections = plan(ROOT, mutant, users[mutant.package][mutant.module, mutant.function])
        assert selections
        assert all((ROOT / file).exists() for selection in selections for file in selection.files)


@pytest.mark.parametrize("module", ["gae", "kl"])
def test_the_tests_of_its_own_module_come_first(module: str) -> None:
    """Then those of every chapter, then those of how PyTorch computes; none of another chapter's."""
    mutant = next(m for m in EVERY if (m.package, m.module) == ("torch_impl", module))
    function = {"gae": "gae", "kl": "kl_estimate"}[module]
    files = [file for one in plan(ROOT, mutant, {(module, function)}) for file in one.files]
    places = {Path(file).stem: place for place, file in enumerate(files)}
    own = [place for stem, place in places.items() if module in stem]
    assert max(own) < places["test_bad_arguments"] < places["test_torch_tracing"]
    assert ("test_torch_gae_kernels" in places) == (module == "gae")


def test_what_a_mutant_says_that_cannot_be_imported_names_no_folder() -> None:
    mutant = replace(chosen("torch_impl.kl:adaptive_kl_coef", "arithmetic", ""), text="raise TypeError")
    texts = {path.stem: path.read_text("utf-8") for path in (ROOT / "torch_impl").glob("*.py")}
    asked = beside.asked(mutant, {("kl", "adaptive_kl_coef")})
    [(said, _)] = beside.seen(texts, [asked], "torch_impl", "float32", "quick").values()
    assert said.startswith("importing it raised TypeError")
    assert "(at conformance/adapters/" in said
    assert str(ROOT) not in said


def test_equivalents_match_and_give_reasons() -> None:
    entries = read()
    assert not idle(entries, EVERY)
    assert all(entry.reason for entry in entries)


def test_what_counts() -> None:
    mutant = chosen(*FEW[1])
    function = f"{mutant.package}.{mutant.module}:{mutant.function}"
    entry = Equivalent((function,), mutant.operator, mutant.old, mutant.new, "for a test")
    killed, survived = Trial(mutant, "a test", 1.0), Trial(mutant, "", 1.0)
    assert score.score([killed, killed, survived, survived], ()) == 0.5
    assert score.score([killed, survived], (entry,)) == 1.0
    assert score.survivors([killed, survived], ()) == [survived]
    assert score.survivors([killed, survived], (entry,)) == []
    assert score.refuted([killed, survived], (entry,)) == [killed]
    assert idle([replace(entry, new="nothing like it"), entry], EVERY) == [
        replace(entry, new="nothing like it")
    ]
    assert replace(entry, old="…" + mutant.old[-3:]).covers(mutant)
    assert not replace(entry, old=mutant.old[:-3]).covers(mutant)
    assert (
        score.table([replace(survived, mutant=replace(mutant, old="x |\n  y"))])["of"].item() == r"`x \| y`"
    )
    assert score.by_module([killed, survived], ()).loc["all", "score"] == "50.0%"
    assert score.reasons([killed, survived], (entry,))["reason"].tolist() == ["for a test"]
    assert score.reasons([killed, survived], (entry,))["mutants"].tolist() == [1]
    assert score.reasons([killed], (entry,)).empty


def test_the_command_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--package", "torch_impl", "--sample", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("torch_impl.") for line in lines)
