"""The command `rlspec`, from any folder."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from conformance.commands import READER_GONE, main
from spec.registry import ROOT, Registry

CLAUSE = Registry.load().clauses["gae.td-error"]
CHANGED = Registry.load().clauses["contract.constants"]
"""A clause with a history."""


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
        f"> spec/gae.md, `{CLAUSE.citation}`",
    ):
        assert part in words
    assert max(map(len, out.split("To quote it")[0].splitlines())) <= 100


@pytest.mark.parametrize("form", ["{}", "# {}", "spec: {}", "// spec: {}"])
def test_show_a_citation(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    cited = CLAUSE.citation if "spec" not in form else CLAUSE.citation.removeprefix("spec: ")
    assert main(["show", form.format(cited)]) == 0
    told, _, head, *_ = capsys.readouterr().out.splitlines()
    assert told == f"You cited gae.td-error@1.0#{CLAUSE.hash}, which is current."
    assert head == "gae.td-error: TD error"


def test_show_a_stale_citation(capsys: pytest.CaptureFixture[str]) -> None:
    newest, *_, first = CHANGED.versions
    cited, today = (f"contract.constants@{v.number}#{v.hash}" for v in (first, newest))
    assert main(["show", cited]) == 0
    told, *lines = capsys.readouterr().out.splitlines()
    assert told == f"You cited {cited}, which is stale: it is {today} now. Since then:"
    since = [f"  {v.number} ({v.date}): {v.change}" for v in CHANGED.versions[:-1]]
    assert lines[: len(since) + 2] == [*since, "", f"contract.constants: {CHANGED.title}"]


@pytest.mark.parametrize(
    ("cited", "told"),
    [
        ("contract.constants@1.0", "stale"),
        (f"contract.constants@{CHANGED.version}", "current"),
        (f"contract.constants#{CHANGED.versions[-1].hash}", "stale"),
        (f"contract.constants@1.0#{CHANGED.hash}", "It never had that version and hash."),
        ("contract.constants@1.0#01234567", "It never had that version and hash."),
    ],
)
def test_show_what_is_half_a_citation_or_none(
    cited: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", cited]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"You cited {cited}, which is ")
    assert told in first


@pytest.mark.parametrize("slug", sorted(Registry.load().clauses))
def test_show_everything(slug: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", slug]) == 0
    assert slug in capsys.readouterr().out


def test_show_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "gae.td-eror"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rlspec: you asked for gae.td-eror, which is no clause; near: gae.td-error")
    assert main(["show", "gae.td-eror@1.0#01234567"]) == 1
    assert capsys.readouterr().err == err


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


def test_list_chapter_by_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    for page in Registry.load().pages:
        assert main(["list", page.prefix]) == 0
        by_prefix = capsys.readouterr().out
        assert main(["list", Path(page.path).stem]) == 0
        assert capsys.readouterr().out == by_prefix


def test_list_unknown_chapter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "gea"]) == 1
    assert capsys.readouterr().err == "rlspec: there is no chapter gea; near: gae\n"
    assert main(["list", "quux"]) == 1
    told = capsys.readouterr().err.removeprefix("rlspec: there is no chapter quux; the chapters are ")
    pages = Registry.load().pages
    assert set(told.strip().split(", ")) == {p.prefix for p in pages} | {Path(p.path).stem for p in pages}


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["show"], 2), (["--help"], 0)])
def test_usage(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == status
    assert "rlspec" in "".join(capsys.readouterr())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"rlspec {version('rlspec')}\n"


def test_help_says_how_the_suite_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "pytest conformance/ --backend NAME" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["show", "gae.mask"], ["list"], ["--help"]])
def test_a_reader_that_goes_away_is_no_traceback(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "conformance.commands", *words]
    done = subprocess.run(
        command,
        env={"PYTHONPATH": str(ROOT)},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (READER_GONE, "")


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
