"""The setting that shifts the clock."""

from __future__ import annotations

from airflow.sdk.configuration import conf


def clock_offset() -> float:
    """Return ``[hkex_rap] clock_offset``: the seconds by which the clock is shifted for trials, else 0."""
    offset: float = conf.getfloat("hkex_rap", "clock_offset", fallback=0.0)
    return offset
