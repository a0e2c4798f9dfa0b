"""What the long runs share: results that outlast an interruption, and a page that says how they were made."""

import ast
import datetime
import hashlib
import json
import os
import platform
import threading
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).parents[1]
PACKAGES = ("hypothesis", "jax", "numpy", "pytest", "python-flint", "torch")


def page(title: str, how: str, *parts: "str | pd.DataFrame", packages: Iterable[str] = PACKAGES) -> str:
    """A Markdown page: a title, how it was made, with which packages, headings and tables."""
    texts = [
        f"## {part}" if isinstance(part, str) else part.reset_index().to_markdown(index=False)
        for part in parts
    ]
    return "\n\n".join([f"# {title}", f"{made(packages)}, by `{how}`.", *texts]) + "\n"


def made(names: Iterable[str] = PACKAGES) -> str:
    """The date, the machine and the versions of packages."""
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    machine = f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}"
    python = f"Python {platform.python_version()}"
    return f"Made on {datetime.date.today().isoformat()} ({machine}; {python}, {packages})"


def digest(*parts: str | Path) -> str:
    """A hash of texts, of files, and of the Python files and Markdown pages in folders."""
    found = hashlib.sha256()
    for part in parts:
        for text in [part.encode()] if isinstance(part, str) else _sources(part):
            found.update(hashlib.sha256(text).digest())
    return found.hexdigest()


def _sources(folder: Path) -> list[bytes]:
    if folder.is_file():
        return [folder.read_bytes()]
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix in (".py", ".md")]


def behaviour(*paths: Path) -> str:
    """A hash of what Python files, or those in folders, do: comments, docstrings and layout do not count."""
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    return digest(*(part for file in files for part in (file.name, _code(file.read_text(encoding="utf-8")))))


def _code(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [one for one in node.body if not _is_said(one)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_said(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


class Record:
    """What a long run has found, a line of JSON each in a file: interrupted, it goes on where it stopped.

    Keys are digests of all that a result depends on, so that what has changed since is found anew.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.found: dict[str, Any] = {}
        if path is not None and path.exists():
            whole, end, _ = path.read_text(encoding="utf-8").rpartition("\n")  # a line that was cut off goes
            path.write_text(whole + end, encoding="utf-8")
            self.found = dict(json.loads(line) for line in whole.splitlines())

    def get(self, key: str) -> Any:
        """What was found under this key, None if nothing was."""
        return self.found.get(key)

    def put(self, key: str, found: Any) -> None:
        """Keep what can be written as JSON."""
        with self.lock:
            self.found[key] = found
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, found]) + "\n")
