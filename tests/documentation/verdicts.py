"""The verdicts that README.md shows: `python -m tests.documentation.verdicts` writes them anew."""

import re
import subprocess
import sys
from pathlib import Path

import dev

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"<!-- verdict: (?P<backend>\S+) -->\n```text\n(?P<text>.*?)```\n", re.DOTALL)


def shown(readme: str) -> dict[str, str]:
    """The verdict blocks of the README, by backend."""
    return {match["backend"]: match["text"] for match in BLOCK.finditer(readme)}


def verdict(backend: str) -> str:
    """Run the suite as dev.py does; return what it prints, less the figures that differ between machines."""
    chosen = [] if backend == "torch_impl" else [f"--backend={backend}"]
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "conformance/", "--replay=off"]
    command += dev.suite_options(chosen)
    return stable_part(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout)


def stable_part(output: str) -> str:
    """The clause tables, the limitations and the sentence; not the distances and grades.

    Of many tables, the first stands for all.
    """
    _, _, section = output.partition(" verdict on ")
    section = re.split(r"^=+ ", section.split("\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    blocks = section.rstrip().split("\n\n")
    tables = [b for b in blocks if any(line.startswith("clause") for line in b.splitlines()[:2])]
    rest = [
        b for b in blocks if b not in tables and "executed/expected" not in b and "worst distance" not in b
    ]
    *notes, last = rest
    if len(tables) > 2:
        tables = [tables[0], f"... and {len(tables) - 1} tables more"]
    kept = [*tables, *notes, last.splitlines()[0]]
    return "\n\n".join("\n".join(line.rstrip() for line in block.splitlines()) for block in kept) + "\n"


def main() -> None:
    """Write every verdict of the README anew."""
    readme = README.read_text(encoding="utf-8")
    readme = BLOCK.sub(
        lambda match: f"<!-- verdict: {match['backend']} -->\n```text\n{verdict(match['backend'])}```\n",
        readme,
    )
    README.write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
