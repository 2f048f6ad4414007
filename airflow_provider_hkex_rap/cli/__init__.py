"""The commands of ``airflow hkex-rap``."""
