"""Fixtures for the agent's own tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def place() -> Iterator[Path]:
    """Make an empty directory with a short name, for unix sockets: tmp_path is too long."""
    with tempfile.TemporaryDirectory(prefix="kat-") as directory:
        yield Path(directory)
