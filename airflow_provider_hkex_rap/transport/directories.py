"""List directories over a session, with several requests outstanding."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncssh

from airflow_provider_hkex_rap.aio.budget import Budget
from airflow_provider_hkex_rap.transport.requests import MOST_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hkex_rap.transport.listing import Listing
    from airflow_provider_hkex_rap.transport.requests import Requests
    from airflow_provider_hkex_rap.transport.undocumented import SFTPStream
    from airflow_provider_hkex_rap.transport.watch import AnswerWatch

# READDIRs outstanding at the beginning of a listing, and at most. Most folders end within the first ones.
_FIRST_AHEAD = 12
_MOST_AHEAD = 32


class _DisorderError(Exception):
    """The server may not take several READDIRs at once."""


class DirectoryReader:
    """Lists directories over one SFTP client.

    A READDIR returns the next names, about a hundred, so that a long listing costs many round trips. Several
    are sent before the first is answered. A server that refuses one of them, or that gives a name twice,
    gets one READDIR at a time from then on: a cursor that is moved by several at once could skip names.

    :param stream: the stream of the client.
    :param requests: sends the requests, as many at once as the server takes.
    :param watch: tells if the session has ended.
    :param in_turn: send one READDIR at a time from the beginning.
    """

    def __init__(self, stream: SFTPStream, requests: Requests, watch: AnswerWatch, *, in_turn: bool) -> None:
        self._stream = stream
        self._requests = requests
        self._watch = watch
        self._in_turn = in_turn
        self._listings = Budget(MOST_AT_ONCE)

    async def read(self, listing: Listing[Any]) -> None:
        """List a directory.

        :param listing: takes the names, and is begun again for each attempt.
        :raises asyncssh.Error: if RAP refused the directory, or the session ended.
        :raises RapTransferError: if the listing does not end.
        """
        await self._requests.list(lambda: self._read(listing), self._stream.close_handle)

    async def _read(self, listing: Listing[Any]) -> bytes:
        """List a directory, and return its handle."""
        if not self._in_turn:
            with suppress(_DisorderError):
                async with self._listings.reserve(1):
                    return await self._pass(listing, several=True)
        # The server may count the READDIRs of all directories together.
        async with self._listings.reserve(self._listings.total):
            handle = await self._pass(listing, several=False)
        # Only now is it known that the number was the reason, and not the directory.
        self._in_turn = True
        return handle

    async def _pass(self, listing: Listing[Any], *, several: bool) -> bytes:
        """List a directory once, and return its handle.

        :raises _DisorderError: if a READDIR of *several* was refused, or a name came twice.
        """
        listing.begin()
        handle = await self._requests.send(lambda: self._stream.open_directory(listing.path.encode()))
        try:
            if several:
                await self._read_ahead(handle, listing)
            # A busy server may answer an end too early; with nothing else outstanding, an end is proof.
            while (names := await self._next_names(handle)) is not None:
                listing.add(names)
            if several and listing.has_repeated:
                raise _DisorderError
        except BaseException as error:
            await self._requests.close_now(lambda: self._stream.close_handle(handle))
            if several and isinstance(error, asyncssh.SFTPError) and not self._watch.has_ended:
                raise _DisorderError from None
            raise
        return handle

    async def _read_ahead(self, handle: bytes, listing: Listing[Any]) -> None:
        """Read names with several READDIRs outstanding, until one is answered by an end."""
        ahead: deque[asyncio.Task[Sequence[asyncssh.SFTPName] | None]] = deque()
        most, is_end = _FIRST_AHEAD, False
        try:
            while ahead or not is_end:
                # None is sent if the next answer has come: it may show the end, and save a round trip.
                while not is_end and len(ahead) < most and not (ahead and ahead[0].done()):
                    ahead.append(asyncio.create_task(self._next_names(handle)))
                names = await ahead.popleft()
                if names is None:
                    is_end = True
                else:
                    listing.add(names)
                    most = min(most + 1, _MOST_AHEAD)
        except asyncio.CancelledError:
            for task in ahead:
                task.cancel()
            raise
        finally:
            # A server may refuse the next request while it processes these.
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _next_names(self, handle: bytes) -> Sequence[asyncssh.SFTPName] | None:
        """Return the next names of a directory; None at its end."""
        try:
            return await self._requests.send(lambda: self._stream.next_names(handle))
        except asyncssh.SFTPEOFError:
            return None
