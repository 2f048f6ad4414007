"""The provider's Airflow plugin."""

from airflow.plugins_manager import AirflowPlugin


class HkexRapPlugin(AirflowPlugin):
    """Registers what Airflow finds only through a plugin."""

    name = "hkex_rap"
