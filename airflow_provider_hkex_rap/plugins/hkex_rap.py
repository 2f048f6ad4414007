"""Register the parts of the provider that Airflow loads only from a plugin."""

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_hkex_rap.plugins import announcements, board, pools
from airflow_provider_hkex_rap.timetables.trading_day import RapTradingDayTimetable


class HkexRapPlugin(AirflowPlugin):
    """Create the pools, mark announced reports, and register the timetable and the board."""

    name = "hkex_rap"
    listeners = [announcements, pools]  # noqa: RUF012 - declared as in AirflowPlugin
    timetables = [RapTradingDayTimetable]  # noqa: RUF012
    fastapi_apps = board.FASTAPI_APPS
    external_views = board.EXTERNAL_VIEWS
