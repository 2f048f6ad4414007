"""What RAP's answers in the key folder say of an uploaded key (§6)."""

from __future__ import annotations

import asyncio

import pendulum
import pytest

from airflow_provider_hkex_rap.keystore.answers import AnswerReader
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.key_folder import KeyFile

NOW = pendulum.datetime(2026, 11, 20, 12, tz="Asia/Hong_Kong")


@pytest.mark.parametrize(("age", "is_waiting"), [(24 * 3600 - 1, True), (24 * 3600 + 1, False)])
def test_a_key_file_without_an_answer_waits_for_24_hours(age: int, is_waiting: bool) -> None:
    """RAP's answers are available within 24 hours after generation (§6); later, none is left to look for."""
    reader = AnswerReader(Account("DCXYZ001"), lambda: NOW, asyncio.sleep)
    file = KeyFile("DCXYZ001.pub", int(NOW.timestamp()) - age)
    assert reader.unprocessed([file], None, []) == (file if is_waiting else None)
