"""Public threads about mistakes that no wrong backend here shows, and why: `threads.toml`."""

import tomllib
from pathlib import Path

_TABLE = tomllib.loads(Path(__file__).with_name("threads.toml").read_text(encoding="utf-8"))

NOT_EXPRESSIBLE = tuple((entry["thread"], entry["wrong"], entry["why"]) for entry in _TABLE["thread"])
"""The thread, what was wrong, why no wrong backend here shows it."""
