"""An Apache Airflow provider for HKEX's Report Access Platform (RAP)."""

__version__ = "0.1.0"
