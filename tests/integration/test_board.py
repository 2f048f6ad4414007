"""Who may see what on the board, as Airflow's own application serves it."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import date
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pendulum
import pytest

from airflow_provider_hkex_rap.keystore.record import KeyRecord, StoredKey
from airflow_provider_hkex_rap.rap.folders import Folder

from ..manifest_history import at, landed, write, write_history
from .api_server import api_server
from .real_airflow import migrated_database

pytestmark = pytest.mark.slow

DAYS = [date(2026, 11, day) for day in (12, 13, 16, 17, 18, 19, 20)]
NOW = at(DAYS[-1], 25.6)
PAGES = ("", "static/board.js", "static/board.css", "static/icon.svg")
CELL = "api/files?customer=CXYZ&folder=DCASS&day=2026-11-20"
ADDRESSES = (*PAGES, "api/board", CELL, "api/accounts")
USERS = {"ann": "viewer", "ben": "op", "cy": "admin"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class Server:
    """An API server of Airflow with three users, and nothing else of Airflow."""

    def __init__(self, url: str, passwords: dict[str, str]) -> None:
        self.url = url
        self.passwords = passwords

    def of(self, user: str | None) -> httpx.Client:
        """Return a client of a user; None is not logged in."""
        headers = {}
        if user:
            answer = httpx.post(
                f"{self.url}/auth/token", json={"username": user, "password": self.passwords[user]}
            )
            headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['access_token']}"
        return httpx.Client(base_url=f"{self.url}/hkex-rap/", headers=headers, timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("board")
    write_history(home / "lake", DAYS)
    key = StoredKey(
        fingerprint="c1:b1", private_key="PRIVATE-KEY-MATERIAL", last_day=pendulum.date(2026, 11, 28)
    )
    record = KeyRecord(account="DCXYZ001", current=key).logged_in(NOW).with_superseded_session(NOW)
    (home / "keys").mkdir()
    (home / "keys/DCXYZ001.json").write_text(record.to_json())
    passwords = {user: f"{user}'s password" for user in USERS}
    (home / "passwords.json").write_text(json.dumps(passwords))
    connection = {"conn_type": "hkex_rap", "login": "DCXYZ001", "host": "127.0.0.1"}
    here = {"host_key": "", "private_key_passphrase": "PASSPHRASE", "key_store": (home / "keys").as_uri()}
    gone = here | {"key_store": (home / "not mounted").as_uri()}
    environment = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(map(":".join, USERS.items())),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__HKEX_RAP__CLOCK_OFFSET": str((NOW - pendulum.now()).total_seconds()),
        "AIRFLOW_VAR_HKEX_RAP_LAKE": (home / "lake").as_uri(),
        "AIRFLOW_CONN_RAP_ONE": json.dumps(connection | {"extra": here}),
        "AIRFLOW_CONN_RAP_TWO": json.dumps(connection | {"login": "DCXYZ002", "extra": gone}),
    }
    with api_server(home, environment) as url:
        yield Server(url, passwords)


@pytest.mark.parametrize("path", ADDRESSES)
def test_nothing_is_shown_without_a_login(server: Server, path: str) -> None:
    with server.of(None) as client:
        for headers in ({}, {"Authorization": "Bearer forged"}):
            answer = client.get(path, headers=headers)
            assert answer.status_code in (401, 403)
            assert "CXYZ" not in answer.text
            assert answer.headers.items() >= HEADERS.items()


@pytest.mark.parametrize("path", ["docs", "redoc", "openapi.json", "static/x", "api/"])
def test_nothing_else_is_served(server: Server, path: str) -> None:
    for user in (None, "cy"):
        with server.of(user) as client:
            answer = client.get(path)
            assert answer.status_code in (401, 404, 422), answer.text
            assert answer.headers.items() >= HEADERS.items()


@pytest.mark.parametrize("name", ["../app.py", "%2e%2e/app.py", "..%2fapp.py", "%2e%2e%2fapp.py"])
def test_no_name_leads_out_of_the_static_files(server: Server, name: str) -> None:
    with server.of("cy") as client:
        # httpx would remove the dot segments itself.
        connection = HTTPConnection(client.base_url.host, client.base_url.port or 80, timeout=60)
        with contextlib.closing(connection):
            headers = {"Authorization": client.headers["Authorization"]}
            connection.request("GET", f"{client.base_url.path}static/{name}", headers=headers)
            answer = connection.getresponse()
            assert answer.status in (404, 422)
            assert b"board_app" not in answer.read()


@pytest.mark.parametrize("user", USERS)
def test_every_user_who_may_read_assets_sees_the_reports(server: Server, user: str) -> None:
    with server.of(user) as client:
        for path in (*PAGES, "api/board", CELL):
            answer = client.get(path)
            assert answer.status_code == 200, answer.text
            assert answer.headers.items() >= HEADERS.items()
        assert client.get("api/board").json()["lakes"][0]["customers"][0]["customer"] == "CXYZ"


def test_a_viewer_who_may_not_read_connections_sees_no_account(server: Server) -> None:
    with server.of("ann") as client:
        assert client.get("api/accounts").status_code == 403
        shown = "".join(client.get(path).text for path in ("api/board", CELL))
        for hidden in ("DCXYZ00", "10.151.14.141", "c1:b1", "rap_one"):
            assert hidden not in shown


def test_an_operator_sees_the_keys_but_no_key_material(server: Server) -> None:
    with server.of("ben") as client:
        answer = client.get("api/accounts")
        (one, two) = answer.json()["accounts"]
    (key,) = one["keys"]
    assert (one["account"], key["role"], key["days_left"]) == ("DCXYZ001", "current", 8)
    assert one["last_login"] == NOW.to_iso8601_string()
    assert one["superseded"] == [NOW.to_iso8601_string()]
    assert one["site"] == "primary"
    assert one["last_download"]["address"] == "10.151.14.141:18801"
    # A store that the API server does not see is not an empty one.
    assert two["account"] == "DCXYZ002"
    assert "does not see the directory" in two["error"]
    for secret in ("PRIVATE-KEY-MATERIAL", "PASSPHRASE"):
        assert secret not in answer.text


def test_a_refused_page_says_how_to_log_in(server: Server) -> None:
    with server.of(None) as client:
        answer = client.get("?customer=CXYZ", headers={"Accept": "text/html"})
    assert answer.status_code == 401
    assert "Log in to Airflow" in answer.text


def test_errors_of_an_address_are_answers(server: Server) -> None:
    with server.of("cy") as client:
        answer: Any = client.get("api/files?customer=nobody&folder=DCASS&day=2026-11-20")
        assert answer.status_code == 400
        assert "is not a DCASS customer code" in answer.json()["detail"]
        assert client.get("api/files").status_code == 422


def add_connections_of_teams(database: Path, connections: dict[str, tuple[str, str]]) -> None:
    """Add a team and its connection for each connection id, which maps to the team and the account."""
    with sqlite3.connect(database) as stored:
        for conn_id, (team, account) in connections.items():
            stored.execute("INSERT INTO team (name) VALUES (?)", [team])
            stored.execute(
                "INSERT INTO connection (conn_id, conn_type, host, login, team_name, is_encrypted,"
                " is_extra_encrypted) VALUES (?, 'hkex_rap', '127.0.0.1', ?, ?, 0, 0)",
                [conn_id, account, team],
            )


def test_a_team_sees_the_logins_of_its_own_connections_alone(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    names = {f"R00{n}_20261120.csv": f"DCXYZ00{n}" for n in (1, 2)}
    write(lake, [landed(lake, DAYS[-1], Folder.DCASS, name, account=names[name]) for name in names])
    users = {"dan": "op:alpha", "eve": "op:beta"}
    passwords = {user: f"{user}'s password" for user in users}
    (tmp_path / "passwords.json").write_text(json.dumps(passwords))
    environment = {
        "AIRFLOW__CORE__MULTI_TEAM": "True",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(map(":".join, users.items())),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(tmp_path / "passwords.json"),
        "AIRFLOW__HKEX_RAP__CLOCK_OFFSET": str((NOW - pendulum.now()).total_seconds()),
        "AIRFLOW_VAR_HKEX_RAP_LAKE": lake.as_uri(),
    }
    connections = {"rap_alpha": ("alpha", "DCXYZ001"), "rap_beta": ("beta", "DCXYZ002")}
    add_connections_of_teams(shutil.copy(migrated_database(), tmp_path / "airflow.db"), connections)
    with api_server(tmp_path, environment) as url:
        for user, own in (("dan", "DCXYZ001"), ("eve", "DCXYZ002")):
            with Server(url, passwords).of(user) as client:
                accounts = client.get("api/accounts").raise_for_status().json()["accounts"]
                files = client.get(CELL).raise_for_status().json()["files"]
            assert [account["account"] for account in accounts] == [own]
            assert [file["login"] and file["login"]["account"] for file in files] == [
                own if own.endswith(file["report"][-1]) else None for file in files
            ]
