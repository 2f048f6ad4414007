"""Ports of localhost for servers under test."""

import contextlib
import random
import socket

_PORTS = 10_000, 32_000


def free_port() -> int:
    """Return a port of localhost on which no process listens.

    It is below the range from which the kernel takes the ports of outgoing connections, so no connection
    takes it before the server under test listens. It is random, so that trials can run side by side.
    """
    while True:
        port = random.randrange(*_PORTS)
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port
