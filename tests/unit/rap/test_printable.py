"""Text from outside is one short line that neither a terminal nor a log acts on."""

from __future__ import annotations

import pickle
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.errors import RapError, RapTransferError
from airflow_provider_hkex_rap.rap.expiry_warning import ExpiryWarning
from airflow_provider_hkex_rap.rap.printable import printable
from airflow_provider_hkex_rap.rap.result_file import Received, Rejected

CONTROLS = [
    "\0",
    "\a",
    "\b",
    "\n",
    "\r",
    "\t",
    "\x1b",
    "\x7f",
    "\x85",
    "\x9b",
    "\u00ad",
    "\u200b",
    "\u200e",
    "\u2028",
    "\u2029",
    "\u202a",
    "\u202e",
    "\u2066",
    "\u2069",
    "\ufeff",
    "\ud800",
    "\U000e0041",
]


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_controls_are_escaped(control: str) -> None:
    shown = printable(f"a{control}b")
    assert shown == f"a{control.encode('unicode_escape').decode()}b"
    assert control not in str(RapError(f"a{control}b", why=control, todo=control))


@pytest.mark.parametrize("text", ["", "plain text", "只限授權用戶", "Résumé №1 – §4.1", "C:\\path"])
def test_readable_text_stays(text: str) -> None:
    assert printable(text) == text


@given(st.text(st.characters()), st.integers(60, 500))
def test_any_text_becomes_printable_and_short(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_a_long_text_is_cut_and_says_its_length() -> None:
    shown = printable("x" * 180_000)
    assert len(shown) == 300
    assert shown.endswith("… (180000 characters)")
    assert printable("x" * 300) == "x" * 300


def test_an_error_is_printable_and_bounded_and_keeps_its_facts() -> None:
    path = "/download/DCASS/\x1b[2J\r\nINFO forged"
    error = pickle.loads(pickle.dumps(RapTransferError(f"RAP refused {path}" + "x" * 200_000, path=path)))
    assert str(error).isprintable()
    assert len(str(error)) == 20_000
    assert error.path == path


@given(st.binary())
def test_what_is_kept_of_a_result_file_is_printable_and_short(content: bytes) -> None:
    for hostile in (content, b"4007 \x1b[2J\xe2\x80\xae" + content, b"4" * 5_000 + content):
        rejected = Rejected.parse(hostile)
        assert (rejected.code + rejected.message).isprintable()
        assert len(rejected.code) <= 20
        assert len(rejected.message) <= 300
        received = Received.parse(b"2e:6c:9f:34:55:5a:dd:cf:7d:18:55:31:72:40:ff:bd \x1b[2J" + hostile)
        assert received.fingerprint
        assert (received.file_name or "").isprintable()
        assert len(received.file_name or "") <= 300


@given(st.binary())
def test_the_lines_of_a_warning_are_printable(content: bytes) -> None:
    warning = ExpiryWarning.parse(b"\x1b[2J Key expires 2026-02-28\r\n" * 200 + content)
    assert warning.text.replace("\n", "").isprintable()
    assert len(warning.text.splitlines()) <= 100
    assert len(warning.dates) >= 200
