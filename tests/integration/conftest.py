"""Fixtures of the tests that use the network of this machine."""

import socket

import pytest


@pytest.fixture
def unused_port() -> int:
    """Return a port of localhost on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
