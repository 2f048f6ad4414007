"""Finish work that a cancellation must not interrupt."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


async def finish(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end, even if the caller is cancelled meanwhile; raise the cancellation after it.

    :param work: a coroutine that ends in bounded time.
    :raises asyncio.CancelledError: if the caller was cancelled meanwhile.
    :raises Exception: if the coroutine fails; this comes before a cancellation.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result
