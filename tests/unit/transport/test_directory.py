"""READDIR requests ahead: a listing is whole, or the server is found not to take them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.transport.directory import MOST_AHEAD, ReadAheadError, read_directory

END: list[str] = []
REFUSED = ["refused"]


class Server:
    """Answers the READDIR requests with a script, the end after it; request *i* after ``turns[i]`` turns."""

    def __init__(self, script: Sequence[list[str]], turns: Callable[[int], int] = lambda number: 3) -> None:
        self._script = script
        self._turns = turns
        self.requests = self.outstanding = self.most_outstanding = 0
        self.closed: list[bytes] = []

    async def opendir(self, path: bytes) -> bytes:
        return b"handle of " + path

    async def read_names(self, handle: bytes) -> list[Any] | None:
        assert handle == b"handle of /download/DCASS"
        number, self.requests = self.requests, self.requests + 1
        self.outstanding += 1
        self.most_outstanding = max(self.most_outstanding, self.outstanding)
        for _ in range(self._turns(number)):
            await asyncio.sleep(0)
        self.outstanding -= 1
        answer = self._script[number] if number < len(self._script) else END
        if answer is REFUSED:
            raise asyncssh.SFTPFailure("Too many requests")
        return None if answer is END else answer

    async def close(self, handle: bytes) -> None:
        self.closed.append(handle)


def read(server: Server, ahead: int = MOST_AHEAD, *, has_ended: bool = False) -> list[str]:
    async def names() -> list[str]:
        found: list[str] = []
        watch: Any = SimpleNamespace(has_ended=has_ended)
        stream: Any = server
        async with aclosing(read_directory(stream, watch, b"/download/DCASS", ahead)) as answers:
            async for answer in answers:
                found += answer  # type: ignore[arg-type]
        return found

    try:
        return asyncio.run(names())
    finally:
        assert server.closed == [b"handle of /download/DCASS"]


BATCHES = st.lists(st.lists(st.text("abc", min_size=1), min_size=1, max_size=3), max_size=40)


@given(BATCHES, st.sampled_from([1, 2, MOST_AHEAD]))
def test_a_listing_is_whole_and_in_order(batches: list[list[str]], ahead: int) -> None:
    server = Server(batches)
    assert read(server, ahead) == [name for batch in batches for name in batch]
    assert server.most_outstanding <= ahead


@given(
    BATCHES.filter(bool),
    st.integers(0, 40),
    st.sampled_from([END, REFUSED]),
    st.lists(st.integers(0, 4), min_size=60, max_size=60),
)
def test_a_server_that_loses_names_when_it_is_asked_ahead_is_found_out(
    batches: list[list[str]], at: int, wrong: list[str], turns: list[int]
) -> None:
    script = [*batches[: at % len(batches)], wrong, *batches[at % len(batches) :]]
    with pytest.raises(ReadAheadError):
        read(Server(script, turns.__getitem__))


@given(BATCHES, st.lists(st.integers(0, 4), min_size=60, max_size=60))
def test_answers_in_another_order_than_the_requests_are_not_trusted(
    batches: list[list[str]], turns: list[int]
) -> None:
    try:
        found = read(Server(batches, turns.__getitem__))
    except ReadAheadError:
        assert len(set(turns)) > 1
    else:
        assert found == [name for batch in batches for name in batch]


def test_a_long_directory_takes_few_round_trips() -> None:
    async def round_trips(batches: int) -> float:
        found: list[str] = []
        stream: Any = Server([["a"]] * batches, lambda number: 100)
        watch: Any = SimpleNamespace(has_ended=False)

        async def collect() -> None:
            async for answer in read_directory(stream, watch, b"/download/DCASS", MOST_AHEAD):
                found.extend(answer)  # type: ignore[arg-type]

        reading, turns = asyncio.create_task(collect()), 0
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)
        assert len(found) == batches
        return turns / 100

    assert asyncio.run(round_trips(1)) < 3
    assert asyncio.run(round_trips(9)) < 4
    assert asyncio.run(round_trips(1_000)) < 1_000 / MOST_AHEAD + 5


def test_without_requests_ahead_or_after_the_end_of_the_session_a_refusal_is_the_servers_own() -> None:
    with pytest.raises(asyncssh.SFTPFailure):
        read(Server([["a"], REFUSED]), ahead=1)
    with pytest.raises(asyncssh.SFTPFailure):
        read(Server([["a"], REFUSED]), has_ended=True)
