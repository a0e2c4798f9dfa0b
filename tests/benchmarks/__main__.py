"""Time our implementation beside installed libraries: `python3 dev.py bench --help`.

Each row of the tables is ours, each peer and the floor (as many bytes copied, or the products that no way
around is known of) in one run, at the median. Ratios carry over to other machines, times do not.
"""

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tests.benchmarks import peers
from tests.benchmarks.works import WORKS, Aim, Work
from tests.campaigns import ROOT, made

PEERS = ("verl", "trl", "torchrl", "scipy")
PAGE = "speed"
MET, MISSED = "yes", "no"
AIMS = (
    "What is wanted of `torch_impl`; no test depends on it. Where one is not met, the next table says "
    "where the time goes."
)
PASSES = (
    "Where an aim is missed. A copy goes through its arrays once, and so does each of PyTorch's operators, "
    "most of them into memory that is new: ours is above the floor by as many as it takes. For few numbers "
    "it is calls that take the time."
)

Entries = list[dict[str, Any]]
"""One for each call of each size of each work: what it is, its median in seconds, its peak in bytes."""


def measured(device: str, only: str) -> tuple[Entries, str]:
    """Run the benchmarks in a process of their own; what was found, and the processor."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        words = [
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "ignore",
            "--device",
            device,
            "--benchmark-json",
            str(file),
        ]
        words += ["--benchmark-disable-gc", "--benchmark-quiet", *(["-k", only] if only else [])]
        command = [sys.executable, "-m", "pytest", "tests/benchmarks/bench_speed.py", *words]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "TORCHDYNAMO_DISABLE": "1"}, check=False)
        if done.returncode != 0:
            sys.exit(f"the benchmarks ended with status {done.returncode}")
        found = json.loads(file.read_text(encoding="utf-8"))
    entries = [{**one["extra_info"], "seconds": one["stats"]["median"]} for one in found["benchmarks"]]
    return entries, processor(device, found["machine_info"]["cpu"])


def processor(device: str, cpu: dict[str, Any]) -> str:
    """What the numbers hold for."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    return str(cpu.get("brand_raw", "an unknown processor"))


def table(work: Work, entries: Entries) -> pd.DataFrame:
    """Sizes down, callers across: milliseconds, how many times ours that is, and megabytes at the peak."""
    lines = []
    for size in work.sizes:
        found = {e["name"]: e for e in entries if (e["work"], tuple(e["size"])) == (work.name, size)}
        if "ours" not in found:
            continue
        ours, floor = found["ours"]["seconds"], found["floor"]["seconds"]
        line = {work.letters: ", ".join(map(str, size)), f"floor ({work.floor}), ms": f"{floor * 1e3:.3g}"}
        for name, entry in found.items():
            if name != "floor":
                times = (
                    f"× {entry['seconds'] / floor:.3g}"
                    if name == "ours"
                    else f"{entry['seconds'] / ours:.3g} ours"
                )
                memory = "" if entry["peak"] is None else f", {entry['peak'] / 1e6:.3g} MB"
                rate = f", {work.tokens(size) / entry['seconds']:,.0f} tokens/s" if work.tokens else ""
                line[name] = f"{entry['seconds'] * 1e3:.3g} ms, {times}{memory}{rate}"
        lines.append(line)
    return pd.DataFrame(lines).set_index(work.letters) if lines else pd.DataFrame()


def against_aims(entries: Entries) -> pd.DataFrame:
    """What was aimed at, and what was reached: at a size, or the range over all."""
    lines = []
    for work in WORKS:
        for aim in work.aims:
            ratios = _ratios(work, aim, entries)
            if not ratios:
                continue
            is_floor = aim.against == "floor"
            met = max(ratios) <= aim.ratio if is_floor else min(ratios) >= aim.ratio
            reached = sorted({f"{ratio:.3g}" for ratio in (min(ratios), max(ratios))}, key=float)
            lines.append(
                {
                    "work": work.name,
                    "aim": aim.words,
                    "at": ", ".join(map(str, aim.size)) if aim.size else "every size",
                    "reached": " to ".join(reached),
                    "met": MET if met else MISSED,
                }
            )
    return pd.DataFrame(lines).set_index("work") if lines else pd.DataFrame()


