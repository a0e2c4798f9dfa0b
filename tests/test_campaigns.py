"""What a long run has found is still there after an interruption, and only as long as it holds."""

from pathlib import Path

from tests.campaigns import Record, behaviour, digest


def test_what_is_recorded_is_found_again(tmp_path: Path) -> None:
    file = tmp_path / "found.jsonl"
    Record(file).put("one", [1, "a"])
    record = Record(file)
    record.put("two", None)
    record.put("three", {"b": 2.5})
    assert [Record(file).get(key) for key in ("one", "two", "three", "four")] == [
        [1, "a"],
        None,
        {"b": 2.5},
        None,
    ]


def test_a_line_that_was_cut_off_is_no_result(tmp_path: Path) -> None:
    file = tmp_path / "found.jsonl"
    Record(file).put("one", 1)
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole + whole[:-1].replace("one", "two"), encoding="utf-8")
    record = Record(file)
    record.put("three", 3)
    assert [Record(file).get(key) for key in ("one", "two", "three")] == [1, None, 3]


def test_without_a_file_nothing_is_kept() -> None:
    record = Record(None)
    record.put("one", 1)
    assert record.get("one") == 1
    assert Record(None).get("one") is None


def test_a_digest_sees_every_change(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    before = digest(tmp_path, "text")
    assert digest(tmp_path, "text") == before != digest(tmp_path, "other text")
    (tmp_path / "a.py").write_text("x = 2\n", encoding="utf-8")
    assert digest(tmp_path, "text") != before
    assert digest("ab", "c") != digest("a", "bc")


def test_behaviour_is_code_without_what_is_said_of_it(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    texts = [
        'def f(x):\n    """Twice."""\n    return 2 * x\n',
        "def f(x):\n    return 2*x  # doubled\n",
        "def f(x):\n    return 3 * x\n",
        'def f(x):\n    print("Twice.")\n    return 2 * x\n',
    ]
    found = []
    for text in texts:
        file.write_text(text, encoding="utf-8")
        assert behaviour(file) == behaviour(tmp_path)
        found.append(behaviour(file))
    assert found[0] == found[1]
    assert len(set(found)) == 3
