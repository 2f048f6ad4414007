"""``airflow hkex-rap simulate``: run a simulated RAP on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.cli.command import command

if TYPE_CHECKING:
    from argparse import Namespace


@command
def simulate(args: Namespace) -> int:
    """Run a simulated RAP until interrupted, and print how to connect to it."""
    from airflow_provider_hkex_rap.testing.__main__ import main

    given = {"port": args.port, "days": args.days, "now": args.now}
    arguments = [f"--{name}={value}" for name, value in given.items() if value is not None]
    arguments += [f"--account={account}" for account in args.account or ()]
    arguments += [f"--missing={code}" for code in args.missing or ()]
    return main([*arguments, "--hours"] if args.hours else arguments)
