"""The operator that renews the SSH keys of RAP accounts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias, BaseOperator

from airflow_provider_hkex_rap._task import POOL, RapTask, failing_at_once, parse_flag, parse_number
from airflow_provider_hkex_rap.rap.service_hours import KEY_WORK

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_hkex_rap.hooks.rap import RapHook
    from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey
    from airflow_provider_hkex_rap.keystore.renewal import RenewalOutcome
    from airflow_provider_hkex_rap.rap.key_folder import KeyFolder

KEY_RENEWED = AssetAlias("hkex_rap_key_renewed")
"""Its events tell of renewed keys, with fingerprints and dates; each is of the asset ``hkex-rap://key/<account>``."""


class RapKeyRenewalOperator(RapTask, BaseOperator):
    """Renew the account's SSH key where that is due, unattended (§6).

    A new key is made and kept in the key store, its public half uploaded, RAP's result file awaited and
    compared, and the new key becomes current once it has logged in. The old key is kept while it is valid.
    Killed at any point, a later try goes on from there, with the same new key. Where nothing is due, nothing
    is sent, unless the key's last day is not known: then RAP's warning is looked for (§6.2). Outside the
    service hours the task reschedules itself to the opening.

    :param key_size: bits of the new RSA key: 4096 or 2048 (§3.2.1).
    :param renew_before_days: how many days before its end to renew a key, its last day included; 1 to 365.
    :param force: renew although it is not due; once in a DAG run.
    :param rap_conn_id: an Airflow connection of the type ``hkex_rap``.
    :returns: whether a key was renewed and why, the fingerprints of the current and the previous key, and
        their last days; no key material. A renewal also emits an asset event with the same.
    :raises RapKeyRejected: RAP rejected the new key (``.rej``); the old one still works.
    :raises RapKeyVerificationError: the new key does not log in, or RAP took another; the old one works. Or
        RAP refuses the current key, and lets the previous one in.
    :raises RapConfigurationError: an argument or a field of the connection is not valid, or another upload
        would replace a key that is in use (§6.3).
    :raises RapPermissionDenied: RAP denied the upload (§2.1, §4.2).
    :raises KeyStoreError: the key store failed; a later try goes on from what it has kept.
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
        super().__init__(pool=pool, **{**kwargs, "outlets": [*kwargs.get("outlets", ()), KEY_RENEWED]})
        self.key_size = key_size
        self.renew_before_days = renew_before_days
        self.force = force
        self.rap_conn_id = rap_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Renew the key if that is due, or finish a renewal that was begun."""
        from airflow_provider_hkex_rap.hooks.rap import RapHook
        from airflow_provider_hkex_rap.keystore.renewal import Renewal

        with failing_at_once():
            self.check_pool(context)
            run = context.get("dag_run")
            hook = RapHook(self.rap_conn_id)
            renewal = Renewal(
                hook.account_keys(),
                HookLogins(hook),
                hook.clock,
                key_size=parse_number("key_size", self.key_size),
                renew_before_days=parse_number("renew_before_days", self.renew_before_days),
                force=parse_flag("force", self.force),
                run=run.run_id if run else None,
            )
            outcome = self.run_session(hook, [KEY_WORK], renewal.run, context)
            self.log.info("%s: %s %s", outcome.account, _summary(outcome), outcome.reason)
            if outcome.renewed:
                _emit(context, outcome)
            return outcome.as_dict()


class HookLogins:
    """Logs a renewal in through the hook."""

    def __init__(self, hook: RapHook) -> None:
        self._hook = hook

    def registered(self) -> AbstractAsyncContextManager[KeyFolder]:
        """Log in with the keys that RAP knows."""
        return self._hook.session()

    def with_known_expiry(self, record: KeyRecord) -> KeyRecord:
        """Return the record with the day that the connection's ``key_expires`` says."""
        return self._hook.with_known_expiry(record)

    def only(self, key: PendingKey) -> AbstractAsyncContextManager[KeyFolder]:
        """Log in with the new key and no other."""
        return self._hook.session(only=key)


def _emit(context: Context, outcome: RenewalOutcome) -> None:
    events = context.get("outlet_events")
    # Outside a run there is nobody to tell; within one it is empty at first.
    if events is not None:
        asset = Asset(name=f"hkex_rap_key_{outcome.account}", uri=f"hkex-rap://key/{outcome.account}")
        events[KEY_RENEWED].add(asset, extra=outcome.as_dict())


def _summary(outcome: RenewalOutcome) -> str:
    done = "The key was renewed." if outcome.renewed else "The key was not renewed."
    left = "" if outcome.days_left is None else f" Days left: {outcome.days_left}."
    return done + left
