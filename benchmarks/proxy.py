"""A proxy that adds a round trip to a connection, and does not limit its bandwidth.

Run in a process of its own: ``python -m benchmarks.proxy PORT MILLISECONDS`` prints the port it listens on.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator

_CHUNK = 2**20
_PAUSE = 0.0001


@contextlib.contextmanager
def delayed(port: int, round_trip: float) -> Iterator[int]:
    """Yield a port of localhost that leads to another port, with a round trip of so many milliseconds.

    :param port: the port of the server.
    :param round_trip: milliseconds; 0 yields *port* itself.
    """
    if not round_trip:
        yield port
        return
    command = [sys.executable, "-m", "benchmarks.proxy", str(port), str(round_trip)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout
            yield int(proxy.stdout.readline())
        finally:
            proxy.terminate()


class _Way(asyncio.BufferedProtocol):
    """One direction: what arrives leaves by the other side after the delay, however much it is."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._buffer = bytearray(_CHUNK)
        self._waiting: collections.deque[tuple[float, bytes | None]] = collections.deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None
        self.other: _Way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._put(bytes(memoryview(self._buffer)[:nbytes]))

    def eof_received(self) -> bool:
        self._put(None)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._put(None)

    def _put(self, data: bytes | None) -> None:
        self._waiting.append((self._loop.time() + self._delay, data))
        if self._timer is None:
            self._timer = self._loop.call_at(self._waiting[0][0], self._deliver)

    def _deliver(self) -> None:
        now = self._loop.time()
        target = self.other.transport
        while target and self._waiting and self._waiting[0][0] <= now:
            _, data = self._waiting.popleft()
            if data is None:
                target.close()
            else:
                target.write(data)
        again = max(self._waiting[0][0], now + _PAUSE) if self._waiting else None
        self._timer = self._loop.call_at(again, self._deliver) if again else None


async def _serve(port: int, round_trip: float) -> None:
    loop = asyncio.get_running_loop()
    delay = round_trip / 2 / 1000
    opening = set()

    async def open_server(client: _Way, server: _Way) -> None:
        try:
            await loop.create_connection(lambda: server, "127.0.0.1", port)
        except OSError:
            if client.transport:
                client.transport.abort()

    def accept() -> _Way:
        client, server = _Way(delay), _Way(delay)
        client.other, server.other = server, client
        task = loop.create_task(open_server(client, server))
        opening.add(task)
        task.add_done_callback(opening.discard)
        return client

    listener = await loop.create_server(accept, "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await listener.serve_forever()


def main() -> None:
    # select() waits for microseconds; epoll() rounds up to a millisecond, a tenth of the delay.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(_serve(int(sys.argv[1]), float(sys.argv[2])))


if __name__ == "__main__":
    main()
