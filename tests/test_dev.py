"""dev.py: a word that is no command is named, with what is near or known; paths are the caller's."""

from pathlib import Path

import pytest

import dev


@pytest.mark.parametrize(
    ("word", "hint"),
    [("conformnce", "near: conformance"), ("quux", "the commands are conformance, test, museum, ")],
)
def test_an_unknown_command_is_named(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dev.main([word]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"dev.py: there is no command {word!r}; {hint}")


@pytest.mark.parametrize(("words", "status"), [([], 2), (["-h"], 0), (["--help"], 0)])
def test_usage(words: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert dev.main(words) == status
    assert "python3 dev.py conformance" in capsys.readouterr().out


def test_paths_are_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    words = [
        "--backend=mine.py",
        "--report",
        "out",
        "--known-failures=known.toml",
        "--replay=off",
        "-k",
        "out",
    ]
    backend, *report, known, off, key, out = dev.suite_options(words)[-len(words) :]
    assert backend == f"--backend={tmp_path}/mine.py"
    assert report == ["--report", f"{tmp_path}/out"]
    assert known == f"--known-failures={tmp_path}/known.toml"
    assert [off, key, out] == ["--replay=off", "-k", "out"]
