"""What a peer's requirements and our constraints both pin is one version: both go into one environment."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = [
    *ROOT.glob("conformance/adapters/*-requirements.txt"),
    *ROOT.glob("tests/*/*-requirements.txt"),
]


def pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_shared_pins_agree(path: Path) -> None:
    ours, theirs = pins(ROOT / "constraints.txt"), pins(path)
    shared = ours.keys() & theirs.keys()
    assert shared
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}
