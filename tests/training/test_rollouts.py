"""Rollouts: what is chosen, with which log-probabilities, and where it ends."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training import small_runs
from tests.training.tiny import LETTERS, PROMPTS, coarse, foreign_folder, loud, only_rounded, policy, settings
from torch_impl.train import tasks
from torch_impl.train.models import load_policy, save
from torch_impl.train.responses import response_logprobs
from torch_impl.train.rollouts import (
    Engine,
    ModelEngine,
    Rollouts,
    _Draws,
    evaluate,
    finish,
    pad_left,
    pad_right,
    score_responses,
)
from torch_impl.train.tasks import Problem, make
from torch_impl.train.tokens import CharTokenizer
from torch_impl.train.vllm_engine import VLLMEngine

pytestmark = pytest.mark.usefixtures("without_network", "one_thread")

IDS = [LETTERS.encode(prompt) for prompt in PROMPTS]
LENGTH = 8


@pytest.fixture(params=["llama", "gpt2", "cohere", "qwen3", "adapted"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> nn.Module:
    if request.param == "llama":
        return policy()
    if request.param == "adapted":
        return loud(load_policy(settings(lora_rank=2, lora_targets=["q_proj"]), LETTERS))
    return load_policy(settings(path=str(foreign_folder(tmp_path, request.param))), LETTERS)


def sampled(model: nn.Module, samples: int = 6, **options: Any) -> Rollouts:
    """Answers to the prompts."""
    given = {"samples": samples, "max_new_tokens": LENGTH, "seed": 5, **options}
    return ModelEngine(model, LETTERS).generate(IDS, **given)


def recomputed(model: nn.Module, found: Rollouts, temperature: float = 1.0) -> Tensor:
    """What the trainer says of the same tokens."""
    rows = found.prompts, found.prompt_mask, found.responses, found.mask
    with torch.no_grad():
        return response_logprobs(model, *rows, temperature=temperature)[0]


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
def test_log_probabilities_are_those_of_the_trainer(model: nn.Module, temperature: float) -> None:
    """With a cache, a token at a time, from prompts that were read once for all their samples."""
    found = sampled(model, temperature=temperature)
    expected, rough = (recomputed(one, found, temperature) for one in (model, coarse(model)))
    mask = found.mask
    assert only_rounded(expected[mask], found.rollout_logprobs[mask], rough[mask])
    assert not only_rounded(expected[mask], recomputed(model, found, 1.5)[mask], rough[mask])


def test_eos_is_part_of_a_response_and_nothing_follows(model: nn.Module) -> None:
    found = sampled(model, samples=20)
    assert 0 < int(found.truncated.sum()) < len(found.truncated)
    for ids, mask, logprobs, truncated in zip(
        found.responses.tolist(), found.mask.tolist(), found.rollout_logprobs, found.truncated, strict=True
    ):
        length = sum(mask)
        assert mask == [True] * length + [False] * (len(mask) - length)
        assert LETTERS.eos_id not in ids[: length - 1]
        assert (ids[length - 1] == LETTERS.eos_id) == (not truncated)
        assert set(ids[length:]) <= {LETTERS.pad_id}
        assert not logprobs[length:].any()
        assert not truncated or length == LENGTH


def test_rows_of_a_prompt_lie_together() -> None:
    found = sampled(policy(), samples=3)
    for row, (ids, mask) in enumerate(zip(found.prompts, found.prompt_mask, strict=True)):
        assert ids[mask].tolist() == IDS[row // 3]
        assert mask.tolist() == sorted(mask.tolist())
        assert set(ids[~mask].tolist()) <= {LETTERS.pad_id}


def test_a_seed_decides(model: nn.Module) -> None:
    before = torch.get_rng_state()
    first, same, other = (sampled(model, seed=seed).tensors() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["responses"], other["responses"])
    assert torch.equal(torch.get_rng_state(), before)


def test_without_temperature_the_most_probable_is_chosen(model: nn.Module) -> None:
    """Whatever the seed and whoever is beside: and log-probabilities are at τ = 1."""
    found = sampled(model, samples=1, temperature=0.0)
    again = sampled(model, samples=2, temperature=0.0, seed=9).select(slice(0, None, 2))
    assert torch.equal(found.responses, again.responses)
    for row, prompt in enumerate(IDS):
        single = ModelEngine(model, LETTERS).generate([prompt], max_new_tokens=LENGTH, temperature=0.0)
        assert single.response_ids() == [found.response_ids()[row]]
        ids = [*prompt]
        for token in found.response_ids()[row]:
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1, : LETTERS.vocab_size]
            assert int(logits.argmax()) == token
            ids.append(token)
    expected, rough = (recomputed(one, found) for one in (model, coarse(model)))
    assert only_rounded(expected[found.mask], found.rollout_logprobs[found.mask], rough[found.mask])


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_as_frequent_as_probable(temperature: float) -> None:
    """Hoeffding: a frequency of n draws is off by more than √(ln(2/δ)/2n) with a chance below δ = 1e-9."""
    count = 10_000
    logits = torch.tensor([0.0, 1.0, -1.0, -math.inf, 2.0], dtype=torch.float64)
    token, logprob = _Draws(temperature, torch.Generator().manual_seed(0)).choose(logits.expand(count, 1, 5))
    expected = (logits / temperature).log_softmax(0)
    found = torch.bincount(token[:, 0], minlength=5) / count
    assert bool(((found - expected.exp()).abs() <= math.sqrt(math.log(2e9) / (2 * count))).all())
    assert found[3] == 0.0
    in_float32 = (logits.float() / temperature).log_softmax(0)
    assert only_rounded(expected[token[:, 0]], logprob[:, 0], in_float32[token[:, 0]])


def test_padding_of_the_vocabulary_is_never_chosen(tmp_path: Path) -> None:
    save(policy(), tmp_path)
    wide = loud(load_policy(settings(path=str(tmp_path), vocabulary_multiple=64), LETTERS))
    found = sampled(wide, samples=20, temperature=50.0)
    assert int(found.responses.max()) < LETTERS.vocab_size


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_in_its_mode(training: bool) -> None:
    model = policy(activation_checkpointing=True).train(training)
    sampled(model)
    assert model.training is training


def test_rows_can_be_chosen_and_moved() -> None:
    found = sampled(policy())
    assert set(found.tensors()) == {
        "prompts",
        "prompt_mask",
        "responses",
        "mask",
        "rollout_logprobs",
        "truncated",
    }
    index = torch.tensor([3, 0])
    assert all(
        torch.equal(x, found.tensors()[name][index]) for name, x in found.select(index).tensors().items()
    )
    assert found.select(found.truncated).truncated.all()
    assert found.to("meta").responses.device.type == "meta"
    assert found.responses.device.type == "cpu"


def test_bad_arguments_are_named() -> None:
    engine = ModelEngine(policy(context=16), LETTERS)
    with pytest.raises(ValueError, match=r"prompts must be at least one, got none"):
        engine.generate([], max_new_tokens=2)
    with pytest.raises(ValueError, match=r"prompts must have at least one token each, got none in number 1"):
        engine.generate([[1], []], max_new_tokens=2)
    with pytest.raises(ValueError, match=r"samples must be an integer of at least 1, got int 0"):
        engine.generate([[1]], samples=0, max_new_tokens=2)
    with pytest.raises(ValueError, match=r"max_new_tokens must be an integer of at least 1, got int 0"):
        engine.generate([[1]], max_new_tokens=0)
    with pytest.raises(
        ValueError, match=r"temperature must be a finite number of at least 0, got float -1.0"
    ):
        engine.generate([[1]], max_new_tokens=2, temperature=-1.0)
    with pytest.raises(ValueError, match=r"must have at most 16 tokens together, got 17"):
        engine.generate([[1]], max_new_tokens=16)


def test_a_response_that_ends_at_the_last_token_is_not_truncated() -> None:
    tokens = torch.tensor([[1, LETTERS.eos_id], [1, 2], [LETTERS.eos_id, 0]])
    mask = torch.tensor([[True, True], [True, True], [True, False]])
    found = finish(tokens, mask, tokens, torch.ones(3, 2), mask, LETTERS)
    assert found.truncated.tolist() == [False, True, False]
    assert found.response_ids() == [[1, LETTERS.eos_id], [1, 2], [LETTERS.eos_id]]


DIGITS = CharTokenizer("0123456789 +-=.")
SUMS = make(
    "chain_sum",
    {"chain_sum": {"min_terms": 2, "max_terms": 2, "max_digits": 1}},
    templates={"chain_sum": "{expression} ="},
)


@dataclass
class Oracle:
    """An engine that knows the answers to all problems but some."""

    problems: list[Problem]
    wrong: int = 0

    def generate(self, prompts: Sequence[list[int]], *, samples: int, **_: Any) -> Rollouts:
        texts = {p.prompt: "9999" if k < self.wrong else p.answer for k, p in enumerate(self.problems)}
        answers = [[*DIGITS.encode(texts[DIGITS.decode(list(p))]), DIGITS.eos_id] for p in prompts]
        tokens = [answer for answer in answers for _ in range(samples)]
        ids, mask = pad_left([p for p in prompts for _ in range(samples)], DIGITS.pad_id, "cpu")
        held = pad_right([[True] * len(row) for row in tokens], False)
        padded = pad_right(tokens, DIGITS.pad_id)
        return finish(ids, mask, padded, torch.zeros(padded.shape), held, DIGITS)


@pytest.mark.parametrize(("wrong", "rate"), [(0, 1.0), (4, 0.75), (16, 0.0)])
def test_the_share_of_solved_problems(wrong: int, rate: float) -> None:
    problems = SUMS.problems("held-out", count=16)
    engine: Engine = Oracle(problems, wrong)
    for batch in (5, 16):
        found = evaluate(engine, SUMS, problems, DIGITS, max_new_tokens=4, samples=2, batch=batch)
        assert found == rate


def test_evaluation_of_a_model_is_deterministic_and_wants_problems() -> None:
    model = loud(load_policy(settings(), DIGITS))
    problems = SUMS.problems("held-out", count=4)
    engine = ModelEngine(model, DIGITS)
    rates = {evaluate(engine, SUMS, problems, DIGITS, max_new_tokens=3, seed=seed) for seed in (0, 1)}
    assert len(rates) == 1
    with pytest.raises(ValueError, match=r"problems must be at least one, got none"):
        evaluate(engine, SUMS, [], DIGITS, max_new_tokens=3)


def test_partly_right_is_not_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = SUMS.problems("held-out", count=2)
    monkeypatch.setattr(tasks.Task, "score", lambda *_: 0.99)
    assert evaluate(Oracle(problems), SUMS, problems, DIGITS, max_new_tokens=4) == 0.0


def test_each_problem_has_its_rows() -> None:
    problems = SUMS.problems("held-out", count=3)
    found = Oracle(problems, wrong=1).generate([DIGITS.encode(p.prompt) for p in problems], samples=2)
    assert score_responses(found, SUMS, problems, DIGITS, samples=2)[2:] == [1.0] * 4
    with pytest.raises(ValueError, match=r"rollouts must have 3 rows for each of 3 problems, got 6"):
        score_responses(found, SUMS, problems, DIGITS, samples=3)


def test_vllm_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match=r"needs the package vllm, .* pip install 'rlspec\[vllm\]'"):
        VLLMEngine("folder", LETTERS)


class FakeModel:
    """What vLLM documents, for two prompts with two answers each, one of which is truncated."""

    asked: dict[str, Any]

    def __init__(self, **options: Any) -> None:
        self.options = options

    def generate(self, prompts: list[dict[str, Any]], params: list[Any], use_tqdm: bool) -> list[Any]:
        seeds = [one.seed for one in params]
        FakeModel.asked = {"prompts": prompts, "seeds": seeds, **vars(params[0]), **self.options}
        answers = [[3, LETTERS.eos_id], [1, 2, 4]]
        return [
            SimpleNamespace(
                outputs=[
                    SimpleNamespace(
                        token_ids=tuple(ids),
                        logprobs=[{i: SimpleNamespace(logprob=-0.5 * i), 99: None} for i in ids],
                    )
                    for ids in answers
                ]
            )
            for _ in prompts
        ]


def test_vllm_by_its_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("vllm")
    fake.LLM, fake.SamplingParams = FakeModel, SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", fake)
    engine: Engine = VLLMEngine("folder", LETTERS, seed=1)
    found = engine.generate([[1], [2, 3]], samples=2, max_new_tokens=3, temperature=0.7, seed=4)
    asked = FakeModel.asked
    assert asked["prompts"] == [{"prompt_token_ids": [1]}, {"prompt_token_ids": [2, 3]}]
    assert len(set(asked["seeds"])) == 2
    assert (asked["n"], asked["max_tokens"], asked["temperature"], asked["logprobs"]) == (2, 3, 0.7, 0)
    assert (asked["model"], asked["stop_token_ids"], asked["ignore_eos"]) == (
        "folder",
        [LETTERS.eos_id],
        True,
    )
    assert asked["logprobs_mode"] == "processed_logprobs"
    assert found.prompt_mask.tolist() == [[False, True], [False, True], [True, True], [True, True]]
    assert found.response_ids() == [[3, LETTERS.eos_id], [1, 2, 4]] * 2
    assert found.truncated.tolist() == [False, True] * 2
    assert found.rollout_logprobs[1].tolist() == [-0.5, -1.0, -2.0]
    assert found.rollout_logprobs[0, 2] == 0.0


def test_vllm_is_given_a_whole_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Adapters alone are no model: they are merged into one."""
    fake = ModuleType("vllm")
    fake.LLM, fake.SamplingParams = FakeModel, SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", fake)
    settings = small_runs.settings("grpo", tmp_path)
    settings.model = replace(settings.model, lora_rank=2)
    settings.rollout = replace(settings.rollout, engine="vllm")
    trainer: Any = small_runs.begin("grpo", settings)
    for name, p in trainer.actor.policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p)
    with trainer.engine() as engine:
        folder = engine._model.options["model"]
    loaded = load_policy(replace(settings.model, path=folder, lora_rank=0), trainer.tokenizer)
    ids = torch.tensor([[1, 2, 3]])
    expected = trainer.actor.policy(input_ids=ids).logits
    torch.testing.assert_close(loaded(input_ids=ids).logits, expected)
    assert not torch.allclose(expected, trainer.reference.policy(input_ids=ids).logits)


class Mine(Oracle):
    """An engine of somebody else's."""

    def __init__(self, folder: str, tokenizer: CharTokenizer) -> None:
        assert (Path(folder) / "model.safetensors").is_file()
        self.tokenizer = tokenizer


def test_an_engine_by_its_name(tmp_path: Path) -> None:
    settings = small_runs.settings("grpo", tmp_path)
    settings.rollout = replace(settings.rollout, engine=f"{__name__}:Mine")
    trainer: Any = small_runs.begin("grpo", settings)
    with trainer.engine() as engine:
        assert isinstance(engine, Mine)
    assert settings.rollout.cap == 2.0
    settings.rollout.engine = "nowhere:Mine"
    with pytest.raises(
        ImportError, match=r"rollout.engine must be a MODULE:CLASS that there is, got 'nowhere"
    ):
        trainer.sampler.draw(0)
    with pytest.raises(
        ValueError, match=r"rollout.engine must be 'model', 'vllm' or MODULE:CLASS, got 'mine'"
    ):
        replace(settings.rollout, engine="mine")
