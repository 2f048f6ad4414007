"""Run storage calls in threads: a bounded number at once, and none after a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from airflow_provider_hkex_rap.aio.finish import finish

_T = TypeVar("_T")
_Item = TypeVar("_Item")

_REASON = "The task was cancelled: no further storage call starts."


class StorageCalls:
    """Run single storage calls in threads until the task is cancelled; use it as ``async with``.

    As soon as the task that entered the block is cancelled, new calls are refused, and calls that wait for a
    thread are dropped. A call that runs cannot be interrupted; the end of the block waits for it.

    ::

        async with StorageCalls(16) as calls:
            contents = await calls.map(lake.read, paths)

    :param threads: how many calls run at once.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "hkex-rap-lake")
        self._owner: asyncio.Task[Any] | None = None
        self._stopped = False

    async def __aenter__(self) -> StorageCalls:
        self._owner = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def stopped(self) -> bool:
        """Whether no further call may start; safe to read in any thread."""
        # The count rises as soon as somebody cancels the task, before the task itself notices.
        if self._owner is not None and self._owner.cancelling():
            self._stopped = True
        return self._stopped

    def stop(self) -> None:
        """Let no further call start."""
        self._stopped = True

    async def run(self, call: Callable[..., _T], *arguments: object) -> _T:
        """Run one storage call in a thread and return its result.

        :param call: the function to call; it may make one request to the storage.
        :param arguments: its arguments.
        :raises asyncio.CancelledError: if the calls are stopped before a thread is free.
        """
        try:
            return await self._submit(partial(call, *arguments))
        except _StoppedError:
            raise asyncio.CancelledError(_REASON) from None

    async def map(self, call: Callable[[_Item], _T], items: Iterable[_Item]) -> list[_T]:
        """Run one storage call for each item and return the results in the same order.

        :param call: the function to call.
        :param items: its argument, for each call; a bounded number of them.
        :raises asyncio.CancelledError: if the calls are stopped before all of them have started.
        :raises Exception: if a call fails; the first of several errors, after the other calls have ended.
        """
        results = await asyncio.gather(
            *(self._submit(partial(call, item)) for item in items), return_exceptions=True
        )
        errors = [result for result in results if isinstance(result, BaseException)]
        if any(isinstance(error, _StoppedError) for error in errors):
            raise asyncio.CancelledError(_REASON)
        if errors:
            raise errors[0]
        return [result for result in results if not isinstance(result, BaseException)]

    async def close(self) -> None:
        """Refuse new calls, drop those that wait for a thread, and wait for those that run."""
        self.stop()
        shutdown = partial(self._pool.shutdown, wait=True, cancel_futures=True)
        await finish(asyncio.to_thread(shutdown))

    def _submit(self, call: Callable[[], _T]) -> asyncio.Future[_T]:
        if self.stopped:
            raise asyncio.CancelledError(_REASON)
        return asyncio.get_running_loop().run_in_executor(self._pool, self._start, call)

    def _start(self, call: Callable[[], _T]) -> _T:
        if self.stopped:
            raise _StoppedError
        return call()


class _StoppedError(Exception):
    """The calls were stopped while this one waited for a thread."""
