"""The parts of asyncssh that are used beyond its documentation.

``tests/unit/transport/test_undocumented.py`` fails when one of them changes, and ``pyproject.toml`` bounds
the version of asyncssh.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import asyncssh

_logger = logging.getLogger("asyncssh")
_lock = threading.Lock()
_quiet_sessions = 0


@contextmanager
def quiet_logging() -> Iterator[None]:
    """Keep asyncssh from logging each channel and file while a session is open.

    At INFO, asyncssh logs several lines for each file. A level that the user has set stays.
    """
    global _quiet_sessions
    with _lock:
        if not _quiet_sessions and _logger.level == logging.NOTSET:
            _logger.setLevel(logging.WARNING)
        _quiet_sessions += 1
    try:
        yield
    finally:
        with _lock:
            _quiet_sessions -= 1
            if not _quiet_sessions and _logger.level == logging.WARNING:
                _logger.setLevel(logging.NOTSET)


def key_pair(key: asyncssh.SSHKey, algorithm: str | None = None) -> asyncssh.SSHKeyPair:
    """Return a key pair to offer to a server.

    :param key: the private key.
    :param algorithm: the only signature algorithm to use, such as ``ssh-rsa``; None leaves the choice to
        asyncssh.
    """
    (pair,) = asyncssh.load_keypairs([key])
    if algorithm:
        pair.sig_algorithms = (algorithm.encode(),)
        pair.set_sig_algorithm(algorithm.encode())
    return pair


class _NoAttributes(asyncssh.SFTPAttrs):
    """The attributes of an OPEN for reading: none.

    asyncssh formats the attributes for its log even if it does not log them; for many small files that is a
    tenth of the work.
    """

    def __str__(self) -> str:
        return ""


NO_ATTRIBUTES = _NoAttributes()
