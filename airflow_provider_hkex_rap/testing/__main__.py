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
    """Run a simulated RAP until interrupted, and say how to connect to it.

    The connections, with their private keys, go to files that only this user can read, removed at the end.

    :param arguments: those of the command line; None for the process's own.
    :returns: 0, or 2 where an argument has another form or the port is taken.
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
        _publish(rap, args.days)
        _tell(rap, Path(directory))
        _wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airflow hkex-rap simulate",
        description="Run a RAP on this machine that keeps the rules of the guide.",
    )
    parser.add_argument(
        "--account", action="append", help="a RAP user account; repeatable (default: DCXYZ001)"
    )
    parser.add_argument("--port", type=int, default=0, help="the port (default: a free one)")
    parser.add_argument("--days", type=int, default=3, help="how many trading days to publish (default: 3)")
    parser.add_argument(
        "--now", type=_time, help="the time that it shows, in Hong Kong (default: the real one)"
    )
    parser.add_argument("--hours", action="store_true", help="refuse logins outside the service hours (§4.1)")
    return parser


def _time(text: str) -> pendulum.DateTime:
    try:
        found = pendulum.parse(text, tz=HONG_KONG)
    except ValueError:
        found = None
    if not isinstance(found, pendulum.DateTime):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time, such as 2026-11-20T23:40")
    return found


def _publish(rap: RapSimulator, days: int) -> None:
    today = rap.clock().date()
    recent = list(trading_days(today.subtract(weeks=days), today))
    for day in recent[-days:] if days > 0 else ():
        rap.publish_day(day)


def _tell(rap: RapSimulator, directory: Path) -> None:
    now = rap.clock()
    print(f"RAP is simulated on {rap.host}:{rap.port}; there it is {now:%A %Y-%m-%d %H:%M} in Hong Kong.")
    for account in rap.accounts:
        path = directory / f"{account}.json"
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(rap.connection_json(account))
        print(f'To log in as {account}:\nexport AIRFLOW_CONN_HKEX_RAP_DEFAULT="$(cat {path})"')
    offset = round((now - pendulum.now(HONG_KONG)).total_seconds())
    if offset:
        print(f"To shift the clock of tasks to its own:\nexport AIRFLOW__HKEX_RAP__CLOCK_OFFSET={offset}")
    for service in Service:
        if (opening := next_opening([service], now)) > now:
            print(f"{service} is shut there until {opening:ddd YYYY-MM-DD HH:mm}: tasks wait (§4.1).")
    print("Stop it by Ctrl-C.", flush=True)


def _wait() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("Stopped.")


if __name__ == "__main__":
    sys.exit(main())
