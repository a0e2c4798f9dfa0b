"""The page of the presets says what the runs' metrics say, and keeps the reports that it links."""

from pathlib import Path

import pytest

from tests.training import measure
from tests.training.measure import PAGE, TIES, Trial, write
from torch_impl.train.memory import Batch
from torch_impl.train.models import ModelSettings


@pytest.fixture
def done(tmp_path: Path) -> list[Trial]:
    """A run of GRPO, whose report is shown, and one of TRPO."""
    run = tmp_path / "runs" / "grpo-0"
    (run / "plots").mkdir(parents=True)
    (run / "report.md").write_text("a report", encoding="utf-8")
    (run / "plots" / "kl.svg").write_text("a plot", encoding="utf-8")
    solved = [{"step": step, "held_out_success": x} for step, x in ((0, 0.25), (4, 0.5))]
    steps = [solved[0], {"step": 3, "step_kl": 0.004, "improvement": 0.5}]
    steps.append({**solved[1], "step_kl": 0.002, "improvement": 0.25})
    return [Trial("grpo", 0, 90.0, solved), Trial("trpo", 0, 60.0, steps)]


def test_lines_are_of_the_first_and_the_last_measurement(done: list[Trial]) -> None:
    first, second = (one.line for one in done)
    assert [first[name] for name in ("before", "after", "steps", "minutes")] == ["0.250", "0.500", 4, "1.5"]
    assert first["largest KL of a step"] == ""
    assert second["largest KL of a step"] == "0.0040"
    assert second["smallest improvement of a step"] == "0.2500"


def test_reports_that_are_linked_are_there(done: list[Trial], tmp_path: Path) -> None:
    into = tmp_path / "pages"
    into.mkdir()
    write(tmp_path, done, into, "a command")
    text = (into / PAGE).read_text(encoding="utf-8")
    assert "by `a command`" in text
    assert "(training-grpo/report.md)" in text
    assert TIES in text
    assert "training-ppo" not in text
    assert (into / "training-grpo" / "report.md").read_text(encoding="utf-8") == "a report"
    assert (into / "training-grpo" / "plots" / "kl.svg").exists()


def test_memory_is_told_of_every_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ModelSettings(layers=1, heads=2, width=8)
    monkeypatch.setattr(
        measure, "MEMORY", (("One", small, Batch(1, 2, 2), True), ("Two", small, Batch(), False))
    )
    measure.write_memory(tmp_path, "a command")
    text = (tmp_path / measure.MEMORY_PAGE).read_text(encoding="utf-8")
    first, second = text.split("## ")[1:]
    assert "by `a command`" in text
    assert "1 blocks of width 8, 2 heads" in first
    assert ("PPO, measured" in first, "PPO, measured" in second) == (True, False)
