"""The simulator's clock, which every rule of the simulated RAP follows."""

from __future__ import annotations

import threading
import time

import pendulum

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError


class SimulatedClock:
    """A clock that ticks in real time from any moment; calling it gives the time, in Hong Kong time.

    It is a :data:`~airflow_provider_hkex_rap.rap.clock.Clock`, so what is under test can be given this one.

    :param start: the aware time that it shows now; None for this machine's.
    :raises RapConfigurationError: *start* has no time zone.
    """

    def __init__(self, start: pendulum.DateTime | None = None) -> None:
        self._lock = threading.Lock()
        self.set(start or pendulum.now(HONG_KONG))

    def __call__(self) -> pendulum.DateTime:
        """Return the time now."""
        with self._lock:
            return self._start.add(seconds=time.monotonic() - self._since)

    def set(self, to: pendulum.DateTime) -> None:
        """Show *to* now and tick on from there.

        :param to: an aware time; earlier than the present one is allowed.
        :raises RapConfigurationError: *to* has no time zone.
        """
        if to.tzinfo is None:
            raise RapConfigurationError(
                f"{to} has no time zone.",
                why="The guide speaks of Hong Kong time; a time without a zone is ambiguous.",
                todo='Pass tz="Asia/Hong_Kong".',
            )
        with self._lock:
            self._start = to.in_timezone(HONG_KONG)
            self._since = time.monotonic()

    def advance(self, *, days: int = 0, hours: int = 0, minutes: int = 0, seconds: float = 0) -> None:
        """Move forward by the durations given, each in its unit; negative ones move back."""
        self.set(self().add(days=days, hours=hours, minutes=minutes, seconds=seconds))
