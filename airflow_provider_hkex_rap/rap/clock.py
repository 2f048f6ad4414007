"""The one place that gives the time, in Hong Kong's, of which the guide speaks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pendulum

HONG_KONG = pendulum.timezone("Asia/Hong_Kong")

Clock = Callable[[], pendulum.DateTime]
"""What gives the time now, in Hong Kong time."""


def system_clock(offset_seconds: float = 0.0) -> Clock:
    """Return a clock that gives this machine's time, shifted.

    :param offset_seconds: seconds to add; negative for the past. Meant for trials against a simulator that is
        set to another date.
    :returns: a clock whose times are aware, in Hong Kong time, whatever the machine's own time zone.
    """
    offset = timedelta(seconds=offset_seconds)
    return lambda: pendulum.now(HONG_KONG) + offset
