"""Give the current time in Hong Kong, the time zone of the guide."""

from __future__ import annotations

import time
from collections.abc import Callable

import pendulum

HONG_KONG = pendulum.timezone("Asia/Hong_Kong")

Clock = Callable[[], pendulum.DateTime]
"""A function that returns the current time in Hong Kong."""


NO_TIME = 2**32 - 1
"""SFTP sends times in 32 bits without a sign; this one means no time."""
_FUTURE_SECONDS = 24 * 3600
_FIRST_TIME = 315_619_200
"""2 January 1980 UTC. Servers that have no time of a file send one before: the epoch, or the first of DOS."""


def is_time(mtime: int | None, now: pendulum.DateTime) -> bool:
    """Return whether an mtime can be a file's time.

    No file is from the future, and none from before 1980. Two clocks may differ, but not by more than a day.

    :param mtime: the file's modification time, in seconds since the epoch; None if RAP sent none.
    :param now: when the file was listed.
    """
    latest = min(now.timestamp() + _FUTURE_SECONDS, NO_TIME - 1)
    return mtime is not None and _FIRST_TIME <= mtime <= latest


def time_of(mtime: int | None, now: pendulum.DateTime) -> pendulum.DateTime | None:
    """Return a file's time in Hong Kong; None if RAP sent none, or one that `is_time` refuses.

    :param mtime: the file's modification time, in seconds since the epoch; None if RAP sent none.
    :param now: when the file was listed.
    """
    return pendulum.from_timestamp(mtime, HONG_KONG) if mtime is not None and is_time(mtime, now) else None


def system_clock(offset_seconds: float = 0.0) -> Clock:
    """Return a clock that adds an offset to this machine's time.

    :param offset_seconds: seconds to add; a negative number shifts into the past. Use it for trials against a
        simulator that is set to another date.
    :returns: a clock whose times are timezone-aware and in Hong Kong time, in every time zone of the machine.
    """
    return lambda: pendulum.from_timestamp(time.time() + offset_seconds, HONG_KONG)
