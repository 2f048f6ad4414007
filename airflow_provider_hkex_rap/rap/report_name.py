"""Find report code and business date in a file's name; RAP sends neither."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import NamedTuple

import pendulum

from airflow_provider_hkex_rap.rap.calendar import previous_trading_day
from airflow_provider_hkex_rap.rap.clock import HONG_KONG, is_time
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.files import NAME_BYTES, is_too_long
from airflow_provider_hkex_rap.rap.retention import RETENTION_DAYS
from airflow_provider_hkex_rap.rap.service_hours import DAY_OPENS

_REMEMBERED = 2**17
"""How many names are remembered, in about 30 MB; RAP lists a few thousand."""

_HHMM = "(?:[01][0-9]|2[0-3])[0-5][0-9]"
_SS = "[0-5][0-9]"
_STAMP = re.compile(
    rf"""
    (?<!\d)                                                     # not inside a longer number
    (?P<date>[12][0-9]{{3}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01]))
    (?:
      T?{_HHMM}(?:{_SS}(?:\.?[0-9]{{3}}(?:[0-9]{{3}})?)?)?       # seconds, milli- or microseconds
      | [_.-]{_HHMM}{_SS}(?:[0-9]{{3}})?                        # after a separator, it must have seconds
    )?
    (?!\d)
    """,
    re.VERBOSE,
)
_DATE = re.compile(r"([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})")

# Dates and months of other forms. They count only near the file's time, since any number may look alike.
_NUMBER = re.compile(r"[0-9]{6,}")
_TIME_OF_DAY = re.compile(rf"(?:{_HHMM}(?:{_SS})?)?")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WORD = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    "|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?"
)
_ONE_OR_TWO = "[0-9]{1,2}"
_YEAR = "(?P<c>[0-9]{4}|[0-9]{2})"
_S, _SAME = "(?P<s>[ ._-])", "(?P=s)"
# After a year may come a time without a separator.
_ENDS = rf"(?=(?:{_HHMM}(?:{_SS})?)?(?![0-9]))"
_DAYS = tuple(
    re.compile(rf"(?ia){before}(?=(?P<all>{form}))")  # matches may overlap, as in 1_20_11_2026
    for before, form in (
        (
            "(?<![0-9])",
            rf"(?P<a>[0-9]{{4}}){_S}(?P<b>{_ONE_OR_TWO}|{_WORD}){_SAME}(?P<c>{_ONE_OR_TWO}){_ENDS}",
        ),
        # The digits at the end of a report code, as in RPI03_NOV_2026, are no day.
        ("(?<![a-z0-9])", rf"(?P<a>{_ONE_OR_TWO}){_S}(?P<b>{_ONE_OR_TWO}|{_WORD}){_SAME}{_YEAR}{_ENDS}"),
        ("(?<![0-9])", rf"(?P<a>{_ONE_OR_TWO})(?P<b>{_WORD}){_YEAR}{_ENDS}"),
        ("(?<![a-z])", rf"(?P<b>{_WORD}){_S}(?P<a>{_ONE_OR_TWO}){_SAME}{_YEAR}{_ENDS}"),
        ("(?<![0-9])", rf"(?P<a>[0-9]{{4}})年(?P<b>{_ONE_OR_TWO})月(?P<c>{_ONE_OR_TWO})日"),
    )
)
_MONTH_STAMPS = tuple(
    re.compile(rf"(?ia){form}")
    for form in (
        rf"(?<![0-9])(?P<y>[0-9]{{4}})(?P<s>[ ._-]?)(?P<m>{_WORD})(?![a-z])(?!{_SAME}[0-9])",
        rf"(?<![0-9])(?P<y>[0-9]{{4}}){_S}(?P<m>[0-9]{{2}})(?![0-9])(?!{_SAME}{_ONE_OR_TWO}(?![0-9]))",
        rf"(?<![0-9])(?P<y>[0-9]{{4}})年(?P<m>{_ONE_OR_TWO})月(?![0-9])",
        r"(?<![a-z0-9])(?P<m>[0-9]{2})[ ._-](?P<y>[0-9]{4})(?![0-9])",
        rf"(?<![a-z])(?P<m>{_WORD})[ ._-]?(?P<y>[0-9]{{4}}|[0-9]{{2}})(?![0-9])",
    )
)
_DAY_BEFORE = re.compile(rf"(?<![A-Za-z0-9]){_ONE_OR_TWO}[ ._-]?\Z")

# Times and sequence numbers follow a date as numbers of their own, such as 18.30.00 or 0001.
_AFTER_DATE = re.compile(
    rf"""
    (?:
      T?{_HHMM}(?:{_SS}(?:\.?[0-9]{{3}}(?:[0-9]{{3}})?)?)?
      | [ ._-]T{_HHMM}{_SS}
      | T[0-2][0-9](?=[:._-][0-5][0-9])
    )?
    (?![0-9])
    (?:[ ._:+-]++(?:[0-9]{{1,4}} | {_HHMM}{_SS}(?:[0-9]{{3}})?)(?:[ ]?[AP]M|Z|HKT)?(?![A-Za-z0-9]))*
    """,
    re.VERBOSE,
)
_TIME = re.compile(rf"(?<![A-Za-z0-9]){_HHMM}{_SS}(?:[0-9]{{3}})?(?![A-Za-z0-9])")

_EXTENSION = re.compile(
    r"(?is)(?<=.)\.(?:7z|bz2|jsonl|parquet|[a-z]{1,4})(?:\.(?:gz|bz2|xz|z|zip|7z|gpg|pgp)){0,2}\Z"
)
_SEPARATORS = " ._-"
# Stands for a part that was removed; names that land have no control characters.
_CUT = "\0"
_BRACKETS = re.compile(rf"[(\[（][ ._-]*{_CUT}[{_CUT} ._-]*[)\]）]")
# A run of separators is tried from its start only, and never given back: else it costs its length squared.
_RUN_START = "(?<![ ._-])"
_BEFORE_CUT = re.compile(rf"{_RUN_START}[ ._-]++(?={_CUT})")
# The year of a date that is not near, such as 20-NOV-2024, is no sequence number.
_NO_MONTH = rf"(?<!(?:{'|'.join(_MONTHS)})[ ._-])"
_SEQUENCE_AT_END = re.compile(
    rf"(?i)(?:{_RUN_START}[ ._-]++{_NO_MONTH}[0-9]{{1,4}}|\.v[0-9]{{1,3}}"
    rf"|{_RUN_START}[ ._-]*+[(\[（][0-9]{{1,4}}[)\]）])++[ ._-]*+\Z"
)
_SEQUENCE_AT_START = re.compile(rf"\A{_CUT}?[ ._-]*[0-9]{{1,4}}[ ._-]+")


class ReportName(NamedTuple):
    """Report and business date of a file.

    :param report: the report code, which is the same every day.
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

        naming = Naming(customer="CXYZ")
        naming.read("CXYZ_TP001_20261120_001.csv", mtime, now).report  # "TP001"

    :param pattern: a regex to search in a file's name, with a named group ``report``, or ``date`` (YYYYMMDD
        or YYYY-MM-DD), or both. A group that matches takes precedence over the built-in rule.
    :param customer: the DCASS customer code, such as ``CXYZ``. It is left out of report codes, alone or in an
        account such as ``DCXYZ001`` (§3.1); None leaves nothing out.
    :raises RapConfigurationError: if *pattern* is not a valid regex, or has neither group.
    """

    def __init__(self, pattern: str | None = None, *, customer: str | None = None) -> None:
        self.pattern = pattern
        self._regex = None if pattern is None else _compile(pattern)
        self._customer = None if customer is None else _compile_customer(customer)
        # A run asks for each file's name several times: to plan it, to land it, to judge it.
        self._remembered: dict[str | tuple[str, pendulum.DateTime], ReportName] = {}
        self._distinct: dict[ReportName, ReportName] = {}

    def read(self, name: str, mtime: int | None, first_seen: pendulum.DateTime) -> ReportName:
        """Return the report code and the business date of a file with any name.

        The report code is the name without customer code, dates, months, times, sequence numbers and
        extension, so that it is the same every day. If nothing else is in the name, the customer code stays
        in it, else the sequence numbers stay, else the whole name but its extension.

        The business date is the first YYYYMMDD in the name, alone or at the start of a timestamp, that is
        valid and within ten days of the file's mtime. If there is none, it is the mtime's day in Hong Kong; a
        time before 07:00 belongs to the trading day before.

        A name that is too long to land is not read: its code is its first `NAME_BYTES`, and its mtime gives
        the date.

        :param name: the file's name on RAP.
        :param mtime: the file's modification time, in seconds since the epoch; None if RAP sends none.
        :param first_seen: when the file was first listed; used if *mtime* is None or cannot be the file's
            time, such as one that is more than a day later.
        """
        times = (mtime, None) if is_time(mtime, first_seen) else (None, first_seen)
        if is_too_long(name):
            return _unread(name, *times)
        # One text takes half the memory of a tuple, and nearly every file has an mtime.
        key = (name, first_seen) if times[0] is None else f"{name}/{mtime}"
        read = self._remembered.get(key)
        if read is None:
            read = self._read(name, *times)
            # The first names are kept, and not the last: a longer listing is read from its start each time.
            if len(self._remembered) < _REMEMBERED:
                # All files of a report and day share one object.
                read = self._remembered[key] = self._distinct.setdefault(read, read)
        return read

    def _read(self, name: str, mtime: int | None, first_seen: pendulum.DateTime | None) -> ReportName:
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
        if not report:
            report = self._code(name, [(stamp.start, stamp.end) for stamp in stamps], written)
        return ReportName(report, business_date, rule)

    def _given(self, name: str) -> tuple[str | None, _Stamp | None]:
        """Return the report and the date that the user's regex finds in a name."""
        match = self._regex.search(name) if self._regex else None
        if match is None:
            return None, None
        groups = match.groupdict()
        date = _parse(groups.get("date"))
        return groups.get("report"), _Stamp(date, *match.span("date")) if date else None

    def _code(self, name: str, stamps: list[tuple[int, int]], written: datetime) -> str:
        """Return the report code in a name, of which the spans in *stamps* are dates and times."""
        dateless = _cut(name, [*stamps, *_near_stamps(name, written)])
        bare = dateless if self._customer is None else self._customer.sub(_CUT, dateless)
        ways = (_without_sequence, bare), (_without_sequence, dateless), (_with_sequence, dateless)
        for shorten, text in ways:
            code = shorten(text)
            if any(map(str.isalnum, code)):
                return code
        return _without_extension(name)


