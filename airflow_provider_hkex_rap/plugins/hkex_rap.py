"""The provider's Airflow plugin: what Airflow finds only through one."""

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_hkex_rap.plugins import pools
from airflow_provider_hkex_rap.timetables.trading_day import RapTradingDayTimetable


class HkexRapPlugin(AirflowPlugin):
    """Makes the pools of RAP tasks when a scheduler starts, and makes the timetable known."""

    name = "hkex_rap"
    listeners = [pools]  # noqa: RUF012 - as Airflow declares it
    timetables = [RapTradingDayTimetable]  # noqa: RUF012
