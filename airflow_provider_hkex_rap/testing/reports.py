"""Reports of a trading day as RAP might publish them; their names imitate those of the guide."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import cycle, islice
from random import Random

import pendulum

from airflow_provider_hkex_rap.rap.calendar import next_trading_day
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.testing._documents import generated_content
from airflow_provider_hkex_rap.testing._tree import ServedFile

_MEDIAN_BYTES = 14_000
_SIGMA = 1.3


@dataclass(frozen=True, slots=True)
class ReportKind:
    """One report of the catalogue.

    :param folder: the folder of the report.
    :param name: the file name, with the fields ``customer``, ``date`` (YYYYMMDD), ``stamp`` (YYYYMMDDHHMMSS)
        and ``month`` (YYYYMM).
    :param hours: earliest and latest time of publication, in hours after midnight of the business date; 24
        and more are on the next day.
    :param monthly: whether the report is published only on the last trading day of a month.
    """

    folder: Folder
    name: str
    hours: tuple[float, float]
    monthly: bool = False


_DAY, _EVENING, _NIGHT = (8.0, 17.0), (18.5, 23.9), (24.05, 25.15)

CATALOGUE = (
    ReportKind(Folder.DCASS, "TP001_{customer}_{date}.csv", _EVENING),
    ReportKind(Folder.DCASS_OTHERS, "RPI03_{customer}_{date}.csv", _EVENING),
    ReportKind(Folder.HKCC_SEOCH_CCMS_GLOB, "CCMS_COLLATERAL_{customer}_{date}.csv", _EVENING),
    ReportKind(Folder.DCASS, "MS008_{customer}_{stamp}.txt", _DAY),
    ReportKind(Folder.DCASS, "OI002_{customer}_{date}.csv", _NIGHT),
    ReportKind(Folder.DCASS_OTHERS, "RX_AUDIT_{customer}_{stamp}.csv", _DAY),
    ReportKind(Folder.HKCC_SEOCH_CCMS_GLOB, "CCMS_PRICE_{date}.zip", _DAY),
    ReportKind(Folder.DCASS, "TR003_{customer}_{date}.txt", _NIGHT),
    ReportKind(Folder.DCASS, "FEE_SCHEDULE.txt", _EVENING),
    ReportKind(Folder.DCASS_OTHERS, "SERIES_{date}.zip", _NIGHT),
    ReportKind(Folder.HKCC_SEOCH_CCMS_GLOB, "CCMS_STATEMENT_{customer}_{stamp}.pdf", _EVENING),
    ReportKind(Folder.DCASS, "MT001_{customer}_{month}.pdf", _NIGHT, monthly=True),
)


def generate_day(
    business_date: date, customer: str, *, reports: int = 40, seed: int = 0
) -> Iterator[ServedFile]:
    """Yield the reports of one business date; equal arguments give equal reports.

    The reports repeat the catalogue; from its second round on, their codes end in the number of the round,
    such as ``TP001X1``, so that each report of a day has a code of its own. Sizes are lognormal with a mean
    of about 33 kB. DCASS reports are published during the day and until about 01:10 of the next day, CCMS
    reports before midnight.

    The monthly reports are added on the last trading day of a month. If they replaced other reports, that day
    would lack usual ones.

    :param business_date: the business date of the reports.
    :param customer: the DCASS customer code.
    :param reports: number of reports, without the monthly ones.
    :param seed: another seed gives other sizes, times and content.
    """
    random = Random(f"{seed} {customer} {business_date:%Y%m%d}")  # noqa: S311
    month_ends = next_trading_day(business_date).month != business_date.month
    daily = [kind for kind in CATALOGUE if not kind.monthly]
    monthly = [kind for kind in CATALOGUE if kind.monthly and month_ends]
    midnight = pendulum.datetime(business_date.year, business_date.month, business_date.day, tz=HONG_KONG)
    for number, kind in enumerate((*islice(cycle(daily), reports), *monthly)):
        at = midnight + timedelta(hours=random.uniform(*kind.hours))
        copy = 0 if kind.monthly else number // len(daily)
        form = re.sub(r"(?=_\{|\.)", f"X{copy}", kind.name, count=1) if copy else kind.name
        name = form.format(
            customer=customer,
            date=f"{business_date:%Y%m%d}",
            month=f"{business_date:%Y%m}",
            stamp=f"{at:%Y%m%d%H%M%S}",
        )
        size = round(random.lognormvariate(math.log(_MEDIAN_BYTES), _SIGMA))
        body = generated_content(name, size, f"{name} {business_date:%Y%m%d} {seed} {customer}")
        yield ServedFile(kind.folder.path, name.encode(), body, at.int_timestamp, since=at.timestamp())
