"""The provider's own description, for Airflow's providers manager."""

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return what Airflow may know of this provider."""
    return {
        "package-name": "airflow-provider-hkex-rap",
        "name": "HKEX RAP",
        "description": "Reports and keys of HKEX's Report Access Platform (RAP).",
    }
