"""Register the parts of the provider that Airflow loads only from a plugin."""

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_hkex_rap.plugins import pools
from airflow_provider_hkex_rap.timetables.trading_day import RapTradingDayTimetable


class HkexRapPlugin(AirflowPlugin):
    """Create the pools of RAP tasks when the scheduler starts, and register the timetable."""

    name = "hkex_rap"
    listeners = [pools]  # noqa: RUF012 - declared as in AirflowPlugin
    timetables = [RapTradingDayTimetable]  # noqa: RUF012
