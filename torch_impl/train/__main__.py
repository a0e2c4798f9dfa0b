"""The command line: `python -m torch_impl.train ALGORITHM --preset tiny`."""

import difflib
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from tqdm import tqdm

from torch_impl.train import distributed, memory, metrics, report, starting, tokens
from torch_impl.train.checkpoints import CheckpointError
from torch_impl.train.loop import run
from torch_impl.train.models import ModelSettings
from torch_impl.train.settings import (
    DPOSettings,
    GRPOSettings,
    PPOSettings,
    RewardModelSettings,
    Settings,
    SFTSettings,
    TRPOSettings,
    flat,
    preset,
)
from torch_impl.train.step import NotFinite
from torch_impl.train.trainer import parameter_count

SETTINGS: dict[str, type[Settings]] = {
    "sft": SFTSettings,
    "reward-model": RewardModelSettings,
    "ppo": PPOSettings,
    "grpo": GRPOSettings,
    "dpo": DPOSettings,
    "trpo": TRPOSettings,
}
USAGE = f"""usage: python -m torch_impl.train COMMAND [options]

  {", ".join(SETTINGS)}
      train; COMMAND --help lists the settings, COMMAND --preset tiny runs in minutes on a CPU
  memory
      the memory that PPO and GRPO take for a model, predicted and measured
  report FOLDER
      write the report of a run again
"""
CLAUSES = "A clause CHAPTER.NAME is a section of a page in spec/. Every setting may stand in a TOML file too."
REFUSALS = ValueError, OSError, CheckpointError, NotFinite, ImportError


def main(arguments: list[str] | None = None) -> None:
    """Run a command; what is refused ends with a message and status 1."""
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    commands: dict[str, Callable[[list[str]], None]] = {"memory": _memory, "report": _report}
    rest = rest[:-1]
    if command in SETTINGS:
        commands[command] = lambda rest: _train(command, rest)
    if command in ("", "-h", "--help"):
        print(USAGE)
        sys.exit(0)
    if command not in commands:
        print(_unknown(command, [*SETTINGS, "memory", "report"]), file=sys.stderr)
        sys.exit(2)
    try:
        commands[command](rest)
    except REFUSALS as error:
        sys.exit(f"{type(error).__name__}: {error}")
    finally:
        distributed.stop()


def settings_of(algorithm: str, arguments: list[str]) -> Any:
    """Settings from a preset, TOML files and options, of which the later ones count."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    given = _expanded(arguments)
    parser = jsonargparse.ArgumentParser(
        prog=f"python -m torch_impl.train {algorithm}",
        usage="%(prog)s [--preset NAME] [--config FILE] [--task NAME] [--resume] [--SETTING VALUE ...]",
        description=f"Train by {algorithm}.",
        epilog=CLAUSES,
        parser_mode="toml",
        default_config_files=_preset_files(algorithm, given),
    )
    parser.add_argument(
        "--preset",
        default=jsonargparse.SUPPRESS,
        help="settings to begin with: tiny, recommended (default: none)",
    )
    parser.add_argument("--config", action="config", help="a TOML file of settings")
    parser.add_class_arguments(SETTINGS[algorithm])
    parsed = parser.instantiate(parser.parse_args(given))
    kind = SETTINGS[algorithm]
    return kind(**{item.name: parsed[item.name] for item in fields(kind)})


def _train(algorithm: str, arguments: list[str]) -> None:
    settings = settings_of(algorithm, arguments)
    settings.out = settings.out or f"runs/{algorithm}-{settings.seed}"
    if settings.run.threads is not None:
        torch.set_num_threads(settings.run.threads)
    _quiet()
    world, out = distributed.start(settings.run.device, settings.run.shard), Path(settings.out)
    trainer = starting.make(algorithm, settings, world)
    with warnings.catch_warnings():
        warnings.simplefilter("default", metrics.Alarm)
        warnings.showwarning = _say  # type: ignore[assignment]
        run(trainer, out, resume=settings.resume)
    if world.leads:
        alarms = list(metrics.alarms(settings, parameter_count(trainer.trained)))
        held = {"algorithm": algorithm, "settings": flat(settings), "alarms": alarms}
        (out / report.ABOUT).write_text(json.dumps(held, indent=1), encoding="utf-8")
        print(report.write(out))


def _unknown(command: str, known: list[str]) -> str:
    near = difflib.get_close_matches(command, known)
    hint = f"near: {', '.join(near)}" if near else f"the commands are {', '.join(known)}"
    return f"there is no command {command!r}; {hint}"


def _memory(arguments: list[str]) -> None:
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(prog="python -m torch_impl.train memory", parser_mode="toml")
    parser.add_argument("--config", action="config", help="a TOML file of settings")
    parser.add_class_arguments(ModelSettings, "model")
    parser.add_class_arguments(memory.Batch, "batch")
    parser.add_argument("--device", default="cpu", help="where it is measured")
    parser.add_argument("--measure", type=bool, default=True, help="false: only what is predicted")
    given = parser.instantiate(parser.parse_args(arguments))
    tokenizer = tokens.make(given.model.tokenizer)
    print(memory.table(given.model, tokenizer, given.batch, device=given.device, measure=given.measure))


def _report(arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise ValueError(f"report must be given the folder of a run, got {arguments}")
    print(report.write(Path(arguments[0])))


def _expanded(arguments: list[str]) -> list[str]:
    """With short forms written out: --task A,B and --resume."""
    found: list[str] = []
    for argument in arguments:
        if found and found[-1] == "--task":
            found[-1] = f"--problems.names={json.dumps(argument.split(','))}"
        elif argument.startswith("--task="):
            found.append(f"--problems.names={json.dumps(argument.removeprefix('--task=').split(','))}")
        else:
            found.append("--resume=true" if argument == "--resume" else argument)
    return found


def _preset_files(algorithm: str, arguments: list[str]) -> list[str | PathLike[Any]]:
    for place, argument in enumerate(arguments):
        if argument == "--preset" and place + 1 < len(arguments):
            return [preset(algorithm, arguments[place + 1])]
        if argument.startswith("--preset="):
            return [preset(algorithm, argument.removeprefix("--preset="))]
    return []


def _quiet() -> None:
    """One bar is enough, that of the steps, and new heads need no warning."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _say(message: Warning | str, category: type[Warning], *_: Any) -> None:
    """A warning in one line, above the bar."""
    tqdm.write(f"{category.__name__}: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
