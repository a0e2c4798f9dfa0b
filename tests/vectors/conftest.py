"""Vectors of every operation in every dtype, written once."""

from pathlib import Path

import pytest

from conformance.commands import main
from reference.numbers.formats import FORMATS


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One input from each region, for each test of the suite."""
    folder = tmp_path_factory.mktemp("vectors")
    dtypes = [word for dtype in FORMATS for word in ("--dtype", dtype)]
    assert main(["vectors", str(folder), "--cases", "1", *dtypes]) == 0
    return folder
