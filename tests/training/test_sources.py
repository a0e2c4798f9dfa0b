"""Runs from files, with adapters, and with a reward model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training import small_runs
from torch_impl.train import data, loop, sources
from torch_impl.train.data import DataError, Demonstration, Preference, Prompt
from torch_impl.train.grpo import GRPO
from torch_impl.train.settings import PairOptions, Problems, WarmStart
from torch_impl.train.starting import make

pytestmark = [
    pytest.mark.usefixtures("without_network", "one_thread"),
    pytest.mark.filterwarnings("ignore::torch_impl.train.metrics.Alarm"),
]

WORDS = ["cat", "dog", "sun", "fox", "hen", "cow", "owl", "bee", "ant", "elk", "emu", "yak", "pig", "rat"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Files of each kind, by kind."""
    rows: dict[str, list[Any]] = {
        "prompts": [Prompt(f"{w}>", w[::-1]) for w in WORDS],
        "pairs": [Preference(f"{w}>", w[::-1], w) for w in WORDS],
        "right": [Demonstration(f"{w}>", w[::-1]) for w in WORDS],
    }
    for kind, some in rows.items():
        data.write(tmp_path / f"{kind}.jsonl", some)
    return {kind: str(tmp_path / f"{kind}.jsonl") for kind in rows}


def test_files_are_divided_by_their_prompts(files: dict[str, str]) -> None:
    asked = sources.questions(Problems(file=files["prompts"]))
    split = {s: {p.prompt for p in asked.problems(s, count=99)} for s in ("train", "held-out")}
    assert not split["train"] & split["held-out"]
    assert split["train"] | split["held-out"] == {f"{w}>" for w in WORDS}
    pairs = sources.preferences(Problems(file=files["pairs"]), PairOptions(), seed=0)
    assert {p.prompt for p in pairs["train"]} == split["train"]
    [first, *_] = asked.problems("train", count=1)
    assert asked.score(first, f" {first.answer}\n") == 1.0
    assert asked.score(first, first.prompt) == 0.0


def test_another_file_may_be_held_out(files: dict[str, str]) -> None:
    found = sources.demonstrations(Problems(file=files["right"], held_out_file=files["right"]), seed=0)
    assert len(found["train"]) == len(found["held-out"]) == len(WORDS)


def test_a_file_without_answers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "open.jsonl"
    data.write(path, [Prompt("what?", "this"), Prompt("why?")])
    with pytest.raises(DataError, match=r"open.jsonl, row 2: field 'answer' is missing"):
        sources.questions(Problems(file=str(path)))


def test_a_file_that_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.jsonl"
    data.write(path, [Prompt("what?", "this")])
    with pytest.raises(DataError, match=r"expected rows for both sets, got none for .*; name another file"):
        sources.questions(Problems(file=str(path)))


def test_a_run_from_files_with_adapters_and_a_reward_model(tmp_path: Path, files: dict[str, str]) -> None:
    model = small_runs.settings("reward-model", tmp_path / "scores")
    model.problems = replace(model.problems, file=files["pairs"])
    loop.run(small_runs.begin("reward-model", model), tmp_path / "scores")
    settings = small_runs.settings("grpo", tmp_path / "run", kl_coef=0.1)
    settings.problems = replace(settings.problems, file=files["prompts"])
    settings.model = replace(settings.model, lora_rank=2)
    settings.warm_start = WarmStart(steps=2, rows=4, file=files["right"])
    settings.rollout.reward_model = str(tmp_path / "scores" / "model")
    trainer = make("grpo", settings, small_runs.ALONE)
    assert isinstance(trainer, GRPO)
    sampled = trainer.sampler.draw(0)
    assert trainer.sampler.reward_model is not None
    assert torch.equal(sampled.scores, trainer.sampler.reward_model.scores_of_all(sampled.rollouts))
    assert sampled.scores.min() < sampled.scores.max()
    loop.run(trainer, tmp_path / "run")
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").is_file()


def test_a_warm_start_wants_a_file_beside_a_file(tmp_path: Path, files: dict[str, str]) -> None:
    settings = small_runs.settings("grpo", tmp_path)
    settings.problems = replace(settings.problems, file=files["prompts"])
    settings.warm_start = WarmStart(steps=2)
    with pytest.raises(ValueError, match=r"warm_start.file must be given where problems.file is, got none"):
        make("grpo", settings, small_runs.ALONE)
