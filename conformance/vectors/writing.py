"""A folder of conformance cases: a file for each operation and dtype, and the manifest that lists them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conformance.marks import shown
from conformance.oracle import ELEMENTARY_FACTOR, FACTOR, SPARE_BITS
from conformance.vectors.encoding import described, encoded
from conformance.vectors.recorder import demands, named_operations, suite
from spec.registry import current

SCHEMA = 1
"""Version of the format; a reader refuses another one."""

MANIFEST = "manifest.json"


def write(folder: Path, operations: Iterable[str], dtypes: Iterable[str], inputs: int, seed: int) -> None:
    """Write the cases and the manifest into a folder, which is made, or is empty."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: name a new folder, nothing here is overwritten")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: name a new folder, nothing here is overwritten")
    files: dict[str, dict[str, Any]] = {}
    cited: Counter[str] = Counter()
    named: set[str] = set()
    for operation in operations:
        named |= _named(operation)
        for dtype in dtypes:
            cases = [encoded(demand) for demand in demands(operation, dtype, inputs, seed)]
            name = f"{operation}-{dtype}.json"
            text = _file(operation, dtype, cases)
            (folder / name).write_bytes(text)
            files[name] = _entry(operation, dtype, cases, text)
            cited.update(citation for case in cases for citation in case["clauses"])
    manifest = {
        "schema": SCHEMA,
        "seed": seed,
        "inputs": inputs,
        "factor": FACTOR,
        "elementary_factor": ELEMENTARY_FACTOR,
        "spare_bits": SPARE_BITS,
        "versions": {name: version(name) for name in ("numpy", "python-flint")},
        "files": files,
        "clauses": dict(sorted(cited.items())),
        "relations": sorted(named - set(cited)),
    }
    (folder / MANIFEST).write_bytes((json.dumps(manifest, indent=1) + "\n").encode())


def _file(operation: str, dtype: str, cases: list[dict[str, Any]]) -> bytes:
    """The text of a file: a case a line."""
    head = json.dumps({"schema": SCHEMA, **described(operation), "dtype": dtype})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    return f'{head[:-1]}, "cases": [\n{lines}\n]}}\n'.encode()


def _entry(operation: str, dtype: str, cases: list[dict[str, Any]], text: bytes) -> dict[str, Any]:
    """What the manifest says of a file."""
    sets = [p for case in cases for p in (case.get("result"), *case.get("gradients", {}).values()) if p]
    ends = [end for permitted in sets for end in permitted["low"]]
    return {
        "operation": operation,
        "dtype": dtype,
        "cases": len(cases),
        "regions": dict(sorted(Counter(case["region"] for case in cases).items())),
        "decided": sum(end is not None for end in ends),
        "undecided": sum(end is None for end in ends),
        "sha256": hashlib.sha256(text).hexdigest(),
    }


def _named(operation: str) -> set[str]:
    """Citations of the clauses that the suite's tests of an operation name."""
    slugs = {
        s
        for test in suite().values()
        if operation in named_operations(test)
        for s in shown(test.pytestmark, operation)
    }
    return {current().clauses[slug].citation.removeprefix("spec: ") for slug in slugs}
