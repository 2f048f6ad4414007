"""Fixtures of the tests that use the network of this machine."""

import socket
import sys
from collections.abc import Iterator

import pytest

from airflow_provider_hkex_rap.keystore.variable import PREFIX


@pytest.fixture(autouse=True)
def _no_keys_of_other_tests() -> Iterator[None]:
    """Empty the default key store: each test's RAP has keys of its own for the same accounts."""
    yield
    if "airflow.models.variable" not in sys.modules:
        return
    from airflow.models import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import delete, inspect

    with create_session() as session:
        if inspect(session.connection()).has_table(Variable.__tablename__):
            session.execute(delete(Variable).where(Variable.key.startswith(PREFIX)))


@pytest.fixture
def unused_port() -> int:
    """Return a port of localhost on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
