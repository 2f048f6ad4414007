"""The clock of the simulated RAP, which every rule follows."""

from __future__ import annotations

import threading
import time

import pendulum

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError


class SimulatedClock:
    """A clock that can be set, and ticks in real time; call it to get the time in Hong Kong.

    Eleven days later, the reports of today are gone::

        rap.clock.advance(days=11)
        assert rap.files("DCASS") == []

    It is a :data:`~airflow_provider_hkex_rap.rap.clock.Clock`, so it can be passed to the code under test.

    :param start: the aware time that it shows first; None for the machine's time.
    :raises RapConfigurationError: if *start* has no time zone.
    """

    def __init__(self, start: pendulum.DateTime | None = None) -> None:
        self._lock = threading.Lock()
        self.set(start or pendulum.now(HONG_KONG))

    def __call__(self) -> pendulum.DateTime:
        """Return the time now."""
        with self._lock:
            return self._start.add(seconds=time.monotonic() - self._since)

    def set(self, to: pendulum.DateTime) -> None:
        """Set the time; the clock ticks on from there.

        :param to: an aware time; it may be earlier than the present time.
        :raises RapConfigurationError: if *to* has no time zone.
        """
        if to.tzinfo is None:
            raise RapConfigurationError(
                f"{to} has no time zone.",
                why="The hours of the guide are in Hong Kong time; a time without a zone is ambiguous.",
                todo='Pass tz="Asia/Hong_Kong".',
            )
        with self._lock:
            self._start = to.in_timezone(HONG_KONG)
            self._since = time.monotonic()

    def advance(self, *, days: int = 0, hours: int = 0, minutes: int = 0, seconds: float = 0) -> None:
        """Move the clock forward by the sum of the durations; negative durations move it back."""
        self.set(self().add(days=days, hours=hours, minutes=minutes, seconds=seconds))
