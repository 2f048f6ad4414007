"""Which host keys a connection pins: none is lost, and none is trusted by mistake."""

from __future__ import annotations

from contextlib import suppress

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.transport.host_keys import parse_host_keys


def public(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])


A, B = (public(asyncssh.generate_private_key("ssh-rsa", key_size=2048)) for _ in "AB")
ED25519 = public(asyncssh.generate_private_key("ssh-ed25519"))
BLOB_A = A.split()[1]


def pinned(text: object) -> set[str]:
    return {public(key) for key in parse_host_keys(text)}  # type: ignore[arg-type]


# By number, since the keys differ in each process that runs tests.
@pytest.mark.parametrize(
    "text",
    [
        f"{A}\n{B}",
        f"{A}\r\n\r\n{B}\n",
        f"{A}\\n{B}",
        [A, B],
        f"# from HKEX, 2026\n{A} rap-1\n  {B}  rap 2",
        f"10.151.14.141 {A}\n[10.151.14.142]:18801 {B}",
        f"|1|c2FsdA==|aGFzaA== {A}\n{B}",
        f"{BLOB_A}\n{B}",
    ],
    ids=range(8),
)
def test_every_line_with_a_key_pins_it(text: object) -> None:
    assert pinned(text) == {A, B}


@pytest.mark.parametrize(
    "text", [f"# {A}\n{B}", f"@revoked * {A}\n{B}", f"{A}\n@revoked * {A}\n{B}"], ids=range(3)
)
def test_a_comment_and_a_revoked_key_are_not_trusted(text: str) -> None:
    assert pinned(text) == {B}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"{A[:90]}…{A[91:]}", "neither a key"),
        (A[:-40], "damaged"),
        (f"{A}; {B}", "several keys"),
        (f"{A},{B}", "several keys"),
        (f"{A} {B}", "several keys"),
        (f"{A}\t{B}", "several keys"),
        (f"{A} ; {B}", "several keys"),
        (f"{A} # {B}", "several keys"),
        ("SHA256:2yLnNSpjhUHtjVdMrqbnWPmbFhmCs7sVIJxbhzW1Hyc", "it is a fingerprint"),
        ("c1:b1:30:29:d7:b8:de:6c:97:77:10:d7:46:41:63:87", "it is a fingerprint"),
        (ED25519, "ssh-ed25519"),
        (f"@cert-authority * {A}", "@cert-authority"),
        ("correct horse battery staple", "neither a key"),
    ],
    ids=range(13),
)
def test_a_line_that_is_no_key_is_refused_by_its_number_and_not_shown(line: str, reason: str) -> None:
    with pytest.raises(RapConfigurationError, match=f"Line 2 .*{reason}") as caught:
        parse_host_keys(f"{B}\n{line}")
    assert caught.value.__dict__["line"] == 2
    assert "horse" not in str(caught.value)
    assert A not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n \n", "# nothing yet", f"@revoked * {A}", []], ids=range(5))
def test_no_key_at_all_is_refused(text: object) -> None:
    with pytest.raises(RapConfigurationError, match="pins no RSA host key"):
        pinned(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(RapConfigurationError):
        assert parse_host_keys(f"{A}\n{text}")
