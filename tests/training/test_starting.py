"""How runs start and go on where adapters, warm starts and critics come together; what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training import small_runs
from tests.training.small_runs import same, weights
from torch_impl.train import loop, models, tokens
from torch_impl.train.building import inner
from torch_impl.train.models import ModelSettings, load_policy, save
from torch_impl.train.settings import Optimizer, PPOOptions, WarmStart
from torch_impl.train.sources import FileQuestions
from torch_impl.train.tasks import split_of

pytestmark = [
    pytest.mark.usefixtures("without_network", "one_thread"),
    pytest.mark.filterwarnings("ignore::torch_impl.train.metrics.Alarm"),
]


@pytest.mark.parametrize("algorithm", ["trpo", "ppo"])
def test_going_on_after_each_step(tmp_path: Path, algorithm: str) -> None:
    """With no optimiser, and where the policy has no state in one yet: to the same bits."""
    options: dict[str, Any] = {"critic_steps": 2} if algorithm == "ppo" else {"cg_iters": 2}
    whole = small_runs.trainer(algorithm, tmp_path / "whole", **options)
    loop.run(whole, tmp_path / "whole")
    for stop in (1, 2):
        out = tmp_path / f"stopped {stop}"
        stopped: Any = small_runs.trainer(algorithm, out, **options)
        stopped.step = _until(stopped.step, stop)
        with pytest.raises(KeyboardInterrupt):
            loop.run(stopped, out)
        again = small_runs.trainer(algorithm, out, **options)
        loop.run(again, out, resume=True)
        assert torch.equal(weights(whole), weights(again))


def _until(step: Any, stop: int) -> Any:
    def stopping(number: int) -> Any:
        if number == stop:
            raise KeyboardInterrupt
        return step(number)

    return stopping


def adapted(out: Path, algorithm: str = "ppo", **options: Any) -> Any:
    settings = small_runs.settings(algorithm, out, **options)
    settings.model = replace(settings.model, lora_rank=2)
    settings.warm_start = WarmStart(steps=2, rows=4)
    return settings


def test_a_critic_of_adapters_begins_as_the_warm_start(tmp_path: Path) -> None:
    trainer: Any = small_runs.begin("ppo", adapted(tmp_path))
    critic = inner(trainer.critic.scorer)
    merged = models.merged(trainer.actor.policy)
    base = critic.base_model.state_dict()
    kept = {name.replace(".base_layer", ""): x for name, x in base.items() if "lora_" not in name}
    assert all(torch.equal(kept[name], x) for name, x in merged.base_model.state_dict().items())
    names = [name for name, p in trainer.critic.scorer.named_parameters() if p.requires_grad]
    assert any("score" in name for name in names)
    assert any("lora_" in name for name in names)
    trainer.step(0)


def test_adapters_of_a_folder_are_warmed_up_too(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    settings = adapted(tmp_path, "grpo")
    tokenizer = tokens.make(settings.model.tokenizer)
    save(load_policy(replace(settings.model, lora_rank=0), tokenizer), base)
    save(load_policy(replace(settings.model, path=str(base)), tokenizer), adapter)
    settings.model = replace(settings.model, path=str(base), adapter=str(adapter), lora_rank=0)
    small_runs.begin("grpo", settings).step(0)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own
def test_dropout_of_adapters_is_off(tmp_path: Path) -> None:
    import peft

    base = load_policy(replace(small_runs.MODEL, lora_rank=0), tokens.make(small_runs.MODEL.tokenizer))
    save(base, tmp_path / "base")
    config = peft.LoraConfig(r=2, lora_dropout=0.5, task_type="CAUSAL_LM", init_lora_weights=False)
    peft.get_peft_model(base, config).save_pretrained(str(tmp_path / "adapter"))
    given = replace(small_runs.MODEL, path=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"))
    policy: Any = load_policy(given, tokens.make(given.tokenizer))
    assert policy.training
    ids = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(policy(input_ids=ids).logits, policy(input_ids=ids).logits)


def test_another_warm_start_is_not_taken_for_this_one(tmp_path: Path) -> None:
    settings = small_runs.settings("grpo", tmp_path)
    settings.warm_start = WarmStart(steps=2, rows=4)
    small_runs.begin("grpo", settings)
    small_runs.begin("grpo", settings)
    settings.model = replace(settings.model, layers=1)
    with pytest.raises(RuntimeError, match=r"is of a run with model.layers 2 and not 1"):
        small_runs.begin("grpo", settings)


def test_a_model_without_a_head_scores_nothing(tmp_path: Path) -> None:
    settings = small_runs.settings("grpo", tmp_path)
    save(load_policy(settings.model, tokens.make(settings.model.tokenizer)), tmp_path / "policy")
    settings.rollout = replace(settings.rollout, reward_model=str(tmp_path / "policy"))
    with pytest.raises(ValueError, match=r"rollout.reward_model must be a folder of a model with a head"):
        small_runs.begin("grpo", settings)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_are_not_trained(tmp_path: Path, dtype: str) -> None:
    settings = small_runs.settings("sft", tmp_path)
    settings.model = replace(settings.model, dtype=dtype)
    with pytest.raises(ValueError, match=rf"model.dtype must be 'float32' or 'float64' .*, got '{dtype}'"):
        small_runs.begin("sft", settings)
    settings.model = replace(settings.model, lora_rank=2)
    small_runs.begin("sft", settings).step(0)


def test_trust_regions_weigh_nothing(tmp_path: Path) -> None:
    settings = small_runs.settings("trpo", tmp_path)
    settings.rollout = replace(settings.rollout, weight_cap=1.5)
    with pytest.raises(ValueError, match=r"rollout.engine must be 'model' for trpo, which weighs no tokens"):
        small_runs.begin("trpo", settings)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Optimizer(max_grad_norm=-1.0), "optimizer.max_grad_norm must be"),
        (lambda: Optimizer(max_grad_norm=0.0), "optimizer.max_grad_norm must be"),
        (lambda: Optimizer(critic_learning_rate=-1.0), "optimizer.critic_learning_rate must be"),
        (lambda: PPOOptions(value_coef=-1.0), "value_coef must be"),
        (lambda: PPOOptions(entropy_coef=-1.0), "entropy_coef must be"),
    ],
)
def test_settings_that_would_climb_are_refused(make: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


def test_a_critic_may_stand_still(tmp_path: Path) -> None:
    settings = small_runs.settings("ppo", tmp_path)
    settings.optimizer = replace(settings.optimizer, critic_learning_rate=0.0)
    trainer: Any = small_runs.begin("ppo", settings)
    assert [group["lr"] for group in trainer.descent.optimizer.param_groups] == [3e-3, 0.0]


def test_all_rows_of_a_file_are_trained_on(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(f'{{"prompt": "{k}", "answer": "a"}}\n' for k in range(100)), encoding="utf-8")
    questions = FileQuestions(str(file))
    all_ = sum(split_of(str(k)) == "train" for k in range(100))
    assert len(questions.problems("train", count=3)) == all_ > 3
    assert len(questions.problems("held-out", count=3)) == 3


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_the_kl_of_a_step_counts_its_last_update(tmp_path: Path, algorithm: str) -> None:
    """With one minibatch the ratio before the update is 1 all along."""
    settings = small_runs.settings(algorithm, tmp_path)
    settings.optimizer = replace(settings.optimizer, learning_rate=0.05)
    settings.run = replace(settings.run, evaluate_every=2, steps=5)
    trainer: Any = small_runs.begin(algorithm, settings)
    assert "step_kl" not in trainer.step(0)
    trainer.tally.means(trainer.world)
    rows = trainer.sampler.draw(1).rollouts
    old = trainer.actor.of_all(rows)[0]
    found = trainer.step(1) | trainer.tally.means(trainer.world)
    distance = (trainer.actor.of_all(rows)[0] - old)[rows.mask]
    expected = (distance.exp() - 1 - distance).mean()
    assert found["step_kl"] > 0 == found["approx_kl"]
    assert same(torch.tensor(found["step_kl"], dtype=torch.float64), expected)


def test_half_precision_scores_are_wide(tmp_path: Path) -> None:
    given = ModelSettings(layers=1, dtype="bfloat16")
    scorer = models.load_scorer(given, tokens.make("bytes"))
    torch.nn.init.normal_(inner(scorer).score.weight)
    ids = torch.tensor([[1, 2, 3]])
    found = scorer(ids, ids > 0)
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())
