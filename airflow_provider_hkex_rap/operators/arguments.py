"""Parse the arguments of operators and sensors, which a template may have rendered as text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from math import inf
from typing import TYPE_CHECKING, Any

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.judgement import USUAL

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
    if isinstance(patterns, str) and re.search(r",|^\s*[\[({]\s*(['\"]|[\])}])|^None$", patterns):
        raise RapConfigurationError(
            f"{patterns!r} in {field!r} is one text that looks like a list.",
            why="A template renders a list as text, which would match no file as a pattern.",
            todo="Give a list of patterns, or set render_template_as_native_obj=True on the DAG.",
            field=field,
        )
    given = (patterns,) if isinstance(patterns, str) else () if patterns is None else patterns
    if not isinstance(given, list | tuple | set | frozenset) or not all(isinstance(g, str) for g in given):
        raise RapConfigurationError(
            f"{patterns!r} in {field!r} is not a list of texts.",
            why="Patterns are globs on file names; native rendering turns digits into a number.",
            todo="Write each pattern in quotes, such as ['1001*'].",
            field=field,
        )
    given = tuple(glob for glob in given if glob.strip())
    for glob in given:
        if glob != glob.strip() or "\n" in glob:
            raise RapConfigurationError(
                f"{glob!r} in {field!r} has spaces around it, or several lines.",
                why="It would be taken for a part of a file's name.",
                todo="Give a list of patterns, without spaces around them.",
                field=field,
            )
    if at_least_one and not given:
        raise RapConfigurationError(
            f"{field!r} names no pattern.",
            why="Patterns are globs on file names, such as 'TP001_*'.",
            todo='Give one or more; "*" matches every file.',
        )
    return given


def parse_expect(expect: str | Collection[str] | None) -> tuple[str, ...]:
    """Return what a run must land; an empty list turns the judgement off.

    :param expect: globs on file names, and the word ``usual``. What a template leaves blank counts as left
        out: ``usual``.
    :raises RapConfigurationError: if a text looks like a list, or if it is not a list of texts.
    """
    patterns = parse_patterns(expect, "expect")
    is_empty_list = expect is not None and not isinstance(expect, str) and not expect
    return patterns if patterns or is_empty_list else (USUAL,)


def parse_outlets(outlets: object) -> list[Any]:
    """Return the outlets that a user gives to an operator, as a list.

    :param outlets: an asset, a list of assets, or None.
    """
    if isinstance(outlets, list | tuple | set | frozenset):
        return list(outlets)
    return [] if outlets is None else [outlets]


def parse_number(name: str, value: int | str) -> int:
    """Return a whole number.

    :param name: the name of the argument, for the error.
    :param value: the number, or its digits.
    :raises RapConfigurationError: if it is not a whole number.
    """
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise RapConfigurationError(
            f"{value!r} in {name!r} is not a number.", todo="Give a whole number.", argument=name, value=value
        ) from None


def check_number(name: str, value: object, *, least: float, form: str, whole: bool = False) -> None:
    """Check an argument that must be a number.

    :param name: the name of the argument, for the error.
    :param value: its value.
    :param least: the smallest number allowed.
    :param form: the valid form in words, such as "a number of seconds".
    :param whole: whether it must be a whole number.
    :raises RapConfigurationError: if it is no number, or below *least*.
    """
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < inf:
        raise RapConfigurationError(
            f"{name} is {value!r}, which is not {form}.",
            todo=f"Set it to {form}, {least:g} or more.",
            argument=name,
            value=value,
        )


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


def check_poking(sensor: BaseSensorOperator) -> None:
    """Check that a sensor gives its slot back between pokes, and pokes at most once a minute (§4.1).

    :param sensor: the sensor.
    :raises RapConfigurationError: if ``mode`` is not ``reschedule``, ``poke_interval`` or ``max_wait`` is
        below 60 s, or ``poke_interval`` is below 120 s with ``exponential_backoff``.
    """
    if sensor.mode != "reschedule":
        raise RapConfigurationError(
            f"{sensor.mode!r} is not a mode of this sensor.",
            why="Between pokes, and while RAP is closed, it gives its slot back (guide §4.1).",
            todo="Leave 'mode' out, or set it to 'reschedule'.",
            mode=sensor.mode,
        )
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
