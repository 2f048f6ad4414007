"""Run a simulated RAP until interrupted: ``python -m airflow_provider_hkex_rap.testing``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pendulum

from airflow_provider_hkex_rap.rap.calendar import trading_days
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import Service
from airflow_provider_hkex_rap.rap.service_hours import next_opening
from airflow_provider_hkex_rap.testing.behaviour import Access
from airflow_provider_hkex_rap.testing.simulator import RapSimulator

_USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a simulated RAP until interrupted, and print how to connect to it.

    The connections contain private keys. They are written to files that only this user can read, and that are
    removed at the end.

    :param arguments: the arguments of the command line; None for those of the process.
    :returns: 0, or 2 if an argument is not valid or the port is in use.
    """
    args = _parser().parse_args(arguments)
    try:
        accounts = tuple(args.account or ("DCXYZ001",))
        rap = RapSimulator(
            accounts, args.now, port=args.port, access=Access(enforce_hours=args.hours)
        ).start()
    except (RapConfigurationError, OSError) as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="hkex-rap-") as directory:
        stack.callback(rap.stop)
        try:
            _publish_recent_days(rap, args.days, args.missing)
        except RapConfigurationError as error:
            print(error, file=sys.stderr)
            return _USAGE_ERROR
        _print_connections(rap, Path(directory))
        _print_clock(rap)
        print("Press Ctrl-C to stop.", flush=True)
        _wait_for_interrupt()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airflow hkex-rap simulate",
        description="Run a simulated RAP on this machine that follows the rules of the guide.",
    )
    parser.add_argument("--account", action="append", help="RAP user account; repeatable (default: DCXYZ001)")
    parser.add_argument("--port", type=int, default=0, help="TCP port (default: a free one)")
    parser.add_argument(
        "--days", type=int, default=3, help="number of trading days to publish, up to today (default: 3)"
    )
    parser.add_argument(
        "--now",
        type=_parse_time,
        metavar="TIME",
        help="time of its clock, in Hong Kong, such as 2026-11-21T01:30 (default: now)",
    )
    parser.add_argument(
        "--missing",
        action="append",
        default=[],
        metavar="CODE",
        help="leave a report out of the last trading day, such as TP001; repeatable",
    )
    parser.add_argument(
        "--hours", action="store_true", help="refuse logins outside the service hours (guide §4.1)"
    )
    return parser


def _parse_time(text: str) -> pendulum.DateTime:
    try:
        found = pendulum.parse(text, tz=HONG_KONG)
    except ValueError:
        found = None
    if not isinstance(found, pendulum.DateTime):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-11-20T23:40")
    return found


def _publish_recent_days(rap: RapSimulator, days: int, missing: Sequence[str]) -> None:
    """Publish the last trading days; leave reports out of the last of them.

    :raises RapConfigurationError: if *missing* names a report that the day does not have.
    """
    today = rap.clock().date()
    recent = list(trading_days(today.subtract(weeks=days), today))
    for day in recent[-days:] if days > 0 else ():
        rap.publish_day(day, missing=missing if day == recent[-1] else ())


def _print_connections(rap: RapSimulator, directory: Path) -> None:
    """Write the connection of each account to a file; print the command that exports it."""
    print(f"The simulated RAP listens on {rap.host}:{rap.port}.")
    for account in rap.accounts:
        path = directory / f"{account}.json"
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(rap.connection_json(account))
        # One connection for each account: the first is the one that the DAGs use.
        conn_id = "DEFAULT" if account == rap.accounts[0] else account
        print(f'To log in as {account}:\nexport AIRFLOW_CONN_HKEX_RAP_{conn_id}="$(cat {path})"')


def _print_clock(rap: RapSimulator) -> None:
    """Print the time of the simulated RAP, how to set the clock of tasks, and which services are shut."""
    now = rap.clock()
    print(f"Its clock shows {now:%A %Y-%m-%d %H:%M} in Hong Kong.")
    offset = round((now - pendulum.now(HONG_KONG)).total_seconds())
    if offset:
        print(f"To set the clock of tasks to the same time:\nexport AIRFLOW__HKEX_RAP__CLOCK_OFFSET={offset}")
    for service in Service:
        if (opening := next_opening([service], now)) > now:
            print(f"{service} is shut until {opening:ddd YYYY-MM-DD HH:mm}; until then, tasks wait (§4.1).")


def _wait_for_interrupt() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("Stopped.")


if __name__ == "__main__":
    sys.exit(main())
