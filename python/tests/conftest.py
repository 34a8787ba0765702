"""One server for all tests that need no settings of their own; a bank name for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import negbank
from server_process import ServerProcess


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """The shared server."""
    process = ServerProcess()
    yield process
    process.stop()


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> negbank.Client:
    """A client of the shared server."""
    return negbank.connect(server.address)


@pytest.fixture
def own_server() -> Iterator[ServerProcess]:
    """A server that a test may suspend or stop."""
    process = ServerProcess()
    yield process
    process.stop()


@pytest.fixture
def name(client: negbank.Client, request: pytest.FixtureRequest) -> Iterator[str]:
    """A bank name that is free, and is freed afterwards."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:128]
    yield name
    if name in {info.name for info in client.list_banks()}:
        client.delete_bank(name)


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers in every run."""
    return np.random.default_rng(7)


@pytest.fixture
def location(tmp_path: Path) -> str:
    """Settings of a server that keeps checkpoints."""
    return f"checkpoints.location={tmp_path / 'checkpoints'}"


@pytest.fixture
def keeping(location: str) -> Iterator[negbank.Client]:
    """A client of such a server."""
    process = ServerProcess(location)
    yield negbank.connect(process.address)
    process.stop()
