"""``airflow hkex-rap doctor``: check the setup of RAP tasks, one line for each check."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.cli.command import FAILED, LAKE_VARIABLE, NO_CONNECTION, command, lake_uri
from airflow_provider_hkex_rap.cli.status import describe_end, describe_warning
from airflow_provider_hkex_rap.lake.layout import MANIFESTS
from airflow_provider_hkex_rap.lake.opening import open_lake
from airflow_provider_hkex_rap.lake.preflight import check_lake
from airflow_provider_hkex_rap.lake.refusals import refusal
from airflow_provider_hkex_rap.rap.errors import (
    RapAlgorithmError,
    RapConfigurationError,
    RapError,
    RapHostKeyError,
    RapPermissionDenied,
)
from airflow_provider_hkex_rap.rap.folders import Folder, Service
from airflow_provider_hkex_rap.rap.key_lifecycle import login_days_left
from airflow_provider_hkex_rap.rap.service_hours import is_open, next_opening, window

if TYPE_CHECKING:
    from argparse import Namespace

    import pendulum

    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
    from airflow_provider_hkex_rap.keystore.record import KeyRecord
    from airflow_provider_hkex_rap.keystore.store import AccountKeys
    from airflow_provider_hkex_rap.rap.sites import Address
    from airflow_provider_hkex_rap.runner.runner import SessionRunner
    from airflow_provider_hkex_rap.transport.login import Login
    from airflow_provider_hkex_rap.transport.probe import Probe

_OK, _NOTE, _WARN, _FAIL = "ok", "-", "warn", "FAIL"
_SECONDS_APART = 60
"""Seconds of clock skew that count as a failure: by default a report is stable after a minute."""


class Finding(NamedTuple):
    """The result of one check.

    :param state: ``ok``; ``-`` if nothing was checked; ``warn``; or ``FAIL``.
    :param check: the name of the check.
    :param found: the result, with advice if there is a problem.
    """

    state: str
    check: str
    found: str

    def __str__(self) -> str:
        return f"{self.state:<5} {self.check:<13} {self.found}"


@command
def doctor(args: Namespace) -> int:
    """Print a line for each check; fail if one failed."""
    failed = False
    for finding in _findings(args):
        print(finding, flush=True)
        failed |= finding.state == _FAIL
    return FAILED if failed else 0


def _findings(args: Namespace) -> Iterator[Finding]:
    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource

    source = AirflowLoginSource(args.conn_id)
    login = yield from _check_connection(source)
    now = None
    if login:
        now = yield from _check_clock(source)
        yield from _check_addresses(login)
    if now:
        yield from _check_hours(now)
    if login and now:
        yield from _check_keys(source, now)
    yield from _check_pools()
    yield from _check_lock_directory(source)
    yield from _check_lake(args.lake)
    if args.login and login and now:
        yield from _check_login(source, now)


def _check_connection(source: AirflowLoginSource) -> Generator[Finding, None, Login | None]:
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        source.check()
        login = source.login
    except AirflowNotFoundException:
        yield Finding(_FAIL, "connection", f"There is no connection {source.conn_id!r}. {NO_CONNECTION}")
        return None
    except RapConfigurationError as error:
        yield Finding(_FAIL, "connection", str(error))
        return None
    keys = ", ".join(key.fingerprint for key in login.client_keys)
    own = f"its own key {keys}" if keys else "no key of its own"
    yield Finding(_OK, "connection", f"{source.conn_id}: {login.account} at the {login.site} site, {own}.")
    return login


def _check_clock(source: AirflowLoginSource) -> Generator[Finding, None, pendulum.DateTime | None]:
    from airflow.configuration import conf

    try:
        now = source.clock()
    except RapConfigurationError as error:
        yield Finding(_FAIL, "clock", str(error))
        return None
    shown = f"{now:YYYY-MM-DD HH:mm:ss} HKT"
    if offset := conf.getfloat("hkex_rap", "clock_offset", fallback=0.0):
        found = f"{shown}, shifted by {offset:g} s: [hkex_rap] clock_offset is for trials."
        yield Finding(_WARN, "clock", found)
    else:
        yield Finding(_OK, "clock", f"{shown}; --login compares it with RAP's newest file.")
    return now


def _check_addresses(login: Login) -> Iterator[Finding]:
    from airflow_provider_hkex_rap.transport.probe import probe

    async def outcome(address: Address) -> Probe | RapError:
        try:
            return await probe(login, address)
        except RapError as error:
            return error

    async def outcomes() -> list[Probe | RapError]:
        return await asyncio.gather(*map(outcome, login.addresses))

    probes = asyncio.run(outcomes())
    one_works = not all(isinstance(found, RapError) for found in probes)
    for address, found in zip(login.addresses, probes, strict=True):
        yield from _address_findings(address, found, login, one_works=one_works)


def _address_findings(
    address: Address, found: Probe | RapError, login: Login, *, one_works: bool
) -> Iterator[Finding]:
    if isinstance(found, RapHostKeyError | RapAlgorithmError):
        yield Finding(_OK, "address", f"{address} answers.")
        check = "host key" if isinstance(found, RapHostKeyError) else "algorithms"
        yield Finding(_FAIL, check, str(found))
    elif isinstance(found, RapError):
        # A login tries the next address, so one that is down is only a warning.
        yield Finding(_WARN if one_works else _FAIL, "address", str(found))
    else:
        yield Finding(_OK, "address", f"{address} answers.")
        # A GCM cipher is its own MAC.
        agreed = ", ".join(dict.fromkeys((found.cipher, found.mac)))
        yield Finding(_OK, "algorithms", f"{address}: {agreed} (§2.1).")
        if login.host_keys is None:
            yield Finding(
                _WARN,
                "host key",
                f"{address} shows {found.host_key_fingerprint} and nothing is pinned. Confirm it with HKEX,"
                f" then set 'host_key' to {found.host_key!r} and remove 'no_host_key_check'.",
            )
        else:
            yield Finding(_OK, "host key", f"{address} shows the pinned {found.host_key_fingerprint}.")


def _check_hours(now: pendulum.DateTime) -> Iterator[Finding]:
    for service in Service:
        opening = next_opening([service], now)
        if opening > now:
            found = f"closed until {opening:ddd YYYY-MM-DD HH:mm} HKT; tasks wait for it (§4.1)."
        else:
            # DCASS may have opened the day before.
            hours = (window(service, day) for day in (now.date(), now.date().subtract(days=1)))
            closes = next(opened.closes for opened in hours if opened and now in opened)
            found = f"open until {closes:ddd YYYY-MM-DD HH:mm} HKT (§4.1)."
        yield Finding(_OK if opening == now else _NOTE, f"{service} hours", found)


def _check_keys(source: AirflowLoginSource, now: pendulum.DateTime) -> Iterator[Finding]:
    """Check the key store, the keys in it, and how long the current one logs in; nothing is sent."""
    account = source.login.account
    try:
        keys = source.keys.read()
        record, unreadable = keys.record, _unreadable_keys(keys)
    except RapError as error:
        yield Finding(_FAIL, "key store", str(error))
        return
    # A custom class may raise anything, and its message may contain a secret.
    except Exception as error:
        found = f"{type(error).__name__} in the custom class of 'key_store'. Test it with KeyStoreContract."
        yield Finding(_FAIL, "key store", found)
        return
    kept = len(list(record.keys))
    if unreadable:
        yield from unreadable
    elif kept and (exposed := _exposed(source)):
        yield Finding(_WARN, "key store", exposed)
    elif kept or source.login.client_keys:
        found = f"keys of {account}: {kept}" if kept else f"no key yet; the first login of {account} adds it"
        yield Finding(_OK, "key store", f"It can be read; {found}.")
    else:
        yield Finding(
            _FAIL,
            "key store",
            f"It has no key of {account}, and neither has the connection. Set the extra 'key_file' or"
            " 'private_key', or register a key: airflow hkex-rap register (§5).",
        )
    record = source.keys.with_known_expiry(record)
    yield from _check_key_end(record, now.date(), source.key_expires)


def _unreadable_keys(keys: AccountKeys) -> list[Finding]:
    """Return a finding for each key that the connection's passphrase does not open."""
    findings = []
    for key in keys.record.keys:
        try:
            keys.check_opens(key)
        except RapConfigurationError as error:
            findings.append(Finding(_FAIL, "key store", f"{key.fingerprint}: {error}"))
    return findings


