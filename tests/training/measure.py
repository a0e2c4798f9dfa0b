"""Run the tiny presets with some seeds, and write what became of them: `python -m tests.training.measure`."""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from tests.campaigns import page
from torch_impl.train import tokens
from torch_impl.train.memory import Batch, table
from torch_impl.train.models import ModelSettings

SEEDS = {"grpo": 3, "ppo": 3, "dpo": 3, "reward-model": 3, "trpo": 3, "sft": 1}
SHOWN = ("grpo", "ppo")
"""Algorithms whose first report is kept, with its plots."""
PACKAGES = ("numpy", "reasoning-gym", "torch", "transformers")
TIES = (
    "A reward model starts with a head of zeros, and scores every response alike: a tie is not the right way "
    "round, so that its accuracy begins at 0."
)
PAGE = "training.md"
MEMORY_PAGE = "training-memory.md"
SMALL = ModelSettings(layers=8, heads=8, width=256)
LARGE = ModelSettings(layers=16, heads=32, width=2048, intermediate=8192, context=2048)
MEMORY = (
    ("Measured", SMALL, Batch(8, 64, 64), True),
    (
        "With activation checkpointing, measured",
        replace(SMALL, activation_checkpointing=True),
        Batch(8, 64, 64),
        True,
    ),
    ("A larger model, predicted", LARGE, Batch(8, 512, 512), False),
    (
        "A larger model with activation checkpointing, predicted",
        replace(LARGE, activation_checkpointing=True),
        Batch(8, 512, 512),
        False,
    ),
)
"""Models and batches whose memory is told, and whether it is measured or predicted alone."""


@dataclass(frozen=True)
class Trial:
    """One run of a preset from the command line."""

    algorithm: str
    seed: int
    seconds: float
    """From the start of the process to its end, warm start and measurements among them."""
    steps: list[dict[str, Any]]
    """What `metrics.jsonl` has."""

    @property
    def line(self) -> dict[str, object]:
        """Its line of the table."""
        measured = [step for step in self.steps if any(name.startswith("held_out") for name in step)]
        name = next(name for name in ("held_out_success", "held_out_accuracy") if name in measured[0])
        kl = [step["step_kl"] for step in self.steps if "step_kl" in step]
        gains = [step["improvement"] for step in self.steps if "improvement" in step]
        return {
            "algorithm": self.algorithm,
            "seed": self.seed,
            "measured": name.replace("_", " "),
            "before": f"{measured[0][name]:.3f}",
            "after": f"{measured[-1][name]:.3f}",
            "steps": self.steps[-1]["step"],
            "largest KL of a step": f"{max(kl):.4f}" if kl else "",
            "smallest improvement of a step": f"{min(gains):.4f}" if gains else "",
            "minutes": f"{self.seconds / 60:.1f}",
        }


def trial(folder: Path, run: tuple[str, int]) -> Trial:
    """Run a preset in a folder, as a person would."""
    algorithm, seed = run
    out = folder / "runs" / f"{algorithm}-{seed}"
    command = [sys.executable, "-m", "torch_impl.train", algorithm, "--preset", "tiny", "--seed", str(seed)]
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return Trial(algorithm, seed, seconds, [json.loads(line) for line in lines])


def write(folder: Path, done: Iterable[Trial], into: Path, how: str) -> None:
    """The page, and the reports that are shown."""
    table = pd.DataFrame([one.line for one in done]).set_index("algorithm")
    title = "Training by the tiny presets, from nothing"
    shown = [name for name in SHOWN if (folder / "runs" / f"{name}-0").is_dir()]
    links = [f"[The report of {name}, seed 0](training-{name}/report.md)" for name in shown]
    text = page(title, how, table, packages=PACKAGES).rstrip()
    (into / PAGE).write_text("\n\n".join([text, TIES, *links]) + "\n", encoding="utf-8")
    for name in shown:
        run, kept = folder / "runs" / f"{name}-0", into / f"training-{name}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(run / "plots", kept / "plots")
        shutil.copy2(run / "report.md", kept)


def write_memory(into: Path, how: str) -> None:
    """The page of what PPO and GRPO take."""
    tokenizer, parts = tokens.make("bytes"), []
    for title, settings, batch, measure in MEMORY:
        size = f"{settings.layers} blocks of width {settings.width}, {settings.heads} heads"
        told = table(settings, tokenizer, batch, measure=measure)
        parts.append(f"## {title}\n\nA Llama of {size}, bytes as tokens. {told}")
    text = page("Memory of PPO and of GRPO", how, packages=PACKAGES)
    (into / MEMORY_PAGE).write_text("\n\n".join([text.rstrip(), *parts]) + "\n", encoding="utf-8")


def main() -> None:
    """Run them and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.training.measure", description=__doc__)
    parser.add_argument("--algorithm", action="append", choices=list(SEEDS), help="only this one")
    parser.add_argument("-j", dest="processes", type=int, default=1, help="so many runs at a time")
    parser.add_argument("--write", metavar="DIR", type=Path, help="write the pages and two reports here")
    arguments = parser.parse_args()
    runs = [(name, k) for name in arguments.algorithm or SEEDS for k in range(SEEDS[name])]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(arguments.processes) as pool:
        folder = Path(name)
        done = list(pool.map(partial(trial, folder), runs))
        print(pd.DataFrame([one.line for one in done]).to_string(index=False))
        if arguments.write:
            how = shlex.join(["python", "-m", "tests.training.measure", *sys.argv[1:]])
            write(folder, done, arguments.write, how)
            write_memory(arguments.write, how)


if __name__ == "__main__":
    main()