def profiles(entries: Entries) -> pd.DataFrame:
    """What ours spends its time in where an aim is not met, at the sizes of aims and the largest."""
    aims = against_aims(entries)
    missed = set(aims.index[aims.met == MISSED]) if len(aims) else set()
    lines = [
        {
            "work": e["work"],
            "at": ", ".join(map(str, e["size"])),
            "operators (share of the time, calls)": ", ".join(
                f"`{name}` {share:.0%} ({calls:g})" for name, share, calls in e["operators"]
            ),
        }
        for e in entries
        if e["work"] in missed and "operators" in e
    ]
    return pd.DataFrame(lines).set_index("work") if lines else pd.DataFrame()


def _ratios(work: Work, aim: Aim, entries: Entries) -> list[float]:
    times = {(tuple(e["size"]), e["name"]): e["seconds"] for e in entries if e["work"] == work.name}
    sizes = work.sizes if aim.size is None else (aim.size,)
    both = [size for size in sizes if (size, "ours") in times and (size, aim.against) in times]
    ratios = [times[size, aim.against] / times[size, "ours"] for size in both]
    return [1 / ratio for ratio in ratios] if aim.against == "floor" else ratios


def page(entries: Entries, how: str, device: str, hardware: str) -> str:
    """The Markdown page."""
    parts = [
        f"# Speed and memory on {device}",
        f"{made(('numpy', 'torch', *peers.installed(*PEERS)))}, on {hardware}, by `{how}`.",
        "Medians. Ours: how many times the floor it takes; a peer: how many times ours. Memory is the peak "
        "beyond what goes in. On the CPU everything runs on one processor.",
    ]
    if len(aims := against_aims(entries)):
        parts += ["## Aims", AIMS, aims.reset_index().to_markdown(index=False)]
    if len(found := profiles(entries)):
        parts += ["## Where the time goes", PASSES, found.reset_index().to_markdown(index=False)]
    for work in WORKS:
        if len(found := table(work, entries)):
            parts += [f"## {work.name}", found.reset_index().to_markdown(index=False)]
    parts.append(f"![How times grow with sizes]({PAGE}-{device}.svg)")
    return "\n\n".join(parts) + "\n"


def plot(entries: Entries, file: Path) -> None:
    """Times at each size, in the order in which sizes grow, a panel for each work."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    works = [work for work in WORKS if any(e["work"] == work.name for e in entries)]
    figure, axes = plt.subplots(
        -(-len(works) // 2), 2, figsize=(11, 3.2 * -(-len(works) // 2)), squeeze=False
    )
    for work, panel in zip(works, axes.flat, strict=False):
        mine = [e for e in entries if e["work"] == work.name]
        sizes = sorted({tuple(e["size"]) for e in mine}, key=lambda size: (math.prod(size), max(size)))
        for name in dict.fromkeys(e["name"] for e in mine):
            points = sorted(
                (sizes.index(tuple(e["size"])), e["seconds"] * 1e3) for e in mine if e["name"] == name
            )
            style = (
                {"color": "0.6", "linestyle": "--"} if name == "floor" else {"marker": "o", "markersize": 3}
            )
            panel.semilogy(*zip(*points, strict=True), label=name, **style)
        panel.set_title(work.name, fontsize=10)
        panel.set_xticks(range(len(sizes)), [" × ".join(map(str, size)) for size in sizes])
        panel.set_xlabel(work.letters, fontsize=8)
        panel.set_ylabel("ms", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.legend(fontsize=7)
        panel.grid(alpha=0.3)
    for panel in list(axes.flat)[len(works) :]:
        panel.axis("off")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables and write them."""
    words = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="dev.py bench", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--peers", action="store_true", help="beside other libraries, installed for this")
    parser.add_argument("-k", dest="only", default="", help="only works whose names match, as pytest's -k")
    parser.add_argument("--write", metavar="DIR", help="write a page, its numbers as JSON and a plot here")
    arguments = parser.parse_args(words)
    entries, hardware = measured(arguments.device, arguments.only)
    how = shlex.join(["python3", "dev.py", "bench", *words])
    text = page(entries, how, arguments.device, hardware)
    print(text)
    if arguments.write:
        stem = Path(arguments.write) / f"{PAGE}-{arguments.device}"
        stem.with_suffix(".md").write_text(text, encoding="utf-8")
        stem.with_suffix(".json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        plot(entries, stem.with_suffix(".svg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
