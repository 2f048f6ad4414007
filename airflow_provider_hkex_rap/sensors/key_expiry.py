"""The sensor of RAP's warning that a key is about to expire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_hkex_rap.aio.thread import in_thread
from airflow_provider_hkex_rap.operators.arguments import check_poking, parse_flag
from airflow_provider_hkex_rap.operators.task import POOL, RapTask
from airflow_provider_hkex_rap.rap.service_hours import KEY_WORK
from airflow_provider_hkex_rap.sensors.context import (
    look_once,
    never_waiting_in_a_test_run,
    sensor_context,
    skipping_on_absence_only,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
    from airflow_provider_hkex_rap.keystore.expiry import ListedWarning
    from airflow_provider_hkex_rap.keystore.record import KeyRecord
    from airflow_provider_hkex_rap.rap.errors import RapError
    from airflow_provider_hkex_rap.runner.runner import SessionRunner


class RapKeyExpiryWarningSensor(RapTask, BaseSensorOperator):
    """Look for ``SSHKeyExpireWarning.txt``, by which RAP warns of a key in its last 14 days (§6.2).

    RAP repeats the warning daily, even if the key was renewed, until the old key is removed. By default the
    sensor looks once, and skips if there is no warning: give it a ``timeout`` to wait, and
    ``soft_fail=False`` to fail then. The renewal of keys does not depend on it. Outside the service hours
    the task reschedules itself to the opening. ::

        RapKeyExpiryWarningSensor(task_id="warned") >> tell_the_team()

    :param ignore_if_renewed: ignore warnings about a key that was already renewed, while RAP may still hold
        it (§6.1): by the fingerprints in the warning, else by its day and the days of the current key.
    :param rap_conn_id: an Airflow connection of the type ``hkex_rap``.
    :returns: the account, the warning's day (ISO, HKT) and text, and the fingerprints and dates in it.
    :raises RapPermissionDenied: if RAP does not show the key folder to this account.
    :raises RapUnavailable: if RAP cannot be reached until the time-out; before it, the sensor looks again.
    :raises RapSessionSuperseded: if another login ends the last session before the time-out.
    :raises RapConfigurationError: if a field of the connection is not valid, if ``poke_interval`` is below
        60 s, or if ``mode`` is not ``reschedule``.
    """

    template_fields: Sequence[str] = ("ignore_if_renewed", "rap_conn_id")
    ui_color = "#f3ead7"

    _source: AirflowLoginSource
    _sessions: SessionRunner
    failed_look: RapError | None = None

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
        check_poking(self)
        self.ignore_if_renewed = ignore_if_renewed
        self.rap_conn_id = rap_conn_id

    def execute(self, context: Context) -> Any:
        """Look once RAP is open; wait or skip if there is no warning."""
        with self.ending(context):
            self._parse(context)
            # Before the base class: its time-out must not end a wait for the opening.
            self._sessions.check_open([KEY_WORK])
            with skipping_on_absence_only(self), never_waiting_in_a_test_run(self):
                return super().execute(sensor_context(context))

    def _parse(self, context: Context) -> None:
        """Check the arguments before any network traffic.

        :raises RapConfigurationError: if an argument or a field of the connection is not of the valid form.
        """
        from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource

        self._ignore_if_renewed = parse_flag("ignore_if_renewed", self.ignore_if_renewed)
        self._source = AirflowLoginSource(self.rap_conn_id)
        self._sessions = self.session_runner(self._source, context)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Log in and look once; works alone too, as in a test."""
        if self._runner is None:
            with self.ending(context):
                self._parse(context)
                return self.poke(context)
        looked = look_once(self, context, self._source, self._sessions, self._look, KEY_WORK)
        if looked is None:
            return False
        found, record = looked
        if found is None:
            self.log.info("RAP does not warn of a key of %s (§6.2).", record.account)
            return False
        if self._ignore_if_renewed and self._is_of_replaced_key(found, record):
            self.log.info("RAP warns of a key that was already renewed (§6.2):\n%s", found.warning.text)
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

    @staticmethod
    def _is_of_replaced_key(found: ListedWarning, record: KeyRecord) -> bool:
        from airflow_provider_hkex_rap.keystore.expiry import is_of_replaced_key

        return is_of_replaced_key(found, record)

    async def _look(self) -> tuple[ListedWarning | None, KeyRecord]:
        from airflow_provider_hkex_rap.keystore.expiry import read_warning

        async with self._sessions.session() as session:
            keys = await in_thread(lambda: self._source.keys.read())
            today = self._source.clock().date()
            found = await read_warning(session, await session.list_key_folder(), keys.record, today)
        return found, keys.record
