"""The report of a run: what was asked for, what came out, and the curves, as Markdown with SVG plots."""

import json
import platform
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from torch_impl.train import metrics

ABOUT = "run.json"
CURVES = {
    "held_out_success": "solved problems, held out",
    "held_out_accuracy": "pairs the right way round, held out",
    "held_out_logprob": "log-probability of a right response, held out (nats)",
    "reward": "reward (reward units)",
    "loss": "loss (nats)",
    "kl": "KL from the reference (nats a token)",
    "approx_kl": "KL from the policy that sampled, before an update (nats a token)",
    "step_kl": "KL of a step (nats a token)",
    "clip_fraction": "share of tokens that are clipped",
    "entropy": "entropy (nats a token)",
    "response_length": "length of responses (tokens)",
    "advantage_spread": "standard deviation of advantages",
    "value_loss": "critic's loss (reward units squared)",
    "gradient_norm": "norm of the gradient",
}
"""What is plotted, if a run has it, and how it is called."""
LIMITS = dict.fromkeys(("approx_kl", "step_kl"), metrics.LARGEST_KL)
"""Where an alarm begins."""


def write(out: Path) -> Path:
    """Write `report.md` and `plots/` beside the metrics of a run, and return the report's place."""
    lines = metrics.read(out / "metrics.jsonl")
    if not lines:
        raise ValueError(f"{out} must be the folder of a run, with metrics.jsonl, got none")
    held = json.loads((out / ABOUT).read_text(encoding="utf-8"))
    (out / "plots").mkdir(exist_ok=True)
    shown = [name for name in CURVES if any(name in line for line in lines)]
    for name in shown:
        _plot(out / "plots" / f"{name}.svg", name, lines, held["settings"])
    text = "\n\n".join(
        [
            f"# A run of {held['algorithm']}",
            _outcome(lines),
            _alarms(held.get("alarms", []), lines),
            *(f"![{CURVES[name]}](plots/{name}.svg)" for name in shown),
            "## Settings",
            _settings(held),
        ]
    )
    path = out / "report.md"
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _outcome(lines: Sequence[dict[str, float]]) -> str:
    rows = ["| | before | after |", "|---|---|---|"]
    for name in CURVES:
        found = [line[name] for line in lines if name in line]
        if found:
            rows.append(f"| {CURVES[name]} | {found[0]:.4g} | {found[-1]:.4g} |")
    steps, seconds = int(lines[-1]["step"]), sum(line.get("seconds", 0.0) for line in lines)
    where = f"Python {platform.python_version()}, PyTorch {torch.__version__}"
    return "\n".join(rows) + f"\n\n{steps} steps in {seconds:.0f} s, without measurements; {where}."


def _alarms(before: Sequence[str], lines: Sequence[dict[str, float]]) -> str:
    rang = [line for line in lines if metrics.alarm_of(line)]
    told = [f"- {message}" for message in before]
    if rang:
        often, highest = f"{len(rang)} of {len(lines)} steps", max(line["approx_kl"] for line in rang)
        told.append(f"- approx_kl above {metrics.LARGEST_KL} in {often}, at most {highest:.3f}")
    return f"Alarms ({metrics.CLAUSE}):\n\n" + ("\n".join(told) if told else "none.")


def _settings(held: dict[str, Any]) -> str:
    rows = [f"| `{name}` | `{x}` |" for name, x in held["settings"].items()]
    return "\n".join(["| setting | value |", "|---|---|", *rows])


def _plot(path: Path, name: str, lines: Sequence[dict[str, float]], settings: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import matplotlib as mpl
        from matplotlib.figure import Figure
    mpl.rcParams["svg.hashsalt"] = "rlspec"  # the same report from the same run
    figure = Figure(figsize=(5.0, 2.6), layout="constrained")
    axes = figure.subplots()
    points = [(line["step"], line[name]) for line in lines if name in line]
    axes.plot(*zip(*points, strict=True), marker="o" if name.startswith("held_out") else "", linewidth=1.2)
    limits = LIMITS | {"step_kl": settings.get("trpo.max_kl")}
    if (limit := limits.get(name)) is not None:
        axes.axhline(limit, color="tab:red", linewidth=0.8, linestyle="--")
    axes.set_xlabel("step")
    axes.set_title(CURVES[name], fontsize=9)
    axes.grid(alpha=0.3)
    figure.savefig(path, format="svg", metadata={"Date": None})
