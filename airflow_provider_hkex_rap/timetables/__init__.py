"""Timetables for DAGs that follow the trading days of RAP."""

from airflow_provider_hkex_rap.timetables.trading_day import RapTradingDayTimetable

__all__ = ["RapTradingDayTimetable"]
