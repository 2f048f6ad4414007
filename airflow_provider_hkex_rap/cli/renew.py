"""``airflow hkex-rap renew``: the renewal of an account's key, by hand (§6)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from airflow.utils.cli import action_cli

from airflow_provider_hkex_rap.cli.command import FAILED, agreed, command, say
from airflow_provider_hkex_rap.rap.service_hours import KEY_WORK, next_opening

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_hkex_rap.keystore.renewal import RenewalOutcome


@action_cli  # type: ignore[untyped-decorator]
@command
def renew(args: Namespace) -> int:
    """Renew the key as RapKeyRenewalOperator does, once the user agrees to the logins."""
    from airflow_provider_hkex_rap.hooks.rap import ATTENDED_LOCK_WAIT, RapHook
    from airflow_provider_hkex_rap.keystore.renewal import Renewal
    from airflow_provider_hkex_rap.operators.key_renewal import HookLogins

    hook = RapHook(args.conn_id)
    hook.lock_wait = ATTENDED_LOCK_WAIT
    now = hook.clock()
    opening = next_opening([KEY_WORK], now)
    say(
        f"This may log in to RAP as {hook.login.account}, which ends a session of that account that is open"
        " elsewhere (§4.3), and upload a new public key (§6). RAP's answer is awaited for up to ten minutes."
    )
    if args.replace_second_key:
        say("Where RAP holds two keys already, the newer one is replaced and logs in no more (§6.3).")
    if opening > now:
        say(f"RAP tasks do no key work until {opening:ddd YYYY-MM-DD HH:mm} HKT.")
    if not args.yes and not agreed():
        say("Nothing was sent.")
        return FAILED
    renewal = Renewal(
        hook.account_keys(),
        HookLogins(hook),
        hook.clock,
        force=args.force,
        replace_second_key=args.replace_second_key,
    )
    print(_told(asyncio.run(renewal.run())))
    return 0


def _told(outcome: RenewalOutcome) -> str:
    told = f"{outcome.account}: renewed." if outcome.renewed else f"{outcome.account}: not renewed."
    told += (
        f" {outcome.reason}\nCurrent key: {outcome.fingerprint}, last day {outcome.last_day or 'not known'}."
    )
    if outcome.previous_fingerprint:
        told += f"\nPrevious key: {outcome.previous_fingerprint}, last day {outcome.previous_last_day}."
    return told
