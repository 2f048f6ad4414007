"""Parse the arguments of operators and sensors, which a template may have rendered as text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import BaseSensorOperator

SHORTEST_POKE_INTERVAL = 60.0
"""Seconds between two pokes of a sensor, at least."""


def parse_patterns(
    patterns: str | Iterable[str] | None, field: str, *, at_least_one: bool = False
) -> tuple[str, ...]:
    """Return patterns of file names; a single pattern may be given without a list.

    :param patterns: globs, case-sensitive; blank ones are left out.
    :param field: the name of the argument, for the error.
    :param at_least_one: reject an empty list.
    :raises RapConfigurationError: if a text looks like a list, or if the list is empty and must not be.
    """
    if isinstance(patterns, str) and re.search(r",|^\s*\[\s*(['\"]|\])", patterns):
        raise RapConfigurationError(
            f"{patterns!r} in {field!r} is one text that looks like a list.",
            why="A template renders a list as text, which would match no file as a pattern.",
            todo="Give a list of patterns, or set render_template_as_native_obj=True on the DAG.",
            field=field,
        )
    given = tuple(filter(None, (patterns,) if isinstance(patterns, str) else patterns or ()))
    if at_least_one and not given:
        raise RapConfigurationError(
            f"{field!r} names no pattern.",
            why="Patterns are globs on file names, such as 'TP001_*'.",
            todo='Give one or more; "*" matches every file.',
        )
    return given


def parse_number(name: str, value: int | str) -> int:
    """Return a whole number.

    :param name: the name of the argument, for the error.
    :param value: the number, or its digits.
    :raises RapConfigurationError: if it is not a whole number.
    """
    try:
        return int(value)
    except (TypeError, ValueError):
        raise RapConfigurationError(
            f"{value!r} in {name!r} is not a number.", todo="Give a whole number.", argument=name, value=value
        ) from None


def parse_flag(name: str, value: bool | str) -> bool:
    """Return a flag.

    :param name: the name of the argument, for the error.
    :param value: the flag; None and an empty text are False.
    :raises RapConfigurationError: if it is neither true nor false.
    """
    known = {"true": True, "1": True, "false": False, "0": False, "none": False, "": False}
    try:
        return known[str(value).strip().lower()]
    except KeyError:
        raise RapConfigurationError(
            f"{value!r} in {name!r} is neither true nor false.",
            todo="Give True or False.",
            argument=name,
            value=value,
        ) from None


def check_poke_interval(sensor: BaseSensorOperator) -> None:
    """Check that a sensor does not log in more often than once a minute (§4.1).

    :param sensor: the sensor.
    :raises RapConfigurationError: if ``poke_interval`` or ``max_wait`` is below 60 s, or ``poke_interval``
        below 120 s with ``exponential_backoff``.
    """
    # Airflow's exponential backoff begins with half of the interval.
    shortest = SHORTEST_POKE_INTERVAL * (2 if sensor.exponential_backoff else 1)
    if sensor.max_wait and sensor.max_wait.total_seconds() < SHORTEST_POKE_INTERVAL:
        raise RapConfigurationError(
            f"A max_wait of {sensor.max_wait.total_seconds():g} s is too short.",
            why="It limits the time between two pokes, each of which is a login (guide §4.1).",
            todo=f"Set it to {SHORTEST_POKE_INTERVAL:g} s or more, or leave it out.",
            max_wait=sensor.max_wait,
        )
    if sensor.poke_interval < shortest:
        raise RapConfigurationError(
            f"A poke_interval of {sensor.poke_interval:g} s is too short.",
            why="Each poke is a login, and HKEX asks for few of them (guide §4.1).",
            todo=f"Set it to {shortest:g} s or more, or leave it out.",
            poke_interval=sensor.poke_interval,
        )
