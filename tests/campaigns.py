"""What the long runs share: a page of results that says when, where and with what it was made."""

import datetime
import os
import platform
from importlib.metadata import version

import pandas as pd

PACKAGES = ("hypothesis", "jax", "numpy", "pytest", "python-flint", "torch")


def page(title: str, how: str, *parts: "str | pd.DataFrame") -> str:
    """A Markdown page: a title, how it was made, headings and tables."""
    texts = [
        f"## {part}" if isinstance(part, str) else part.reset_index().to_markdown(index=False)
        for part in parts
    ]
    return "\n\n".join([f"# {title}", f"{made()}, by `{how}`.", *texts]) + "\n"


def made() -> str:
    """The date, the machine and the versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}"
    python = f"Python {platform.python_version()}"
    return f"Made on {datetime.date.today().isoformat()} ({machine}; {python}, {packages})"
