"""``airflow hkex-rap doctor``: check the setup of RAP tasks, one line for each check."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.cli.command import FAILED, NO_CONNECTION, command, lake_uri
from airflow_provider_hkex_rap.cli.finding import FAIL, NOTE, OK, WARN, Finding
from airflow_provider_hkex_rap.cli.pools import check_pools
from airflow_provider_hkex_rap.cli.reach import check_reach, source_finding
from airflow_provider_hkex_rap.hooks.clock import clock_offset
from airflow_provider_hkex_rap.keystore.status import describe_end, describe_warning
from airflow_provider_hkex_rap.lake.layout import MANIFESTS
from airflow_provider_hkex_rap.lake.opening import LAKE_VARIABLE, open_lake
from airflow_provider_hkex_rap.lake.preflight import check_lake, is_missing
from airflow_provider_hkex_rap.lake.refusals import refusal
from airflow_provider_hkex_rap.rap.clock import time_of
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapError, RapPermissionDenied
from airflow_provider_hkex_rap.rap.folders import Folder, Service
from airflow_provider_hkex_rap.rap.key_lifecycle import login_days_left
from airflow_provider_hkex_rap.rap.service_hours import is_open, next_opening, window

if TYPE_CHECKING:
    from argparse import Namespace

    import pendulum

    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
    from airflow_provider_hkex_rap.keystore.record import KeyRecord
    from airflow_provider_hkex_rap.keystore.store import AccountKeys
    from airflow_provider_hkex_rap.runner.runner import SessionRunner
    from airflow_provider_hkex_rap.transport.login import Login

_SECONDS_APART = 60
"""Seconds of clock skew that count as a failure: by default a report is stable after a minute."""


@command
def doctor(args: Namespace) -> int:
    """Print a line for each check; fail if one failed."""
    failed = False
    for finding in _findings(args):
        print(finding, flush=True)
        failed |= finding.state == FAIL
    return FAILED if failed else 0


def _findings(args: Namespace) -> Iterator[Finding]:
    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource

    source = AirflowLoginSource(args.conn_id)
    login = yield from _check_connection(source)
    now = None
    if login:
        now = yield from _check_clock(source)
        yield from check_reach(source, login)
    if now:
        yield from _check_hours(now)
    if login and now:
        yield from _check_keys(source, now)
    yield from check_pools()
    yield from _check_lock_directory(source)
    yield from _check_lake(args.lake)
    yield from _check_notifiers()
    if args.login and login and now:
        yield from _check_login(source, now)


def _check_connection(source: AirflowLoginSource) -> Generator[Finding, None, Login | None]:
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        source.check()
        login = source.login
    except AirflowNotFoundException:
        yield Finding(FAIL, "connection", f"There is no connection {source.conn_id!r}. {NO_CONNECTION}")
        return None
    except RapConfigurationError as error:
        yield Finding(FAIL, "connection", str(error))
        return None
    keys = ", ".join(key.fingerprint for key in login.client_keys)
    own = f"its own key {keys}" if keys else "no key of its own"
    yield Finding(OK, "connection", f"{source.conn_id}: {login.account} at the {login.site} site, {own}.")
    if (kind := source.connection.conn_type) != "hkex_rap":
        found = (
            f"Its type is {kind!r}. Set it to hkex_rap: 'status' and the form in the UI look for that type."
        )
        yield Finding(WARN, "connection", found)
    return login


def _check_clock(source: AirflowLoginSource) -> Generator[Finding, None, pendulum.DateTime | None]:
    try:
        now = source.clock()
    except RapConfigurationError as error:
        yield Finding(FAIL, "clock", str(error))
        return None
    shown = f"{now:YYYY-MM-DD HH:mm:ss} HKT"
    if offset := clock_offset():
        found = f"{shown}, shifted by {offset:g} s: [hkex_rap] clock_offset is for trials."
        yield Finding(WARN, "clock", found)
    else:
        yield Finding(OK, "clock", f"{shown}; --login compares it with RAP's newest file.")
    return now


def _check_hours(now: pendulum.DateTime) -> Iterator[Finding]:
    for service in Service:
        opening = next_opening([service], now)
        if opening > now:
            found = f"closed until {opening:ddd YYYY-MM-DD HH:mm} HKT; tasks wait for it (§4.1)."
        else:
            # DCASS may have opened the day before.
            hours = (window(service, day) for day in (now.date(), now.date().subtract(days=1)))
            (closes,) = (opened.closes for opened in hours if opened and now in opened)
            found = f"open until {closes:ddd YYYY-MM-DD HH:mm} HKT (§4.1)."
        yield Finding(OK if opening == now else NOTE, f"{service} hours", found)


def _check_keys(source: AirflowLoginSource, now: pendulum.DateTime) -> Iterator[Finding]:
    """Check the key store, the keys in it, and how long the current one logs in; nothing is sent."""
    account = source.login.account
    try:
        keys = source.keys.read()
        record, unreadable = keys.record, _unreadable_keys(keys)
    except RapError as error:
        yield Finding(FAIL, "key store", str(error))
        return
    # A custom class may raise anything, and its message may contain a secret.
    except Exception as error:
        found = f"{type(error).__name__} in the custom class of 'key_store'. Test it with KeyStoreContract."
        yield Finding(FAIL, "key store", found)
        return
    kept = len(list(record.keys))
    if unreadable:
        yield from unreadable
    elif kept and (exposed := _exposed(source)):
        yield Finding(WARN, "key store", exposed)
    elif kept or source.login.client_keys:
        found = f"keys of {account}: {kept}" if kept else f"no key yet; the first login of {account} adds it"
        yield Finding(OK, "key store", f"It can be read; {found}.")
    else:
        yield Finding(
            FAIL,
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
            findings.append(Finding(FAIL, "key store", f"{key.fingerprint}: {error}"))
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
        yield Finding(NOTE, "new key", found)
    if current is None:
        return
    warning = describe_end(record, today, key_expires)
    if current.last_day is None:
        found = f"{current.fingerprint}: {warning} {describe_warning(record)}"
        yield Finding(WARN, "current key", found.rstrip())
        return
    left = login_days_left(current.last_day, today)
    state = FAIL if not left else WARN if warning else OK
    found = f"{current.fingerprint}: days left {left}, the last {current.last_day}."
    about = (found, warning, describe_warning(record))
    yield Finding(state, "current key", " ".join(filter(None, about)))


def _check_lock_directory(source: AirflowLoginSource) -> Iterator[Finding]:
    from airflow_provider_hkex_rap.runner.account_lock import default_lock_directory, make_lock_directory

    directory = source.lock_directory or default_lock_directory()
    if not os.path.lexists(directory):
        # A check creates nothing, and a directory that is created and removed may vanish below a task.
        yield _missing_directory(directory)
        return
    try:
        make_lock_directory(source.lock_directory)
    except RapConfigurationError as error:
        yield Finding(FAIL, "lock", str(error))
    else:
        yield Finding(OK, "lock", f"{directory} keeps this host's logins of one account apart (§4.3).")


def _missing_directory(directory: Path) -> Finding:
    above = directory.absolute().parent
    while not os.path.lexists(above):
        above = above.parent
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return Finding(OK, "lock", f"{directory} will be created by the first login (§4.3).")
    return Finding(
        FAIL,
        "lock",
        f"{directory} does not exist, and this user may not create it in {above}. Set [hkex_rap] lock_dir to"
        " a directory that every worker of this host can write to.",
    )


def _check_lake(given: str | None) -> Iterator[Finding]:
    uri = lake_uri(given)
    if uri is None:
        yield Finding(NOTE, "lake", f"Not checked: there is no --lake and no Variable {LAKE_VARIABLE}.")
        return
    try:
        lake = open_lake(uri)
        missing = is_missing(lake)
        leftover = check_lake(lake)
        has_manifests = lake.names(MANIFESTS)
    except RapError as error:
        yield Finding(FAIL, "lake", str(error))
        return
    # The rights may differ from one directory to another.
    except Exception as error:
        refused = refusal(f"{lake.uri_of(MANIFESTS)} cannot be listed", lake.uri, error)
        yield Finding(FAIL, "lake", str(refused))
        return
    content = "it has manifests" if has_manifests else "nothing has landed in it yet"
    if missing:
        content = "its directory does not exist yet and will be created by the first landing"
    yield Finding(OK, "lake", f"{lake.uri} takes new files, lists them and keeps them; {content}.")
    if leftover:
        yield Finding(
            NOTE, "lake", f"{leftover} was written by this check and may not be removed; it is harmless."
        )


def _check_notifiers() -> Iterator[Finding]:
    """Build the notifiers of alerts; nothing is sent."""
    from airflow_provider_hkex_rap.notifications.notifiers import VARIABLE, read_notifiers

    notifiers, errors = read_notifiers()
    usable = []
    for notifier in notifiers:
        try:
            notifier.build()
        except RapConfigurationError as error:
            errors.append(error)
            continue
        usable.append(notifier.path)
        for conn_id in notifier.connections:
            if not _is_connection(conn_id):
                found = f"{notifier.path} needs the connection {conn_id!r}, which this machine does not find."
                yield Finding(WARN, "alerts", f"{found} Create it, or correct the Variable {VARIABLE}.")
    yield from (Finding(FAIL, "alerts", str(error)) for error in errors)
    if usable:
        yield Finding(OK, "alerts", f"They go to {', '.join(usable)}; none was sent.")
    elif not errors:
        yield Finding(NOTE, "alerts", f"Alerts are off: there is no Variable {VARIABLE}.")


def _is_connection(conn_id: str) -> bool:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return False
    return True


def _check_login(source: AirflowLoginSource, now: pendulum.DateTime) -> Iterator[Finding]:
    from airflow_provider_hkex_rap.runner.policy import ATTENDED
    from airflow_provider_hkex_rap.runner.runner import SessionRunner

    services = [service for service in Service if is_open([service], now)]
    if not services:
        opening = min(next_opening([service], now) for service in Service)
        yield Finding(
            NOTE, "login", f"Not tried: RAP is closed. Run it after {opening:ddd YYYY-MM-DD HH:mm} HKT."
        )
        return
    yield Finding(
        NOTE, "login", f"Logging in ends a session of {source.login.account} that is open elsewhere (§4.3)."
    )

    runner = SessionRunner(source, ATTENDED)

    async def findings() -> list[Finding]:
        return [finding async for finding in _log_in(runner, source, services)]

    try:
        yield from runner.run(findings)
    except RapError as error:
        yield Finding(FAIL, "login", str(error))


async def _log_in(
    runner: SessionRunner, source: AirflowLoginSource, services: list[Service]
) -> AsyncIterator[Finding]:
    times: list[pendulum.DateTime] = []
    unlikely = 0
    async with runner.session() as session:
        yield Finding(
            OK,
            "login",
            f"{source.login.account} at {session.address} with key {session.client_key_fingerprint}.",
        )
        if runner.key_record and (refused := runner.key_record.refused):
            yield Finding(
                WARN,
                "login",
                f"Before that, RAP refused {' and '.join(refused)}. Take a key that is not registered out of"
                " the connection, or register it (§5); airflow hkex-rap status names each key.",
            )
        yield source_finding(session.source_address, source.registered_addresses, "in this session")
        for folder in (folder for folder in Folder if folder.service in services):
            try:
                files = await session.list_folder(folder)
            except RapPermissionDenied as error:
                yield Finding(WARN, "folder", str(error))
            else:
                found = [time_of(file.mtime, source.clock()) for file in files if file.mtime]
                times += filter(None, found)
                unlikely += found.count(None)
                yield Finding(OK, "folder", f"{folder.path} lists {len(files)} entries.")
    yield _clock_finding(times, unlikely, source.clock())


def _clock_finding(times: Sequence[pendulum.DateTime], unlikely: int, now: pendulum.DateTime) -> Finding:
    """Compare our clock with the newest file: SSH has no clock, and no file is newer than now."""
    if unlikely:
        return Finding(
            WARN if len(times) > unlikely else FAIL,
            "clock skew",
            f"{unlikely} of {len(times) + unlikely} files have a time before 1980, or more than a day ahead"
            " of our clock, which gives no business date. Check this machine's clock (NTP); if it is right,"
            " ask HKEX.",
        )
    if not times:
        return Finding(NOTE, "clock skew", "Not measurable: RAP lists no file with a time.")
    ahead = (max(times) - now).total_seconds()
    if ahead > _SECONDS_APART:
        return Finding(
            FAIL,
            "clock skew",
            f"RAP's newest file is {ahead:.0f} s ahead of our clock. Synchronise this machine's clock (NTP).",
        )
    return Finding(OK, "clock skew", "RAP's newest file is not ahead of our clock.")