def _unread(name: str, mtime: int | None, first_seen: pendulum.DateTime | None) -> ReportName:
    written, rule = _written(mtime, first_seen)
    code = name[:NAME_BYTES].encode(errors="replace")[:NAME_BYTES].decode(errors="ignore")
    return ReportName(code, _day(written), rule)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        regex = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        why = f"It is not a valid regular expression: {error}."
    except TypeError:
        why = "It is not a text."
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


def _written(mtime: int | None, first_seen: pendulum.DateTime | None) -> tuple[datetime, str]:
    """Return the file's time in Hong Kong, and the rule that it comes from; one of the two is None."""
    if first_seen is not None:
        return first_seen.in_timezone(HONG_KONG), "first_seen"
    # Not with pendulum, whose conversion takes as long as reading the rest of the name.
    return datetime.fromtimestamp(mtime or 0, HONG_KONG), "mtime"


def _is_near(day: date, written: datetime) -> bool:
    # Any eight digits may form a date, but seldom a date that RAP still keeps.
    return abs(day.toordinal() - written.toordinal()) <= RETENTION_DAYS


def _day(written: datetime) -> pendulum.Date:
    day = pendulum.Date(written.year, written.month, written.day)
    time = timedelta(hours=written.hour, minutes=written.minute)
    return previous_trading_day(day) if time < DAY_OPENS else day


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


