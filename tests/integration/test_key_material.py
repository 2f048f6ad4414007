"""That the search for key material finds it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import asyncssh
from cryptography.hazmat.primitives import serialization

from .key_material import Secrets, contents, leaks


def test_the_search_goes_into_files_databases_and_zips(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    pem = key.export_private_key("openssh").decode()
    line = pem.splitlines()[-5]
    other = serialization.PrivateFormat.PKCS8
    pkcs8 = key.pyca_key.private_bytes(serialization.Encoding.PEM, other, serialization.NoEncryption())
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "public.log").write_text(key.export_public_key("openssh").decode())
    secrets = Secrets([pem])
    assert leaks(secrets, contents(tmp_path)) == []
    (tmp_path / "logs" / "a.log").write_text(f"2026-11-20 INFO - {line}")
    (tmp_path / "logs" / "b.log").write_bytes(b"INFO - " + pkcs8.splitlines()[-5])
    (tmp_path / "logs" / "c.log").write_text(f"{key.pyca_key.private_numbers()}")
    (tmp_path / "logs" / "d.log").write_text(repr(key.pyca_key.private_numbers().d))
    with ZipFile(tmp_path / "kit.zip", "w", ZIP_DEFLATED) as archive:
        archive.writestr("DCXYZ001.pub", line)
    with closing(sqlite3.connect(tmp_path / "airflow.db")) as database:
        database.execute("CREATE TABLE xcom (value TEXT)")
        database.execute("INSERT INTO xcom VALUES (?)", (json.dumps({"log": "x" * 5000 + line}),))
        database.commit()
    found = leaks(secrets, contents(tmp_path))
    assert set(found) >= {"airflow.db:xcom", "kit.zip:DCXYZ001.pub", "logs/a.log", "logs/b.log", "logs/d.log"}
    assert "logs/public.log" not in found
