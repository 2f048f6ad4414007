"""A RAP on this machine that follows the rules of the guide, to test DAGs against."""

from airflow_provider_hkex_rap.testing.behaviour import Access, KeyFolderBehaviour, ServerBehaviour
from airflow_provider_hkex_rap.testing.clock import SimulatedClock
from airflow_provider_hkex_rap.testing.events import Event, EventKind, EventLog
from airflow_provider_hkex_rap.testing.faults import Fault, FaultRules
from airflow_provider_hkex_rap.testing.simulator import RapSimulator

__all__ = [
    "Access",
    "Event",
    "EventKind",
    "EventLog",
    "Fault",
    "FaultRules",
    "KeyFolderBehaviour",
    "RapSimulator",
    "ServerBehaviour",
    "SimulatedClock",
]
