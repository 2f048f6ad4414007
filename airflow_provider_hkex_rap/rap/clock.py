"""Give the current time in Hong Kong, the time zone of the guide."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pendulum

HONG_KONG = pendulum.timezone("Asia/Hong_Kong")

Clock = Callable[[], pendulum.DateTime]
"""A function that returns the current time in Hong Kong."""


def system_clock(offset_seconds: float = 0.0) -> Clock:
    """Return a clock that adds an offset to this machine's time.

    :param offset_seconds: seconds to add; a negative number shifts into the past. Use it for trials against a
        simulator that is set to another date.
    :returns: a clock whose times are timezone-aware and in Hong Kong time, in every time zone of the machine.
    """
    offset = timedelta(seconds=offset_seconds)
    return lambda: pendulum.now(HONG_KONG) + offset
