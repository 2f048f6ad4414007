from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.result_file import Received, Rejected, ResultName

ACCOUNT = Account("DCXYZ001")
FINGERPRINT = "2e:6c:9f:34:55:5a:dd:cf:7d:18:55:31:72:40:ff:bd"

key_files = st.sampled_from(["DCXYZ001", "DCXYZ001.pub", "key002.pub", "key", "a.b c.pub"])
times = st.times().map(lambda time: f"{time:%H%M%S}")
sequences = st.none() | st.integers(0, 10**6).map(str)


@given(key_file=key_files, time=times, sequence=sequences, accepted=st.booleans())
def test_every_name_of_the_guides_form_is_read(
    key_file: str, time: str, sequence: str | None, accepted: bool
) -> None:
    parts = [key_file, time, *([sequence] if sequence else []), "rcvd" if accepted else "rej"]
    assert ResultName.parse(".".join(parts)) == ResultName(key_file, time, sequence, accepted)


@pytest.mark.parametrize(
    ("name", "account_name"),
    [("DCXYZ001.pub.093000.rcvd", "DCXYZ001"), ("DCXYZ002.101112.3.rej", "DCXYZ002")],
)
def test_a_result_is_for_the_account_whose_key_was_uploaded(name: str, account_name: str) -> None:
    result = ResultName.parse(name)
    assert result is not None
    assert [n for n in range(1, 5) if result.is_for(Account(f"DCXYZ00{n}"))] == [int(account_name[-1])]


@pytest.mark.parametrize(
    "name", ["DCXYZ001.pub", "SSHKeyExpireWarning.txt", "", "rcvd", ".rej", "a.rcvd.txt"]
)
def test_other_names_are_no_result_files(name: str) -> None:
    assert ResultName.parse(name) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DCXYZ001.pub.rcvd", ResultName("DCXYZ001.pub", None, None, True)),
        ("DCXYZ001.20260301093000.rej", ResultName("DCXYZ001.20260301093000", None, None, False)),
    ],
)
def test_a_changed_name_still_says_the_outcome(name: str, expected: ResultName) -> None:
    assert ResultName.parse(name) == expected


@given(st.text())
def test_no_name_raises(name: str) -> None:
    for text in (name, f"{name}.rcvd", f"{name}.123456.rej"):
        ResultName.parse(text)


def test_the_guides_examples_are_read() -> None:
    assert Received.parse(f"{FINGERPRINT}      key002.pub\n".encode()) == Received(FINGERPRINT, "key002.pub")
    rejected = Rejected.parse(b"4007 File name contains invalid characters\n|\n")
    assert rejected == Rejected("4007", "File name contains invalid characters")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"\ufeff\r\nMD5:{FINGERPRINT.upper()}\tDCXYZ001.pub\r\n|", Received(FINGERPRINT, "DCXYZ001.pub")),
        (f"Accepted\nDCXYZ001.pub {FINGERPRINT}", Received(FINGERPRINT, "DCXYZ001.pub")),
        (FINGERPRINT, Received(FINGERPRINT, None)),
        ("The key was accepted.", Received(None, None)),
        ("", Received(None, None)),
    ],
)
def test_a_changed_received_file_says_what_it_can(content: str, expected: Received) -> None:
    assert Received.parse(content.encode()) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\ufeff4001: Bad key,\r\nsee the guide\r\n|\r\n", Rejected("4001", "Bad key, see the guide")),
        ("4007", Rejected("4007", "")),
        ("Key of 1024 bits refused", Rejected("", "Key of 1024 bits refused")),
        ("4096bit keys only", Rejected("", "4096bit keys only")),
        ("|\n", Rejected("", "")),
        ("", Rejected("", "")),
    ],
)
def test_a_changed_rejected_file_says_what_it_can(content: str, expected: Rejected) -> None:
    assert Rejected.parse(content.encode()) == expected


@given(st.binary())
def test_no_content_raises(content: bytes) -> None:
    Received.parse(content)
    Rejected.parse(content)


@given(junk=st.lists(st.sampled_from(["|", "", "---", "\t", "**"]), max_size=4), file_name=key_files)
def test_lines_of_junk_change_nothing(junk: list[str], file_name: str) -> None:
    around = "\n".join(junk)
    name = " ".join(file_name.split())
    received = Received.parse(f"{around}\n{FINGERPRINT}  {file_name}\n{around}".encode())
    assert received == Received(FINGERPRINT, name)
    assert Rejected.parse(f"{around}\n4007 {file_name}\n{around}".encode()) == Rejected("4007", name)
