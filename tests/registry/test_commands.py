"""The command `rlspec`, from any folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from conformance.commands import main
from spec.registry import ROOT, Registry

CLAUSE = Registry.load().clauses["gae.td-error"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "gae.td-error"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    words = " ".join(out.split())
    for part in (
        f"gae.td-error: TD error definition, version 1.0, hash {CLAUSE.hash}",
        CLAUSE.normative,
        f"Assumptions: {CLAUSE.assumptions}",
        CLAUSE.formulas[0],
        "Source Schulman et al. 2016",
        "Reference reference.gae.td_errors",
        "Derivation spec.gae_statistics.td_error_unbiased (proved)",
        f"Bugs {CLAUSE.bugs[0]}",
        "Tests conformance/test_gae.py::",
        "Permalink spec/gae.md#gaetd-error",
        f"Citation # spec: gae.td-error@1.0#{CLAUSE.hash}",
        f"> **gae.td-error** (definition, version 1.0): {CLAUSE.normative}",
    ):
        assert part in words
    assert max(map(len, out.split("To quote it")[0].splitlines())) <= 100


@pytest.mark.parametrize("slug", sorted(Registry.load().clauses))
def test_show_everything(slug: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", slug]) == 0
    assert slug in capsys.readouterr().out


def test_show_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "gae.td-eror"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rlspec: you asked for gae.td-eror, which is no clause; near: gae.td-error")


def test_show_nothing_like_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "quux"]) == 1
    assert capsys.readouterr().err == "rlspec: you asked for quux, which is no clause\n"


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["slug", "kind", "version", "hash", "must", "derivation", "tests"]
    assert [row.split()[0] for row in rows] == list(Registry.load().clauses)
    [row] = [row for row in rows if row.startswith("gae.td-error ")]
    assert row.split()[:6] == ["gae.td-error", "definition", "1.0", CLAUSE.hash, "MUST", "proved"]


def test_list_chapter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "contract"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows
    assert all(row.startswith("contract.") for row in rows)


def test_list_unknown_chapter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "gea"]) == 1
    chapters = ", ".join(dict.fromkeys(clause.prefix for clause in Registry.load().clauses.values()))
    assert capsys.readouterr().err == f"rlspec: there is no chapter gea; the chapters are {chapters}\n"


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["show"], 2), (["--help"], 0)])
def test_usage(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == status
    assert "rlspec" in "".join(capsys.readouterr())


def test_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "conformance.commands", "show", "gae.unbiasd"],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "near: gae.unbiased" in done.stderr