def _exposed(source: AirflowLoginSource) -> str:
    """Return a warning if Airflow shows the private keys that it keeps; else an empty text."""
    from airflow.configuration import conf

    from airflow_provider_hkex_rap.keystore.variable import VariableKeyStore

    todo = "the extra 'private_key_passphrase', which new keys are encrypted by."
    if not isinstance(source.key_store, VariableKeyStore) or source.key_passphrase:
        return ""
    if not conf.get("core", "fernet_key", fallback=""):
        return (
            "Airflow has no Fernet key, so that private keys are in its database in clear text. Set [core]"
            f" fernet_key, or {todo}"
        )
    if conf.get("logging", "logging_level", fallback="").upper() == "DEBUG":
        return (
            "At [logging] logging_level DEBUG Airflow writes the Variables that tasks set into its logs,"
            f" private keys too. Log at INFO, or set {todo}"
        )
    return ""


def _check_key_end(
    record: KeyRecord, today: pendulum.Date, key_expires: pendulum.Date | None
) -> Iterator[Finding]:
    current, waiting = record.current, record.unregistered
    if waiting:
        found = f"{waiting.fingerprint} waits for its registration with HKEX (§5)."
        yield Finding(_NOTE, "new key", found)
    if current is None:
        return
    warning = describe_end(record, today, key_expires)
    if current.last_day is None:
        found = f"{current.fingerprint}: {warning} {describe_warning(record)}"
        yield Finding(_WARN, "current key", found.rstrip())
        return
    left = login_days_left(current.last_day, today)
    state = _FAIL if not left else _WARN if warning else _OK
    found = f"{current.fingerprint}: days left {left}, the last {current.last_day}."
    about = (found, warning, describe_warning(record))
    yield Finding(state, "current key", " ".join(filter(None, about)))


