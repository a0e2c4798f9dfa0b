"""Tests in several processes, with pytest-xdist (`-n`): who is who, and which tests stay together."""

from typing import Any

import pytest


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs a part of the tests for another."""
    return hasattr(config, "workerinput")


def tell_controller(config: pytest.Config, **what: str | bytes) -> None:
    """Leave something for the process that waits for this one."""
    config.workeroutput.update(what)  # type: ignore[attr-defined]


def by_operation(config: pytest.Config, log: Any) -> Any:
    """Make the scheduler that keeps the tests of one operation in one dtype together, and in order.

    What the first of them finds out spares the others.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByOperation(LoadScopeScheduling):  # type: ignore[misc]
        """Scopes are the parameters of the tests, `operation-dtype`."""

        def _split_scope(self, nodeid: str) -> str:
            return nodeid.rpartition("[")[2] if "[" in nodeid else nodeid

    return ByOperation(config, log)
