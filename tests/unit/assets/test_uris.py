"""Airflow checks the URI of each asset of this provider with the provider's handler."""

from __future__ import annotations

import pytest
from airflow.sdk import Asset

from airflow_provider_hkex_rap.assets.uris import key_uri, reports_uri
from airflow_provider_hkex_rap.rap.folders import Folder


@pytest.mark.parametrize("folder", Folder)
def test_the_reports_of_each_folder_are_an_asset_whose_name_is_its_uri(folder: Folder) -> None:
    uri = reports_uri("CXYZ", folder)
    assert uri == f"hkex-rap://CXYZ/{folder.value}"
    assert (Asset(uri).name, Asset(uri).uri) == (uri, uri)


def test_the_key_of_an_account_is_an_asset_whose_name_is_its_uri() -> None:
    assert (Asset(key_uri("DCXYZ001")).name, Asset(key_uri("DCXYZ001")).uri) == (
        "hkex-rap://key/DCXYZ001",
    ) * 2


@pytest.mark.parametrize(
    "uri", ["HKEX-RAP://CXYZ/DCASS", "hkex-rap://CXYZ/DCASS/", "hkex-rap://CXYZ/DCASS#x"]
)
def test_other_spellings_of_the_scheme_and_the_end_become_one(uri: str) -> None:
    assert Asset(uri=uri, name="reports").uri == "hkex-rap://CXYZ/DCASS"


@pytest.mark.parametrize(
    "uri",
    [
        "hkex-rap://CXYZ",
        "hkex-rap://CXYZ/",
        "hkex-rap://CXYZ/dcass",
        "hkex-rap://cxyz/DCASS",
        "hkex-rap://XYZ/DCASS",
        "hkex-rap://CXYZ/submission",
        "hkex-rap://CXYZ/DCASS/TP001",
        "hkex-rap://CXYZ//DCASS",
        "hkex-rap://user@CXYZ/DCASS",
        "hkex-rap://CXYZ:22/DCASS",
        "hkex-rap://CXYZ/DCASS?report=TP001",
        "hkex-rap:///DCASS",
        "hkex-rap://key/DCXYZ005",
        "hkex-rap://key/CXYZ",
        "hkex-rap://key/DCASS",
        "hkex-rap://KEY/DCXYZ001",
        "hkex-rap://CXYZ/DCXYZ001",
    ],
)
def test_any_other_uri_is_refused_with_the_valid_form(uri: str) -> None:
    with pytest.raises(ValueError, match=r"hkex-rap://CXYZ/DCASS.*hkex-rap://key/DCXYZ001"):
        Asset(uri)