def _check_pools() -> Iterator[Finding]:
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_provider_hkex_rap.cli.init import pool_slots

    try:
        pools = pool_slots()
    except SQLAlchemyError as error:
        yield Finding(
            _FAIL,
            "pools",
            f"Airflow's database cannot be read ({type(error).__name__}). Run airflow db migrate.",
        )
        return
    for name, slots in pools.items():
        if slots is None:
            yield Finding(
                _FAIL, "pool", f"{name} does not exist: its tasks never start. Run airflow hkex-rap init."
            )
        elif slots != 1:
            yield Finding(
                _WARN,
                "pool",
                f"{name} has {slots} slots: tasks end each other's sessions (§4.3). Give it one.",
            )
        else:
            yield Finding(_OK, "pool", f"{name} has one slot.")


def _check_lock_directory(source: AirflowLoginSource) -> Iterator[Finding]:
    from airflow_provider_hkex_rap.runner.account_lock import make_lock_directory

    try:
        directory = make_lock_directory(source.lock_directory)
    except RapConfigurationError as error:
        yield Finding(_FAIL, "lock", str(error))
    else:
        yield Finding(_OK, "lock", f"{directory} keeps this host's logins of one account apart (§4.3).")


def _check_lake(given: str | None) -> Iterator[Finding]:
    uri = lake_uri(given)
    if uri is None:
        yield Finding(_NOTE, "lake", f"Not checked: there is no --lake and no Variable {LAKE_VARIABLE}.")
        return
    try:
        lake = open_lake(uri)
        leftover = check_lake(lake)
        has_manifests = lake.names(MANIFESTS)
    except RapError as error:
        yield Finding(_FAIL, "lake", str(error))
        return
    # The rights may differ from one directory to another.
    except Exception as error:
        refused = refusal(f"{lake.uri_of(MANIFESTS)} cannot be listed", lake.uri, error)
        yield Finding(_FAIL, "lake", str(refused))
        return
    content = "it has manifests" if has_manifests else "nothing has landed in it yet"
    yield Finding(_OK, "lake", f"{lake.uri} takes new files, lists them and keeps them; {content}.")
    if leftover:
        yield Finding(
            _NOTE, "lake", f"{leftover} was written by this check and may not be removed; it is harmless."
        )


def _check_login(source: AirflowLoginSource, now: pendulum.DateTime) -> Iterator[Finding]:
    from airflow_provider_hkex_rap.runner.policy import ATTENDED
    from airflow_provider_hkex_rap.runner.runner import SessionRunner

    services = [service for service in Service if is_open([service], now)]
    if not services:
        opening = min(next_opening([service], now) for service in Service)
        yield Finding(
            _NOTE, "login", f"Not tried: RAP is closed. Run it after {opening:ddd YYYY-MM-DD HH:mm} HKT."
        )
        return
    yield Finding(
        _NOTE, "login", f"Logging in ends a session of {source.login.account} that is open elsewhere (§4.3)."
    )

    runner = SessionRunner(source, ATTENDED)

    async def findings() -> list[Finding]:
        return [finding async for finding in _log_in(runner, source, services)]

    try:
        yield from runner.run(findings)
    except RapError as error:
        yield Finding(_FAIL, "login", str(error))


async def _log_in(
    runner: SessionRunner, source: AirflowLoginSource, services: list[Service]
) -> AsyncIterator[Finding]:
    newest = 0
    async with runner.session() as session:
        yield Finding(
            _OK,
            "login",
            f"{source.login.account} at {session.address} with key {session.client_key_fingerprint}.",
        )
        for folder in (folder for folder in Folder if folder.service in services):
            try:
                files = await session.list_folder(folder)
            except RapPermissionDenied as error:
                yield Finding(_WARN, "folder", str(error))
            else:
                newest = max([newest, *(file.mtime or 0 for file in files)])
                yield Finding(_OK, "folder", f"{folder.path} lists {len(files)} entries.")
    yield _clock_finding(newest, source.clock())


def _clock_finding(newest: int, now: pendulum.DateTime) -> Finding:
    """Compare our clock with the newest file: SSH has no clock, and no file is newer than now."""
    ahead = newest - now.timestamp()
    if not newest:
        return Finding(_NOTE, "clock skew", "Not measurable: RAP lists no file with a time.")
    if ahead > _SECONDS_APART:
        return Finding(
            _FAIL,
            "clock skew",
            f"RAP's newest file is {ahead:.0f} s ahead of our clock. Synchronise this machine's clock (NTP).",
        )
    return Finding(_OK, "clock skew", "RAP's newest file is not ahead of our clock.")
