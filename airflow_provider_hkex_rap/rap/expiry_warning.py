"""Read the file by which RAP warns daily that a key expires soon (§6.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pendulum

from airflow_provider_hkex_rap.rap.keys import find_fingerprints
from airflow_provider_hkex_rap.rap.printable import printable

EXPIRY_WARNING_FILE = "SSHKeyExpireWarning.txt"
"""The name of the warning file in the key folder."""
_MOST_LINES = 100

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_NAME = rf"(?P<{{}}>{'|'.join(_MONTHS)})[a-z]*\.?"
_DATE = re.compile(
    r"(?<!\d)(?:"
    r"(?P<y1>20\d\d)(?P<s1>[-/.]?)(?P<m1>\d\d)(?P=s1)(?P<d1>\d\d)"
    r"|(?P<d2>\d{1,2})(?P<s2>[-/.])(?P<m2>\d{1,2})(?P=s2)(?P<y2>20\d\d)"
    rf"|(?P<d3>\d{{1,2}})[\s-]+{_MONTH_NAME.format('m3')}[\s,-]+(?P<y3>20\d\d)"
    r")(?!\d)"
    rf"|\b{_MONTH_NAME.format('m4')}\s+(?P<d4>\d{{1,2}}),?\s+(?P<y4>20\d\d)(?!\d)",
    re.IGNORECASE | re.ASCII,
)


class ExpiryWarning(NamedTuple):
    """The content of a warning file. The guide does not specify its text, so it is read leniently."""

    text: str
    """The text, printable line by line, and at most 100 lines of it."""
    fingerprints: tuple[str, ...]
    """The fingerprints in the order of the text, as `find_fingerprints` returns them."""
    dates: tuple[pendulum.Date, ...]
    """The dates in the order of the text."""

    @classmethod
    def parse(cls, content: bytes) -> ExpiryWarning:
        """Read a warning file; any text is accepted.

        :param content: the file's bytes. Dates are read as ``2026-02-28``, ``2026/02/28``, ``20260228``,
            ``28/02/2026`` (day first, as in Hong Kong), ``28 Feb 2026`` and ``February 28, 2026``.
        """
        text = content.decode("utf-8-sig", "replace")
        lines = text.splitlines()[:_MOST_LINES]
        return cls("\n".join(map(printable, lines)), find_fingerprints(text), tuple(_dates(text)))


def _dates(text: str) -> Iterator[pendulum.Date]:
    for match in _DATE.finditer(text):
        day, month, year = (next(filter(None, map(match.group, _groups(part)))) for part in "dmy")
        number = int(month) if month.isdecimal() else _MONTHS.index(month[:3].lower()) + 1
        try:
            yield pendulum.Date(int(year), number, int(day))
        except ValueError:
            continue


def _groups(part: str) -> list[str]:
    return [f"{part}{form}" for form in (1, 2, 3, 4)]
