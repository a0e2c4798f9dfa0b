"""What tests of training ask for by name."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch


@pytest.fixture
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants to connect anywhere fails."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a test wanted to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small products are not worth several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
