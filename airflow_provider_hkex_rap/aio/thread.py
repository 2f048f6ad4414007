"""Call blocking code in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function in a thread, as `asyncio.to_thread` does, but never wait for ever.

    A future takes no `StopIteration`. With `asyncio.to_thread`, a bare ``next`` that finds nothing, such as
    one in a user's key store, is only logged, and the caller waits for ever.

    :raises RuntimeError: if the function raises `StopIteration`.
    """

    def call() -> _T:
        try:
            return function(*args, **kwargs)
        except StopIteration as error:
            # As Python itself does in generators and coroutines.
            raise RuntimeError(
                f"{getattr(function, '__qualname__', function)} raised StopIteration"
            ) from error

    return await asyncio.to_thread(call)
