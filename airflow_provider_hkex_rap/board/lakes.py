"""Find the lakes that the board shows and the customers in each, and read a customer's manifest."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.lake.extracts import Extract, ExtractCache, read_extracts
from airflow_provider_hkex_rap.lake.layout import MANIFESTS
from airflow_provider_hkex_rap.lake.manifest import window
from airflow_provider_hkex_rap.lake.opening import LAKE_VARIABLE, open_lake
from airflow_provider_hkex_rap.lake.refusals import refusing
from airflow_provider_hkex_rap.rap.account import parse_customer
from airflow_provider_hkex_rap.rap.errors import LakeError, RapConfigurationError, RapError
from airflow_provider_hkex_rap.rap.folders import Folder

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.lake.store import Lake

OPTION = "[hkex_rap] board_lakes"

# A month of five customers with 800 reports per day takes about 50 MB in each process of the API server.
_EXTRACTS = ExtractCache(files=100_000)


class LakeCustomers(NamedTuple):
    """A lake of the board, and the customers that have a manifest in it."""

    uri: str
    lake: Lake | None
    """None if it cannot be read."""
    customers: list[str]
    error: str | None


def find_customers() -> list[LakeCustomers]:
    """Return the lakes of the board with their customers; if one cannot be read, the others are still shown.

    :raises RapConfigurationError: if no lake is configured.
    """
    return [_find_customers(uri) for uri in lake_uris()]


def _find_customers(uri: str) -> LakeCustomers:
    try:
        lake = open_configured(uri)
        return LakeCustomers(uri, lake, customers_of(lake), None)
    except RapError as error:
        return LakeCustomers(uri, None, [], str(error))


def choose_customer(found: Iterable[LakeCustomers], customer: str | None) -> str | None:
    """Return the customer to show: the requested one, else the first; None if there is none.

    :param found: the lakes with their customers.
    :param customer: the DCASS customer code in the address, if any.
    """
    return customer or next((first for each in found for first in each.customers), None)


def read_customer(lake: Lake, customer: str, today: pendulum.Date) -> list[Extract]:
    """Return the extracts of a customer's manifest for the days around today.

    :param lake: the lake.
    :param customer: a customer whose manifest is in the lake.
    :param today: the date in Hong Kong.
    :raises LakeError: if the lake cannot be read.
    """
    with reading(lake.uri):
        return asyncio.run(read_extracts(lake, customer, tuple(Folder), window(today), _EXTRACTS))


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
    """Return the customers whose manifests are in a lake, sorted.

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
    """Open a lake that the board shows, and no other.

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
