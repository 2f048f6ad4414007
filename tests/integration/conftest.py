"""Fixtures of the tests that use the network of this machine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asyncssh.sftp import SFTPServerHandler

from ..simulated_rap import empty_key_store, lake, rap, unused_port

__all__ = ["empty_key_store", "lake", "rap", "side_by_side", "unused_port"]


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let asyncssh's servers process requests side by side; else they finish each before the next one."""
    process = SFTPServerHandler._process_packet
    tasks: set[asyncio.Task[None]] = set()

    async def start(self: SFTPServerHandler, *arguments: Any) -> None:
        task = asyncio.create_task(process(self, *arguments))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    monkeypatch.setattr(SFTPServerHandler, "_process_packet", start)
