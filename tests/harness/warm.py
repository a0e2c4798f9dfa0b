"""Imports what every run of the suite needs: for a process that forks for each of them."""

import gc
from importlib import import_module
from pathlib import Path

import conformance

for library in ("flint", "hypothesis", "pandas", "pytest", "torch"):
    import_module(library)
for path in sorted(Path(conformance.__path__[0]).glob("*.py")):
    import_module(f"conformance.{path.stem}")

# A collection in a fork would touch, and so copy, all of it.
gc.freeze()
