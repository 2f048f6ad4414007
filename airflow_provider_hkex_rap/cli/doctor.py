"""``airflow hkex-rap doctor``: what RAP tasks need, one line a check."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap._lake import open_lake
from airflow_provider_hkex_rap.cli.command import FAILED, LAKE_VARIABLE, NO_CONNECTION, command, lake_uri
from airflow_provider_hkex_rap.cli.status import end_warning
from airflow_provider_hkex_rap.lake.layout import MANIFESTS, PART_PREFIX, PART_SUFFIX
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

    from airflow_provider_hkex_rap.hooks.rap import RapHook
    from airflow_provider_hkex_rap.keystore.record import KeyRecord
    from airflow_provider_hkex_rap.keystore.store import AccountKeys
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.sites import Address
    from airflow_provider_hkex_rap.transport.login import Login
    from airflow_provider_hkex_rap.transport.probe import Probe

_OK, _NOTE, _WARN, _FAIL = "ok", "-", "warn", "FAIL"
_SECONDS_APART = 60
"""Clocks further apart than this are worth a word: reports count as stable after a minute by default."""


class Finding(NamedTuple):
    """What one check found.

    :param state: ``ok``; ``-`` where nothing was checked; ``warn``; or ``FAIL``.
    :param check: what was checked.
    :param found: what is so, and where it is not right, what to do.
    """

    state: str
    check: str
    found: str

    def __str__(self) -> str:
        return f"{self.state:<5} {self.check:<13} {self.found}"


@command
def doctor(args: Namespace) -> int:
    """Print a line for each check; fail where one failed."""
    failed = False
    for finding in _findings(args):
        print(finding, flush=True)
        failed |= finding.state == _FAIL
    return FAILED if failed else 0


def _findings(args: Namespace) -> Iterator[Finding]:
    from airflow_provider_hkex_rap.hooks.rap import ATTENDED_LOCK_WAIT, RapHook

    hook = RapHook(args.conn_id)
    hook.lock_wait = ATTENDED_LOCK_WAIT
    login = yield from _check_connection(hook)
    now = None
    if login:
        now = yield from _check_clock(hook)
        yield from _check_addresses(login)
    if now:
        yield from _check_hours(now)
    if login and now:
        yield from _check_keys(hook, now)
    yield from _check_pools()
    yield from _check_lake(args.lake)
    if args.login and login and now:
        yield from _check_login(hook, now)


def _check_connection(hook: RapHook) -> Generator[Finding, None, Login | None]:
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        hook.check()
        login = hook.login
    except AirflowNotFoundException:
        yield Finding(_FAIL, "connection", f"There is no connection {hook.rap_conn_id!r}. {NO_CONNECTION}")
        return None
    except RapConfigurationError as error:
        yield Finding(_FAIL, "connection", str(error))
        return None
    keys = ", ".join(key.fingerprint for key in login.client_keys)
    own = f"its own key {keys}" if keys else "no key of its own"
    yield Finding(_OK, "connection", f"{hook.rap_conn_id}: {login.account} at the {login.site} site, {own}.")
    return login


def _check_clock(hook: RapHook) -> Generator[Finding, None, pendulum.DateTime | None]:
    from airflow.configuration import conf

    try:
        now = hook.clock()
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
        # A login goes on to the next address; one that is down is no reason to worry.
        yield Finding(_WARN if one_works else _FAIL, "address", str(found))
    else:
        yield Finding(_OK, "address", f"{address} answers.")
        # A cipher of the GCM kind is its own MAC.
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
            found = f"shut until {opening:ddd YYYY-MM-DD HH:mm} HKT; tasks wait for it (§4.1)."
        else:
            # DCASS may have opened on the day before.
            hours = (window(service, day) for day in (now.date(), now.date().subtract(days=1)))
            closes = next(opened.closes for opened in hours if opened and now in opened)
            found = f"open until {closes:ddd YYYY-MM-DD HH:mm} HKT (§4.1)."
        yield Finding(_OK if opening == now else _NOTE, f"{service} hours", found)


def _check_keys(hook: RapHook, now: pendulum.DateTime) -> Iterator[Finding]:
    """Check the key store, the keys in it, and how long the current one logs in; nothing is sent."""
    account = hook.login.account
    try:
        keys = hook.account_keys()
        record, unreadable = keys.record, _unreadable_keys(keys)
    except RapError as error:
        yield Finding(_FAIL, "key store", str(error))
        return
    # A class of the user's own fails in a way of its own, and its words may quote a secret.
    except Exception as error:
        found = (
            f"{type(error).__name__} in the class of 'key_store'. Test it with KeyStoreContract of"
            " testing.key_store_contract."
        )
        yield Finding(_FAIL, "key store", found)
        return
    kept = len(list(record.keys))
    if unreadable:
        yield from unreadable
    elif kept and (exposed := _exposed(hook)):
        yield Finding(_WARN, "key store", exposed)
    elif kept or hook.login.client_keys:
        found = f"keys of {account}: {kept}" if kept else f"no key yet; the first login of {account} adds it"
        yield Finding(_OK, "key store", f"It can be read; {found}.")
    else:
        yield Finding(
            _FAIL,
            "key store",
            f"It has no key of {account}, and neither has the connection. Set the extra 'key_file' or"
            " 'private_key', or register a key: airflow hkex-rap register (§5).",
        )
    yield from _check_key_end(record, now.date())


def _unreadable_keys(keys: AccountKeys) -> list[Finding]:
    """Return a finding for each key that the connection's passphrase does not open."""
    findings = []
    for key in keys.record.keys:
        try:
            keys.check_opens(key)
        except RapConfigurationError as error:
            findings.append(Finding(_FAIL, "key store", f"{key.fingerprint}: {error}"))
    return findings


