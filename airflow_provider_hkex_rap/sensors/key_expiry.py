"""The sensor of RAP's warning that a key is about to expire."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_hkex_rap._task import (
    POOL,
    RapTask,
    check_poke_interval,
    failing_at_once,
    parse_flag,
    sensing,
)
from airflow_provider_hkex_rap.keystore.expiry import is_about_current, read_warning
from airflow_provider_hkex_rap.rap.service_hours import KEY_WORK

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_hkex_rap.hooks.rap import RapHook
    from airflow_provider_hkex_rap.keystore.expiry import ListedWarning
    from airflow_provider_hkex_rap.keystore.record import KeyRecord


class RapKeyExpiryWarningSensor(RapTask, BaseSensorOperator):
    """Look for ``SSHKeyExpireWarning.txt``, with which RAP warns of a key on its last 14 days (§6.2).

    RAP repeats the warning daily, also when the key was renewed, until the old key is removed. By default
    the sensor looks once, and skips where there is nothing to warn of: give it a ``timeout`` to wait, and
    ``soft_fail=False`` to fail then. Renewal does not depend on it. Outside the service hours the task
    reschedules itself to the opening.

    :param ignore_if_renewed: whether a warning does not count that is not about the current key: by the
        fingerprints in it, else by its day and what the key store has of the current key's days.
    :param rap_conn_id: an Airflow connection of the type ``hkex_rap``.
    :returns: the account, the warning's day (ISO, HKT) and text, and the fingerprints and dates in it.
    :raises RapPermissionDenied: RAP does not show the key folder to this account.
    :raises RapConfigurationError: a field of the connection is not valid.
    """

    _hook: RapHook

    template_fields: Sequence[str] = ("ignore_if_renewed", "rap_conn_id")
    ui_color = "#f3ead7"

    def __init__(
        self,
        *,
        ignore_if_renewed: bool | str = True,
        rap_conn_id: str = "hkex_rap_default",
        pool: str = POOL,
        timeout: timedelta | float = 0,
        soft_fail: bool = True,
        mode: str = "reschedule",
        poke_interval: timedelta | float = 3600,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            pool=pool, timeout=timeout, soft_fail=soft_fail, mode=mode, poke_interval=poke_interval, **kwargs
        )
        check_poke_interval(self)
        self.ignore_if_renewed = ignore_if_renewed
        self.rap_conn_id = rap_conn_id

    def execute(self, context: Context) -> Any:
        """Look, once RAP is open, and wait or skip where there is nothing to warn of."""
        from airflow_provider_hkex_rap.hooks.rap import RapHook

        with failing_at_once():
            self.check_pool(context)
            self._ignore_if_renewed = parse_flag("ignore_if_renewed", self.ignore_if_renewed)
            self._hook = RapHook(self.rap_conn_id)
            self.wait_for_opening(self._hook, [KEY_WORK])
            return super().execute(sensing(context))

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Log in and look once."""
        found, record = self.run_session(self._hook, [KEY_WORK], self._look, context)
        if found is None:
            self.log.info("RAP does not warn of a key of %s (§6.2).", record.account)
            return False
        if self._ignore_if_renewed and not is_about_current(found, record):
            self.log.info("RAP warns of a key that was renewed already (§6.2):\n%s", found.warning.text)
            return False
        self.log.warning("RAP warns of a key of %s (§6.2):\n%s", record.account, found.warning.text)
        return PokeReturnValue(
            True,
            {
                "account": record.account,
                "day": found.day.isoformat(),
                "text": found.warning.text,
                "fingerprints": list(found.warning.fingerprints),
                "dates": [day.isoformat() for day in found.warning.dates],
            },
        )

    async def _look(self) -> tuple[ListedWarning | None, KeyRecord]:
        async with self._hook.session() as session:
            today = self._hook.clock().date()
            found = await read_warning(session, await session.list_key_folder(), today)
        keys = await asyncio.to_thread(self._hook.account_keys)
        return found, keys.record
