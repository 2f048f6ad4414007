"""Give the current time in Hong Kong, the time zone of the guide."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pendulum

HONG_KONG = pendulum.timezone("Asia/Hong_Kong")

Clock = Callable[[], pendulum.DateTime]
"""A function that returns the current time in Hong Kong."""


NO_TIME = 2**32 - 1
"""SFTP sends times in 32 bits without a sign; this one means no time."""
_FUTURE = timedelta(days=1)


def time_of(mtime: int | None, now: pendulum.DateTime) -> pendulum.DateTime | None:
    """Return a file's time in Hong Kong; None if RAP sent none, or one that cannot be the file's time.

    No file is from the future. Two clocks may differ, but not by more than a day.

    :param mtime: the file's modification time, in seconds since the epoch; None if RAP sent none.
    :param now: when the file was listed.
    """
    if mtime is None or not 0 <= mtime < NO_TIME or mtime > (now + _FUTURE).timestamp():
        return None
    return pendulum.from_timestamp(mtime, HONG_KONG)


def system_clock(offset_seconds: float = 0.0) -> Clock:
    """Return a clock that adds an offset to this machine's time.

    :param offset_seconds: seconds to add; a negative number shifts into the past. Use it for trials against a
        simulator that is set to another date.
    :returns: a clock whose times are timezone-aware and in Hong Kong time, in every time zone of the machine.
    """
    offset = timedelta(seconds=offset_seconds)
    return lambda: pendulum.now(HONG_KONG) + offset