def _exposed(hook: RapHook) -> str:
    """Say where Airflow would show the private keys that it keeps; nothing where it would not."""
    from airflow.configuration import conf

    from airflow_provider_hkex_rap.keystore.variable import VariableKeyStore

    todo = "the extra 'private_key_passphrase', which new keys are encrypted by."
    if not isinstance(hook.key_store, VariableKeyStore) or hook.key_passphrase:
        return ""
    if not conf.get("core", "fernet_key", fallback=""):
        return (
            "Airflow has no Fernet key, so that private keys stand in its database as they are. Set [core]"
            f" fernet_key, or {todo}"
        )
    if conf.get("logging", "logging_level", fallback="").upper() == "DEBUG":
        return (
            "At [logging] logging_level DEBUG Airflow writes the Variables that tasks set into its logs,"
            f" private keys too. Log at INFO, or set {todo}"
        )
    return ""


def _check_key_end(record: KeyRecord, today: pendulum.Date) -> Iterator[Finding]:
    current, waiting = record.current, record.unregistered
    if waiting:
        found = f"{waiting.fingerprint} waits for its registration with HKEX (§5)."
        yield Finding(_NOTE, "new key", found)
    if current is None:
        return
    warning = end_warning(current, today)
    if current.last_day is None:
        yield Finding(_WARN, "current key", f"{current.fingerprint}: {warning}")
        return
    left = login_days_left(current.last_day, today)
    state = _FAIL if not left else _WARN if warning else _OK
    found = f"{current.fingerprint}: days left {left}, the last {current.last_day}. {warning}"
    yield Finding(state, "current key", found.rstrip())


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
                _WARN, "pool", f"{name} has {slots} slots: tasks throw each other out (§4.3). Give it one."
            )
        else:
            yield Finding(_OK, "pool", f"{name} has one slot.")


def _check_lake(given: str | None) -> Iterator[Finding]:
    uri = lake_uri(given)
    if uri is None:
        yield Finding(_NOTE, "lake", f"Not checked: there is no --lake and no Variable {LAKE_VARIABLE}.")
        return
    try:
        lake = open_lake(uri)
        keeps, leftover = _try_writing(lake)
        has_manifests = lake.names(MANIFESTS)
    # A backend fails in a way of its own for a wrong bucket, region, permission or missing package.
    except Exception as error:
        yield Finding(
            _FAIL,
            "lake",
            f"{uri} cannot be written: {str(error).rstrip('.') or type(error).__name__}. Check the URI, the"
            " connection in its user part, and that connection's rights to list, read and create.",
        )
        return
    if keeps:
        content = "it has manifests" if has_manifests else "nothing has landed in it yet"
        yield Finding(_OK, "lake", f"{lake.uri} takes new files and keeps them; {content}.")
    else:
        yield Finding(
            _FAIL,
            "lake",
            f"{lake.uri} lets files be overwritten: its storage knows no exclusive create. Use another.",
        )
    if leftover:
        yield Finding(
            _NOTE, "lake", f"{leftover} was written by this check and may not be removed; it is harmless."
        )


def _try_writing(lake: Lake) -> tuple[bool, str]:
    """Create a file, try to overwrite it, and remove it.

    :returns: whether the first content was kept; and the file's URI where it could not be removed.
    :raises OSError: the lake cannot be written.
    """
    # Under the name of something unfinished, which nobody takes for a report.
    name = f"{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"
    lake.create(name, b"first")
    # Backends word "exists" in their own ways; what counts is what the file holds.
    with suppress(Exception):
        lake.create(name, b"second")
    keeps = lake.read(name) == b"first"
    try:
        lake.fs.rm_file(f"{lake.root}/{name}")
    # A lake needs no right to delete.
    except Exception:
        return keeps, lake.uri_of(name)
    return keeps, ""


def _check_login(hook: RapHook, now: pendulum.DateTime) -> Iterator[Finding]:
    services = [service for service in Service if is_open([service], now)]
    if not services:
        opening = min(next_opening([service], now) for service in Service)
        yield Finding(
            _NOTE, "login", f"Not tried: RAP is shut. Run it after {opening:ddd YYYY-MM-DD HH:mm} HKT."
        )
        return
    yield Finding(
        _NOTE, "login", f"Logging in ends a session of {hook.login.account} that is open elsewhere (§4.3)."
    )

    async def findings() -> list[Finding]:
        return [finding async for finding in _log_in(hook, services)]

    try:
        yield from asyncio.run(findings())
    except RapError as error:
        yield Finding(_FAIL, "login", str(error))


async def _log_in(hook: RapHook, services: list[Service]) -> AsyncIterator[Finding]:
    newest = 0
    async with hook.session() as session:
        yield Finding(
            _OK,
            "login",
            f"{hook.login.account} at {session.address} with key {session.client_key_fingerprint}.",
        )
        for folder in (folder for folder in Folder if folder.service in services):
            try:
                files = await session.list_folder(folder)
            except RapPermissionDenied as error:
                yield Finding(_WARN, "folder", str(error))
            else:
                newest = max([newest, *(file.mtime or 0 for file in files)])
                yield Finding(_OK, "folder", f"{folder.path} lists {len(files)} entries.")
    yield _clock_finding(newest, hook.clock())


def _clock_finding(newest: int, now: pendulum.DateTime) -> Finding:
    """Judge our clock by the newest file: SSH tells no time, and no file is of the future."""
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
