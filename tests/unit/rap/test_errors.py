"""Errors keep their type and facts when they cross a process."""

import pickle

import pendulum
import pytest

from airflow_provider_hkex_rap.rap import errors
from airflow_provider_hkex_rap.rap.errors import RapClosed, RapError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RapError)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_can_be_pickled_with_its_facts(kind):
    error = kind("What.", why="Why.", todo="To do.", path="/download/DCASS/x", business_date="2026-11-20")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == "What. Why. To do."
    assert (copy.path, copy.business_date) == ("/download/DCASS/x", "2026-11-20")


def test_a_closed_rap_says_when_it_opens():
    opens_at = pendulum.datetime(2026, 11, 23, 7, tz="Asia/Hong_Kong")
    assert pickle.loads(pickle.dumps(RapClosed("RAP is closed.", opens_at=opens_at))).opens_at == opens_at