def _compile_customer(customer: str) -> re.Pattern[str]:
    code = re.escape(customer)
    return re.compile(rf"(?ia)(?<![a-z0-9])(?:{code}|D{code}00[1-4])(?![a-z0-9])")


def _near_stamps(name: str, written: datetime) -> Iterator[tuple[int, int]]:
    """Yield the spans of dates and months in a name that are near the file's time."""
    for number in _NUMBER.finditer(name):
        start = _date_in_number(number[0], written)
        if start is not None:
            yield number.start() + start, number.end()
    for form in _DAYS:
        for match in form.finditer(name):
            a, b, c = match.group("a", "b", "c")
            if _is_day(a, b, c, written) or _is_day(c, b, a, written):
                yield match.span("all")
    for form in _MONTH_STAMPS:
        for match in form.finditer(name):
            # A date that is not near is no month either.
            day = match.start("m") < match.start("y") and _DAY_BEFORE.search(name, 0, match.start())
            if not day and _is_month(match["y"], match["m"], written):
                yield match.span()


def _date_in_number(digits: str, written: datetime) -> int | None:
    """Return the index at which a date or a month starts in six or more digits; None if none does.

    A time or a sequence number may follow YYYYMMDD, and the digits of a report code may precede it.
    """
    for start in range(len(digits) - 7):
        if _is_day(
            digits[start : start + 4], digits[start + 4 : start + 6], digits[start + 6 : start + 8], written
        ):
            return start
    a, b, c = digits[:2], digits[2:4], digits[4:6]
    if _TIME_OF_DAY.fullmatch(digits[6:]) and (_is_day(a, b, c, written) or _is_day(c, b, a, written)):
        return 0
    if _TIME_OF_DAY.fullmatch(digits[8:]) and _is_day(digits[4:8], b, a, written):
        return 0
    is_month = len(digits) == 6 and (
        _is_month(digits[:4], digits[4:], written) or _is_month(digits[2:], digits[:2], written)
    )
    return 0 if is_month else None


