"""Read a directory with several requests for its next names on their way."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncssh

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.transport.undocumented import SFTPStream
    from airflow_provider_hkex_rap.transport.watch import AnswerWatch

MOST_AHEAD = 16
"""READDIR requests that may be outstanding for one directory, at most."""
_FIRST_AHEAD = 2


class ReadAheadError(Exception):
    """The server does not answer several READDIR requests as it should: in order, the end last, none refused.

    What it has answered may lack names.
    """


async def read_directory(
    stream: SFTPStream, watch: AnswerWatch, path: bytes, ahead: int
) -> AsyncGenerator[Sequence[asyncssh.SFTPName]]:
    """Yield the names in a directory as they arrive.

    Each READDIR is answered with the next names, until one is answered with the end. The requests on their
    way begin with two, and may double with each answer. Those that follow the answered end confirm it: a
    server that takes requests side by side could answer one of them with an end that is none.

    :param stream: the stream of SFTP.
    :param watch: tells if the session has ended.
    :param path: the directory.
    :param ahead: how many READDIR requests may be outstanding; 1 waits for each answer.
    :raises ReadAheadError: if *ahead* is more than 1, and the server does not answer as it should.
    :raises asyncssh.Error: if the server refuses the directory, or the session ended.
    """
    handle = await stream.opendir(path)
    sent, answered = itertools.count(), itertools.count()
    reads: deque[asyncio.Task[Sequence[asyncssh.SFTPName] | None]] = deque()
    window, at_end = min(_FIRST_AHEAD, ahead), False

    async def read() -> Sequence[asyncssh.SFTPName] | None:
        number = next(sent)
        try:
            names = await stream.read_names(handle)
        except asyncssh.SFTPError:
            if ahead == 1 or watch.has_ended:
                raise
            raise ReadAheadError from None
        if next(answered) != number:
            raise ReadAheadError
        return names

    try:
        while reads or not at_end:
            while not at_end and len(reads) < window:
                reads.append(asyncio.create_task(read()))
            names = await reads.popleft()
            if names is None:
                at_end = True
                continue
            if at_end:
                raise ReadAheadError
            window = min(2 * window, ahead)
            yield names
    finally:
        for task in reads:
            task.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        with suppress(asyncssh.SFTPError):
            await stream.close(handle)
