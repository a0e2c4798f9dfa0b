"""The command line, presets, metrics, alarms and the report."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reference import training as reference
from spec import registry
from tests.training import small_runs
from torch_impl.train import __main__ as command
from torch_impl.train import metrics, models, report, settings, tokens
from torch_impl.train.settings import Rollout, flat
from torch_impl.train.starting import ALGORITHMS

pytestmark = pytest.mark.usefixtures("without_network", "one_thread")

PRESETS = sorted(settings.PRESETS.glob("*.toml"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_are_settings_and_quiet(path: Path) -> None:
    algorithm, _, name = path.stem.rpartition("-")
    made = command.settings_of(algorithm, ["--preset", name, "--seed", "5"])
    assert made.seed == 5
    held = flat(made)
    for section, options in tomllib.loads(path.read_text(encoding="utf-8")).items():
        for option, value in options.items() if isinstance(options, dict) else ():
            assert held[f"{section}.{option}"] == value
    if name == "recommended":
        made.model.path = "a model of a billion parameters"
    assert list(metrics.alarms(made, 10**9 if name == "recommended" else 10**6)) == []


def test_each_algorithm_has_a_tiny_preset() -> None:
    assert {path.stem for path in PRESETS} >= {f"{algorithm}-tiny" for algorithm in ALGORITHMS}


def test_short_forms_and_files_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[grpo]\nclip_high = 0.28\n[run]\nsteps = 7\n")
    given = ["--preset", "tiny", "--config", str(file), "--task", "chain_sum,gcd", "--resume"]
    given += ["--run.steps", "8"]
    made = command.settings_of("grpo", given)
    assert made.problems.names == ["chain_sum", "gcd"]
    assert made.resume
    assert (made.grpo.clip_high, made.run.steps, made.rollout.samples) == (0.28, 8, 32)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--preset", "small"], "preset must be one of .*tiny.* for grpo, got 'small'"),
        (["--rollout.together", "3"], "rollout.together must divide rollout.prompts, 8, got 3"),
        (["--grpo.clip_low", "-1"], "clip_low must be"),
    ],
)
def test_what_is_refused_is_said(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["grpo", *arguments])
    assert re.search(told, str(ended.value) + capsys.readouterr().err)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_help_names_clauses_that_there_are(algorithm: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main([algorithm, "--help"])
    text = " ".join(re.sub(r"-\n +", "-", capsys.readouterr().out).split())
    cited = set(re.findall(r"[Cc]lauses?: ((?:[a-z]+\.[a-z-]+(?:, )?)+)", text))
    slugs = {slug for some in cited for slug in some.split(", ")}
    assert slugs
    assert slugs <= set(registry.Registry.load().clauses)


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in [], ["--help"]:
        with pytest.raises(SystemExit) as ended:
            command.main(arguments)
        assert ended.value.code == 0
        assert "report FOLDER" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("grp", "near: grpo"),
        ("quux", "the commands are sft, reward-model, ppo, grpo, dpo, trpo, memory, report"),
    ],
)
def test_an_unknown_command_is_named(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main([word])
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", f"there is no command {word!r}; {hint}\n")


def test_help_says_that_there_need_be_no_preset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["grpo", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "settings to begin with: tiny, recommended (default: none) --config" in words


def test_a_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    few = ["--run.steps", "2", "--warm_start.steps", "2", "--rollout.samples", "4"]
    few += ["--problems.held_out", "4", "--problems.train", "64"]
    command.main(["grpo", "--preset", "tiny", "--out", str(out), *few])
    shown = capsys.readouterr()
    assert shown.out.strip() == str(out / "report.md")
    alarm = "Alarm: rollout.samples is 4, below a group of 32 (spec/training.md, clause train.settings)"
    assert alarm in shown.err
    lines = metrics.read(out / "metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2]
    told = (out / "report.md").read_text(encoding="utf-8")
    assert "below a group of 32" in told
    curves = ("reward", "kl", "clip_fraction", "entropy", "response_length", "advantage_spread")
    for name in (*curves, "held_out_success"):
        assert f"](plots/{name}.svg)" in told
        assert (out / "plots" / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert list((out / "tensorboard").iterdir())
    assert (out / "model" / "model.safetensors").is_file()
    before = {path.name: path.read_bytes() for path in (out / "plots").iterdir()}
    command.main(["report", str(out)])
    assert {path.name: path.read_bytes() for path in (out / "plots").iterdir()} == before


@pytest.mark.filterwarnings("ignore::torch_impl.train.metrics.Alarm")
@pytest.mark.parametrize("algorithm", [p.stem.split("-")[0] for p in PRESETS if "recommended" in p.stem])
def test_recommended_presets_train(algorithm: str, tmp_path: Path) -> None:
    """A model of a folder, with autocast, checkpointing and micro-batches as they say, a small step."""
    folder, out = tmp_path / "model", tmp_path / "run"
    models.save(models.load_policy(models.ModelSettings(layers=1, context=512), tokens.make("bytes")), folder)
    few: dict[str, float] = {
        "rollout.prompts": 8,
        "rollout.together": 4,
        "rollout.max_new_tokens": 4,
        "run.steps": 2,
    }
    few |= {"problems.train": 64, "problems.held_out": 4}
    few |= {f"{algorithm}.minibatches": 2, f"{algorithm}.entropy_coef": 0.01}  # rewards may all be 0
    few |= {"ppo.critic_steps": 1} if algorithm == "ppo" else {}
    given = [word for name, x in few.items() for word in (f"--{name}", str(x))]
    given += ["--model.path", str(folder), "--out", str(out), "--run.device", "cpu"]
    command.main([algorithm, "--preset", "recommended", *given])
    assert [line["step"] for line in metrics.read(out / "metrics.jsonl")] == [0, 1, 2]
    kept = load_file(folder / "model.safetensors"), load_file(out / "model" / "model.safetensors")
    assert {x.dtype for x in kept[1].values()} == {torch.float32}
    assert any(not torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_memory_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["memory", "--model.layers", "1", "--measure", "false"])
    assert "GRPO" in capsys.readouterr().out


def test_a_report_wants_a_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be the folder of a run, with metrics\.jsonl, got none"):
        report.write(tmp_path)


def test_half_a_line_of_metrics_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    assert metrics.read(tmp_path / "metrics.jsonl") == [{"step": 1}]


def test_alarms(tmp_path: Path) -> None:
    ppo = small_runs.settings("ppo", tmp_path, clip_low=0.5, kl_coef=0.3)
    ppo.optimizer.learning_rate = 2e-4
    told = list(metrics.alarms(ppo, 10**9))
    assert [message.split(" is ")[0].split(" are ")[0] for message in told] == [
        "model.path and warm_start.steps",
        "ppo.clip_low",
        "ppo.kl_coef",
        "optimizer.learning_rate",
        "rollout.prompts · rollout.samples",
    ]
    assert len(list(metrics.alarms(ppo, 10**8))) == 4
    assert list(metrics.alarms(small_runs.settings("dpo", tmp_path, beta=0.3), 1)) == [
        "dpo.beta is 0.3, at or above 0.3"
    ]
    assert metrics.alarm_of({"approx_kl": 0.02}) is None
    assert metrics.alarm_of({"approx_kl": 0.021}) == "approx_kl is 0.0210, above 0.02"


def test_alarms_are_those_of_the_reference() -> None:
    most, least = {"approx_kl": metrics.LARGEST_KL, "clip_range": metrics.LARGEST_CLIP}, reference.LEAST
    assert most == reference.MOST
    assert least == {"batch_size": metrics.SMALLEST_BATCH, "group_size": metrics.SMALLEST_GROUP}
    assert {"beta": metrics.LARGEST_BETA} == reference.BELOW
    assert (metrics.RATES, metrics.FAR_ABOVE) == (reference.LEARNING_RATES, reference.FAR)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"rollout.samples must be an integer of at least 1, got int 0"):
        Rollout(samples=0)
    assert Rollout(engine="vllm").cap == 2.0
    assert Rollout().cap is None
    assert json.dumps(flat(settings.GRPOSettings()))