def _is_day(year: str, month: str, day: str, written: datetime) -> bool:
    """Return whether three parts are a date near the file's time; the year has two or four digits."""
    if len(year) not in (2, 4):
        return False
    try:
        return _is_near(date(_year(year), _month(month), int(day)), written)
    except ValueError:
        return False


def _is_month(year: str, month: str, written: datetime) -> bool:
    """Return whether two parts are the month of the file's time, the next, or one of the two before."""
    number = _month(month)
    return 1 <= number <= 12 and -1 <= 12 * (written.year - _year(year)) + written.month - number <= 2


def _year(text: str) -> int:
    return int(text) + (2000 if len(text) == 2 else 0)


def _month(text: str) -> int:
    return int(text) if text.isdigit() else _MONTHS.index(text[:3].lower()) + 1


def _cut(name: str, spans: list[tuple[int, int]]) -> str:
    """Return a name with a mark in the place of each date, and of the times in a name that has a date."""
    if not spans:
        return name
    spans = [(start, _end_of_time(name, end)) for start, end in spans]
    spans += [match.span() for match in _TIME.finditer(name)]
    pieces, end = [], 0
    for start, stop in sorted(spans):
        if stop > end:
            pieces.append(name[end : max(start, end)])
            end = stop
    return _CUT.join([*pieces, name[end:]])


def _end_of_time(name: str, end: int) -> int:
    after = _AFTER_DATE.match(name, end)
    return after.end() if after else end


def _without_sequence(text: str) -> str:
    """Return a cut name without its extension and the sequence numbers at its start and end."""
    text = _SEQUENCE_AT_END.sub("", _join(text))
    text = _SEQUENCE_AT_END.sub("", _EXTENSION.sub("", text))
    return _trim(_SEQUENCE_AT_START.sub("", text))


def _with_sequence(text: str) -> str:
    """Return a cut name without its extension."""
    return _trim(_EXTENSION.sub("", _join(text)))


def _join(text: str) -> str:
    """Return a cut name without its marks, their brackets and the separators before them.

    A mark at its start stays, so that `_trim` knows it.
    """
    text = _BEFORE_CUT.sub("", _BRACKETS.sub(_CUT, text))
    return text[:1] + text[1:].replace(_CUT, "")


def _trim(text: str) -> str:
    return text.lstrip(_SEPARATORS + _CUT) if text.startswith(_CUT) else text


def _without_extension(name: str) -> str:
    stem = _EXTENSION.sub("", name)
    return stem if stem.strip(_SEPARATORS) else name
