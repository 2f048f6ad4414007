"""Run coroutines side by side; the first error ends all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")


async def run_all(*coroutines: Coroutine[Any, Any, A]) -> list[A]:
    """Run coroutines side by side and return their results, in the order given.

    Unlike ``asyncio.gather``, the first error cancels the others and is raised once they have ended; unlike a
    task group, it is raised as it is.

    :param coroutines: the work.
    :raises BaseException: the first error of any of them.
    """
    caller = asyncio.current_task()
    cancellations = caller.cancelling() if caller else 0
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as errors:
        # Up to Python 3.12 a task group cancels its caller to wake it, and leaves it marked as cancelled.
        while caller and caller.cancelling() > cancellations:
            caller.uncancel()
        first = errors.exceptions[0]
        # It keeps its cause: that of an error of s3fs has the code of S3's answer.
        raise first from first.__cause__
    return [task.result() for task in tasks]


async def run_both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Run two coroutines side by side and return both results; see `run_all`.

    :param first: the work of the first result.
    :param second: the work of the second one.
    :raises BaseException: the first error of either.
    """
    results: list[Any] = await run_all(first, second)
    return results[0], results[1]
