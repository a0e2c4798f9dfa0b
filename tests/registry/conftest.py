"""A copy of the project to break."""

import shutil
from pathlib import Path

import pytest

from spec.clauses import Clause
from spec.registry import ROOT, Registry

NEW_CLAUSE = """
## gae.new

**New.** {kind}, version 1.0

> {sentence}

{fields}- Versions: 1.0 (2026-11-22, `{hash}`) first text
"""


class Copy:
    """A copy of all that the registry reads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("spec", "reference", "conformance", "torch_impl"):
            if (ROOT / folder).is_dir():
                shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))

    def problems(self) -> list[str]:
        return Registry.load(self.root).problems()

    def clause(self, slug: str) -> Clause:
        return Registry.load(self.root).clauses[slug]

    def read(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def write(self, path: str, text: str) -> None:
        (self.root / path).write_text(text, encoding="utf-8")

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a piece of text, which has to be there."""
        text = self.read(path)
        assert old in text
        self.write(path, text.replace(old, new, 1))

    def line_of(self, path: str, text: str) -> str:
        """The place of the first line that begins with a text."""
        lines = self.read(path).splitlines()
        return f"{path}:{1 + next(k for k, line in enumerate(lines) if line.startswith(text))}"

    def add_clause(
        self, sentence: str, kind: str = "definition", fields: str = "", page: str = "spec/gae.md"
    ) -> str:
        """Append a clause with the right hash and return its place."""
        before = self.read(page)
        block = NEW_CLAUSE.format(kind=kind, sentence=sentence, fields=fields, hash="{hash}")
        self.write(page, before + block.replace("{hash}", "00000000"))
        self.write(page, before + block.replace("{hash}", self.clause("gae.new").hash))
        return self.line_of(page, "## gae.new")

    def add_test(self, source: str) -> None:
        self.write("conformance/test_extra.py", source)

    def retire(self, slug: str) -> str:
        """Append an entry to the retired slugs and return its place."""
        entry = f"\n- `{slug}` (2026-11-22, last version 1.0): see `gae.td-error`\n"
        self.write("spec/retired.md", self.read("spec/retired.md") + entry)
        return self.line_of("spec/retired.md", f"- `{slug}`")


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """A copy of the project, as good as the original."""
    return Copy(tmp_path)
