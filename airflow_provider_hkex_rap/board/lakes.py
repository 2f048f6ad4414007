"""Find and read the lakes that the board shows, and the customers in each."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.lake.grid import Landed, read_landed
from airflow_provider_hkex_rap.lake.layout import MANIFESTS
from airflow_provider_hkex_rap.lake.manifest import window
from airflow_provider_hkex_rap.lake.opening import open_lake
from airflow_provider_hkex_rap.lake.refusals import refusing
from airflow_provider_hkex_rap.rap.account import parse_customer
from airflow_provider_hkex_rap.rap.errors import LakeError, RapConfigurationError, RapError
from airflow_provider_hkex_rap.rap.folders import Folder

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.lake.store import Lake

LAKE_VARIABLE = "hkex_rap_lake"
OPTION = "[hkex_rap] board_lakes"


@dataclass(slots=True)
class ShownCustomer:
    """What a lake has of a customer.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param landed: what has landed of the days around today.
    :param problems: a text for each line of the manifest that is not valid.
    :param error: why the manifest cannot be read, and the next step; None if it can.
    """

    customer: str
    landed: Landed = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    error: str | None = None


@dataclass(slots=True)
class ShownLake:
    """One lake of the board.

    :param uri: its URI.
    :param customers: the customers of which it has a manifest.
    :param error: why the lake cannot be read, and the next step; None if it can.
    """

    uri: str
    customers: list[ShownCustomer] = field(default_factory=list)
    error: str | None = None


def read_lakes(now: pendulum.DateTime) -> list[ShownLake]:
    """Read the manifests of all lakes of the board; an error in one hides no other.

    :param now: the time in Hong Kong.
    :raises RapConfigurationError: if no lake is named.
    """
    return [_read_lake(uri, now) for uri in lake_uris()]


def _read_lake(uri: str, now: pendulum.DateTime) -> ShownLake:
    try:
        lake = open_lake(uri)
        return ShownLake(uri, [_read_customer(lake, customer, now) for customer in customers_of(lake)])
    except RapError as error:
        return ShownLake(uri, error=str(error))


def _read_customer(lake: Lake, customer: str, now: pendulum.DateTime) -> ShownCustomer:
    shown = ShownCustomer(customer)
    try:
        with reading(lake.uri):
            shown.landed = asyncio.run(
                read_landed(lake, customer, tuple(Folder), window(now.date()), shown.problems)
            )
    except RapError as error:
        shown.error = str(error)
    return shown


def lake_uris() -> list[str]:
    """Return the URIs of the lakes: those of the option, or else that of the Airflow Variable.

    :raises RapConfigurationError: if neither names a lake.
    """
    from airflow.configuration import conf
    from airflow.models.variable import Variable

    configured = conf.get("hkex_rap", "board_lakes", fallback="")
    uris = [part.strip() for part in re.split(r"[,\n]", configured)]
    if not any(uris):
        uris = [str(Variable.get(LAKE_VARIABLE, default_var=None) or "").strip()]
    found = list(dict.fromkeys(filter(None, uris)))
    if not found:
        raise RapConfigurationError(
            "The board does not know the lake.",
            why=f"Neither the Airflow Variable {LAKE_VARIABLE} nor the option {OPTION} is set, as the API"
            " server sees them.",
            todo=f"Set {LAKE_VARIABLE} to the root of the lake, such as s3://aws_default@bucket/rap: in the"
            " menu Admin, Variables.",
        )
    return found


def customers_of(lake: Lake) -> list[str]:
    """Return the customers of which a lake has a manifest, sorted.

    :param lake: the lake.
    :raises LakeError: if the lake cannot be read, or has no manifest of any customer.
    """
    with reading(lake.uri):
        directories = lake.list_directory(MANIFESTS).directories
    customers = sorted(filter(_is_customer, (path.rpartition("/")[2] for path in directories)))
    if not customers:
        raise LakeError(
            f"The API server sees no manifest in {lake.uri}.",
            why="Nothing has landed there yet, or the API server does not have the disk on which the workers"
            " land.",
            todo="If reports have landed, mount that disk on the machine of the API server at the same path."
            " Else run the download task.",
            uri=lake.uri,
            cause="no manifest",
        )
    return customers


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turn the errors of a block that reads a lake into errors that say what the API server lacks.

    :param uri: the URI of the lake.
    :raises LakeError: if a storage call failed.
    """
    with refusing(f"The API server cannot read the manifest of {uri}", uri):
        yield


def open_configured(uri: str) -> Lake:
    """Open a lake that the board shows; nobody else's URI.

    :param uri: one of `lake_uris`.
    :raises RapConfigurationError: if it is none of them, or cannot be opened.
    """
    if uri not in lake_uris():
        raise RapConfigurationError(
            "The board does not show this lake.",
            why=f"It shows those of the Variable {LAKE_VARIABLE} or of the option {OPTION}.",
            todo="Open the board without 'lake'.",
        )
    return open_lake(uri)


def lake_with(customer: str) -> Lake:
    """Return the first lake with a manifest of a customer.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :raises RapConfigurationError: if no lake has one.
    :raises LakeError: if a lake that may have one cannot be read.
    """
    for uri in lake_uris():
        lake = open_lake(uri)
        with reading(lake.uri):
            if lake.list_directory(f"{MANIFESTS}/{customer}").directories:
                return lake
    raise RapConfigurationError(
        f"No lake of the board has a manifest of {customer}.", todo="Check the customer code in the address."
    )


def _is_customer(name: str) -> bool:
    try:
        return bool(parse_customer(name))
    except RapConfigurationError:
        return False
