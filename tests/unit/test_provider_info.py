"""Airflow accepts the provider info, and it lists every hook, operator and sensor."""

import importlib
import json
import pkgutil
from importlib.resources import files

import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk import BaseHook, BaseOperator, BaseSensorOperator

import airflow_provider_hkex_rap
from airflow_provider_hkex_rap.get_provider_info import get_provider_info

INFO = get_provider_info()
PACKAGE = airflow_provider_hkex_rap.__name__


def test_airflow_lists_the_provider_with_this_info():
    provider = ProvidersManager().providers["airflow-provider-hkex-rap"]
    assert provider.version == airflow_provider_hkex_rap.__version__
    assert {key: provider.data[key] for key in INFO} == INFO


def test_the_info_follows_the_schema_of_airflow():
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


@pytest.mark.parametrize(
    ("room", "base"), [("hooks", BaseHook), ("operators", BaseOperator), ("sensors", BaseSensorOperator)]
)
def test_each_room_is_listed_whole(room, base):
    (listed,) = INFO[room]
    assert listed["integration-name"] == INFO["integrations"][0]["integration-name"]
    package = importlib.import_module(f"{PACKAGE}.{room}")
    modules = {f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)}
    defining = {
        name
        for name in modules
        for kind in vars(importlib.import_module(name)).values()
        if isinstance(kind, type)
        and issubclass(kind, base)
        and kind.__module__ == name
        # The part of the SFTP provider that the hook replaces is none of our hooks.
        and kind.__name__.startswith("Rap")
    }
    assert set(listed["python-modules"]) == defining
