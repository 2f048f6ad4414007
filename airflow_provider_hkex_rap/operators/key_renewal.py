"""The operator that renews the SSH keys of RAP accounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias, BaseOperator

from airflow_provider_hkex_rap.assets.uris import key_uri
from airflow_provider_hkex_rap.operators.arguments import parse_flag, parse_number, parse_outlets
from airflow_provider_hkex_rap.operators.task import POOL, RapTask
from airflow_provider_hkex_rap.rap.service_hours import KEY_WORK

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_hkex_rap.keystore.renewal_outcome import RenewalOutcome

_SUPERSEDED_RETRIES = 3

KEY_RENEWED = AssetAlias("hkex_rap_key_renewed")
"""Emits an event of ``hkex-rap://key/<account>`` for each renewed key, with fingerprints and dates."""


class RapKeyRenewalOperator(RapTask, BaseOperator):
    """Renew the account's SSH key if it is due, unattended (§6).

    The task makes a new key and keeps it in the key store, uploads its public half, waits for RAP's result
    file and compares it. The new key becomes current once it has logged in; the old key is kept while it is
    valid. If the task is killed at any point, a retry continues with the same new key. Each run logs in and
    looks for RAP's warning, which counts more than a last day that was computed or typed (§6.2). Outside the
    service hours the task reschedules itself to the opening. ::

        RapKeyRenewalOperator(task_id="renew", rap_conn_id="hkex_rap_default")

    :param key_size: bits of the new RSA key: 4096 or 2048 (§3.2.1).
    :param renew_before_days: how many days before its end to renew a key, its last day included; 1 to 365.
    :param force: renew although it is not due; acts once in a DAG run.
    :param rap_conn_id: an Airflow connection of the type ``hkex_rap``.
    :returns: whether a key was renewed and why, the fingerprints of the current and the previous key, and
        their last days; no key material. A renewal also emits an asset event with the same.
    :raises RapKeyRejected: if RAP rejected the new key (``.rej``); the old one still works.
    :raises RapKeyVerificationError: if the new key does not log in, RAP accepted another, or RAP has not
        processed its upload; the old one works. Or if RAP refuses the current key and accepts another, or
        warns of a key that may be the current one.
    :raises RapAuthenticationError: if RAP refuses the login.
    :raises RapConfigurationError: if an argument or a field of the connection is not valid, the current key
        in the key store does not open, or another upload would replace a key that is in use (§6.3).
    :raises RapPermissionDenied: if RAP denied the upload (§2.1, §4.2).
    :raises KeyStoreError: if the key store failed; a retry continues from the last stored step.
    """

    template_fields: Sequence[str] = ("key_size", "renew_before_days", "force", "rap_conn_id")
    ui_color = "#f3ead7"

    def __init__(
        self,
        *,
        key_size: int | str = 4096,
        renew_before_days: int | str = 30,
        force: bool | str = False,
        rap_conn_id: str = "hkex_rap_default",
        pool: str = POOL,
        **kwargs: Any,
    ) -> None:
        outlets = [*parse_outlets(kwargs.pop("outlets", None)), KEY_RENEWED]
        super().__init__(pool=pool, outlets=outlets, **kwargs)
        self.key_size = key_size
        self.renew_before_days = renew_before_days
        self.force = force
        self.rap_conn_id = rap_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Renew the key if that is due, or finish a renewal that was begun."""
        from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
        from airflow_provider_hkex_rap.keystore.renewal import Renewal
        from airflow_provider_hkex_rap.operators.reporting import Reporting
        from airflow_provider_hkex_rap.runner.key_logins import KeyLogins

        with self.ending(context):
            run = context.get("dag_run")
            source = AirflowLoginSource(self.rap_conn_id)
            runner = self.session_runner(source, context, superseded_retries=_SUPERSEDED_RETRIES)
            renewal = Renewal(
                source.keys.read(),
                KeyLogins(runner, source),
                source.clock,
                key_size=parse_number("key_size", self.key_size),
                renew_before_days=parse_number("renew_before_days", self.renew_before_days),
                force=parse_flag("force", self.force),
                run=run.run_id if run else None,
            )
            with Reporting(context, source, runner, lambda: renewal.record).of_try():
                outcome = runner.run(renewal.run, wanted=[KEY_WORK])
            self.log.info("%s: %s %s", outcome.account, _format_outcome(outcome), outcome.reason)
            if outcome.renewed:
                _emit(context, outcome)
            return outcome.as_dict()


def _emit(context: Context, outcome: RenewalOutcome) -> None:
    events = context.get("outlet_events")
    # Outside a run there are no events; in one, they are empty at first.
    if events is not None:
        events[KEY_RENEWED].add(Asset(key_uri(outcome.account)), extra=outcome.as_dict())


def _format_outcome(outcome: RenewalOutcome) -> str:
    done = "The key was renewed." if outcome.renewed else "The key was not renewed."
    left = "" if outcome.days_left is None else f" Days left: {outcome.days_left}."
    return done + left
