"""Find report and business date in a file's name; RAP sends neither."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pendulum

from airflow_provider_hkex_rap.rap.calendar import previous_trading_day
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.retention import RETENTION_DAYS
from airflow_provider_hkex_rap.rap.service_hours import DAY_OPENS

_HHMM = "(?:[01][0-9]|2[0-3])[0-5][0-9]"
_STAMP = re.compile(
    rf"""
    (?<!\d)                                                     # not inside a longer number
    (?P<date>[12][0-9]{{3}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01]))
    (?:
      T?{_HHMM}(?:[0-5][0-9](?:\.?[0-9]{{3}}(?:[0-9]{{3}})?)?)?  # seconds, milli- or microseconds
      | [_.-]{_HHMM}[0-5][0-9](?:[0-9]{{3}})?                   # after a separator, it must have seconds
    )?
    (?!\d)
    """,
    re.VERBOSE,
)
_DATE = re.compile(r"([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})")
_EXTENSION = re.compile(r"(?is)(?<=.)\.(?:7z|[a-z][a-z0-9]{0,3})(?:\.(?:gz|bz2|xz|z|zip|gpg|pgp))?\Z")
_SEPARATORS = " ._-"


class ReportName(NamedTuple):
    """Report and business date of a file.

    :param report: the report's code or name, without date, time and extension.
    :param business_date: the day that the report is about.
    :param rule: the source of that day: ``pattern`` (the user's regex), ``name`` (a date in the file's name),
        ``mtime`` or ``first_seen``.
    """

    report: str
    business_date: pendulum.Date
    rule: str


class _Stamp(NamedTuple):
    """A date found in a name, and its position."""

    date: pendulum.Date
    start: int
    end: int


class Naming:
    """The rules that read report and business date from a file's name.

    ::

        Naming().read("TP001_20261120.csv", mtime, now).report  # "TP001"

    :param pattern: a regex to search in a file's name, with a named group ``report``, or ``date`` (YYYYMMDD
        or YYYY-MM-DD), or both. A group that matches takes precedence over the built-in rule.
    :raises RapConfigurationError: if *pattern* is not a valid regex, or has neither group.
    """

    def __init__(self, pattern: str | None = None) -> None:
        self.pattern = pattern
        self._regex = None if pattern is None else _compile(pattern)

    def read(self, name: str, mtime: int | None, first_seen: pendulum.DateTime) -> ReportName:
        """Return the report and the business date of a file with any name.

        The date is the first YYYYMMDD in the name, alone or at the start of a timestamp, that is valid and
        within ten days of the file's mtime. If there is none, it is the mtime's day in Hong Kong; a time
        before 07:00 belongs to the trading day before.

        :param name: the file's name on RAP.
        :param mtime: the file's modification time, in seconds since the epoch; None if RAP sends none.
        :param first_seen: when the file was first listed; used if there is no valid *mtime*.
        """
        written, rule = _written(mtime, first_seen)
        report, given = self._given(name)
        stamps = list(_stamps(name))
        near = [stamp.date for stamp in stamps if _is_near(stamp.date, written)]
        if given:
            business_date, rule = given.date, "pattern"
            stamps.append(given)
        elif near:
            business_date, rule = near[0], "name"
        else:
            business_date = _day(written)
        return ReportName(report or _report(name, stamps), business_date, rule)

    def _given(self, name: str) -> tuple[str | None, _Stamp | None]:
        """Return the report and the date that the user's regex finds in a name."""
        match = self._regex.search(name) if self._regex else None
        if match is None:
            return None, None
        groups = match.groupdict()
        date = _parse(groups.get("date"))
        return groups.get("report"), _Stamp(date, *match.span("date")) if date else None


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        regex = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        why = f"It is not a valid regular expression: {error}."
    else:
        if regex.groupindex.keys() & {"report", "date"}:
            return regex
        why = "It has no group named 'report' or 'date'."
    raise RapConfigurationError(
        f"The naming pattern {pattern!r} cannot be used.",
        why=why,
        todo=r"Write a regex with one group or both, such as (?P<report>\w+)_(?P<date>\d{8}); "
        "a date is YYYYMMDD or YYYY-MM-DD.",
        pattern=pattern,
    )


def _written(mtime: int | None, first_seen: pendulum.DateTime) -> tuple[pendulum.DateTime, str]:
    """Return the file's time in Hong Kong, and the rule that it comes from."""
    # SFTP sends 32 bits without a sign; any other number is not a time.
    if mtime is not None and 0 <= mtime < 2**32:
        return pendulum.from_timestamp(mtime, HONG_KONG), "mtime"
    return first_seen.in_timezone(HONG_KONG), "first_seen"


def _is_near(date: pendulum.Date, written: pendulum.DateTime) -> bool:
    # Any eight digits may form a date, but seldom a date that RAP still keeps.
    return abs(date.toordinal() - written.toordinal()) <= RETENTION_DAYS


def _day(written: pendulum.DateTime) -> pendulum.Date:
    day = written.date()
    return previous_trading_day(day) if written < written.start_of("day") + DAY_OPENS else day


def _stamps(name: str) -> Iterator[_Stamp]:
    for match in _STAMP.finditer(name):
        if date := _parse(match["date"]):
            yield _Stamp(date, *match.span())


def _parse(text: str | None) -> pendulum.Date | None:
    match = _DATE.fullmatch(text or "")
    try:
        return pendulum.date(int(match[1]), int(match[3]), int(match[4])) if match else None
    except ValueError:
        return None


def _report(name: str, stamps: Iterable[_Stamp]) -> str:
    """Return a name without its dates, times and extension; the whole name if nothing else is left."""
    pieces, end = [], 0
    for stamp in sorted(stamps, key=lambda stamp: stamp.start):
        pieces.append(name[end : stamp.start].rstrip(_SEPARATORS))
        end = max(end, stamp.end)
    report = "".join([*pieces, name[end:]])
    if pieces and not pieces[0]:
        report = report.lstrip(_SEPARATORS)
    return _EXTENSION.sub("", report) or name
