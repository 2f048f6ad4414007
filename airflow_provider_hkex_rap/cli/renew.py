"""``airflow hkex-rap renew``: renew an account's key by hand (§6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.utils.cli import action_cli

from airflow_provider_hkex_rap.cli.command import FAILED, agreed, command, say
from airflow_provider_hkex_rap.rap.service_hours import KEY_WORK, next_opening

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_hkex_rap.keystore.renewal_outcome import RenewalOutcome


@action_cli  # type: ignore[untyped-decorator]
@command
def renew(args: Namespace) -> int:
    """Renew the key as RapKeyRenewalOperator does, once the user agrees to the logins."""
    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
    from airflow_provider_hkex_rap.keystore.renewal import Renewal
    from airflow_provider_hkex_rap.runner.key_logins import KeyLogins
    from airflow_provider_hkex_rap.runner.policy import ATTENDED
    from airflow_provider_hkex_rap.runner.runner import SessionRunner

    source = AirflowLoginSource(args.conn_id)
    now = source.clock()
    opening = next_opening([KEY_WORK], now)
    say(
        f"This may log in to RAP as {source.login.account}, which ends a session of that account that is open"
        " elsewhere (§4.3), and upload a new public key (§6). It waits up to ten minutes for RAP's answer."
    )
    if args.replace_second_key:
        say("If RAP holds two keys already, it replaces the newer one, which then no longer logs in (§6.3).")
    if opening > now:
        say(f"RAP tasks do no key work until {opening:ddd YYYY-MM-DD HH:mm} HKT.")
    if not args.yes and not agreed():
        say("Nothing was sent.")
        return FAILED
    runner = SessionRunner(source, ATTENDED)
    renewal = Renewal(
        source.keys.read(),
        KeyLogins(runner, source),
        source.clock,
        force=args.force,
        replace_second_key=args.replace_second_key,
    )
    print(_format_outcome(runner.run(renewal.run)))
    return 0


def _format_outcome(outcome: RenewalOutcome) -> str:
    text = f"{outcome.account}: renewed." if outcome.renewed else f"{outcome.account}: not renewed."
    text += (
        f" {outcome.reason}\nCurrent key: {outcome.fingerprint}, last day {outcome.last_day or 'not known'}."
    )
    if outcome.previous_fingerprint:
        text += f"\nPrevious key: {outcome.previous_fingerprint}, last day {outcome.previous_last_day}."
    return text
