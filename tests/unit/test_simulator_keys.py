"""The answers of the simulated RAP to uploaded keys, and the keys that it registers, without a network."""

from functools import cache

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.expiry_warning import ExpiryWarning
from airflow_provider_hkex_rap.rap.key_lifecycle import first_warning_day
from airflow_provider_hkex_rap.rap.keys import PrivateKey, PublicKey
from airflow_provider_hkex_rap.rap.result_file import Received, Rejected, ResultName
from airflow_provider_hkex_rap.testing import KeyFolderBehaviour, RapSimulator, ServerBehaviour
from airflow_provider_hkex_rap.testing._key_answers import (
    KeyRejectedError,
    Rejection,
    check_key_file,
    received_text,
    result_name,
)
from airflow_provider_hkex_rap.testing.key_management import Upload

ACCOUNT = "DCXYZ001"
NAME = b"DCXYZ001.pub"
NOW = pendulum.datetime(2026, 11, 20, 9, tz="Asia/Hong_Kong")
GUIDE_FINGERPRINT = "2e:6c:9f:34:55:5a:dd:cf:7d:18:55:31:72:40:ff:bd"


@cache
def key(number: int) -> PublicKey:
    return PrivateKey.generate(2048).public_key


def key_file(number: int) -> bytes:
    return key(number).to_rfc4716(ACCOUNT).encode()


def upload(rap: RapSimulator, number: int, account: str = ACCOUNT) -> str:
    """Upload a key; return the name of the result file."""
    content = key_file(number)
    rap.keys.on_upload(Upload(account, f"{account}.pub".encode(), content, rap.clock(), 1))
    return rap.keys.results[-1].name


def valid(rap: RapSimulator, account: str = ACCOUNT) -> list[str]:
    return [key.fingerprint for key in rap.keys.valid(account)]


# Answers.


def test_a_result_reads_as_in_the_guide() -> None:
    assert received_text(GUIDE_FINGERPRINT, "key002.pub") == f"{GUIDE_FINGERPRINT}      key002.pub\n"
    rejected = KeyRejectedError.of(Rejection.CHARACTERS)
    assert str(rejected) == "4007 File name contains invalid characters"
    assert Rejected.parse(f"{rejected}\n".encode()) == (rejected.code, rejected.message)


@given(st.sampled_from(["DCXYZ001", "DCXYZ001.pub"]), st.times(), st.integers(0, 99), st.booleans())
def test_a_result_is_named_as_the_guide_says(key_name, time, sequence, accepted):
    at = NOW.at(time.hour, time.minute, time.second)
    name = ResultName.parse(result_name(key_name.encode(), at, sequence, accepted).decode())
    expected = (key_name, time.strftime("%H%M%S"), f"{sequence}" if sequence else None, accepted)
    assert name == expected
    assert name.is_for(Account(ACCOUNT))


@given(st.binary(min_size=16, max_size=16))
def test_a_received_key_is_read_back(digest):
    fingerprint = digest.hex(":")
    assert Received.parse(received_text(fingerprint, ACCOUNT).encode()) == (fingerprint, ACCOUNT)


def test_a_key_file_as_in_the_guide_is_accepted():
    content = key_file(0)
    assert check_key_file(ACCOUNT, NAME, content) == key(0)
    assert check_key_file(ACCOUNT, NAME, content.replace(b"\n", b"\r\n")) == key(0)


@given(st.binary() | st.tuples(st.integers(0, 400), st.binary(max_size=3)))
def test_no_damaged_key_file_is_accepted(damage):
    content = key_file(0)
    if isinstance(damage, tuple):
        at, put = damage
        content = content[:at] + put + content[at + 1 :]
    else:
        content = damage
    try:
        code = f"{check_key_file(ACCOUNT, NAME, content).bits} bits"
    except KeyRejectedError as rejected:
        code = rejected.code
    assert code in {"2048 bits", Rejection.FILE_FORMAT.value[0], Rejection.KEY_TYPE.value[0]}


@given(st.binary(min_size=1).filter(lambda name: name != NAME))
def test_no_other_file_name_is_accepted(name):
    with pytest.raises(KeyRejectedError) as rejected:
        check_key_file(ACCOUNT, name, key_file(0))
    plain = all(byte in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-" for byte in name)
    assert rejected.value.code == ("4001" if plain else "4007")


# The keys of an account, through the years.

steps = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 5)), max_size=12)


@given(steps)
def test_an_account_has_two_keys_at_most_and_is_warned_in_time(history):
    rap = RapSimulator((ACCOUNT,), NOW)
    for days, number in history:
        rap.clock.set(rap.clock().add(days=days).at(9))
        before = valid(rap)
        was_accepted = upload(rap, number).endswith(".rcvd")
        assert was_accepted == (key(number).fingerprint not in before[:1])
        # The old key stays valid after any upload (§6.3), and the uploaded key is the newest.
        assert valid(rap) == ([*before[:1], key(number).fingerprint] if was_accepted else before)
        warning = rap.keys.warning(ACCOUNT)
        today = rap.clock().date()
        due = [it for it in rap.keys.valid(ACCOUNT) if first_warning_day(it.last_day) <= today]
        read = ExpiryWarning.parse(warning.content) if warning else None
        assert (read.fingerprints if read else ()) == tuple(it.fingerprint for it in due)
        assert (read.dates if read else ()) == tuple(it.last_day for it in due)


@given(st.integers(2, 12))
def test_results_of_one_second_are_numbered(uploads):
    rap = RapSimulator((ACCOUNT,), NOW)
    at = rap.clock()
    for number in range(uploads):
        content = key_file(number % 6)
        rap.keys.on_upload(Upload(ACCOUNT, NAME, content, at, 1))
    names = [ResultName.parse(result.name) for result in rap.keys.results]
    assert len(set(names)) == uploads
    assert {name.time for name in names if name} == {"090000"}
    accepted = [name.sequence for name in names if name and name.accepted]
    assert accepted == [None, *map(str, range(1, len(accepted)))]


def test_a_result_name_is_used_again_after_its_file_has_expired() -> None:
    rap = RapSimulator((ACCOUNT,), NOW)
    for at in (NOW, NOW.add(days=1).subtract(microseconds=1), NOW.add(days=1), NOW.add(days=1)):
        rap.keys.on_upload(Upload(ACCOUNT, NAME, b"", at, 1))
    names = [result.name for result in rap.keys.results]
    assert names == [f"{ACCOUNT}.pub.{at}.rej" for at in ("090000", "085959", "090000", "090000.1")]


def test_a_key_of_two_accounts_is_refused() -> None:
    rap = RapSimulator((ACCOUNT, "DCXYZ002"), NOW)
    text = key(0).to_rfc4716(ACCOUNT)
    rap.register_key(ACCOUNT, text)
    with pytest.raises(RapConfigurationError, match="key of DCXYZ001"):
        rap.register_key("DCXYZ002", text)
    assert upload(rap, 0, "DCXYZ002").endswith(".rej")
    assert rap.keys.results[-1].text.startswith("4005 ")
    # An expired key belongs to no account.
    rap.clock.advance(days=800)
    rap.register_key("DCXYZ002", text)
    assert valid(rap, "DCXYZ002") == [key(0).fingerprint]


def test_only_an_account_of_the_simulator_has_keys() -> None:
    rap = RapSimulator((ACCOUNT,), NOW)
    with pytest.raises(RapConfigurationError, match="DCXYZ001"):
        rap.register_key("DCXYZ002", key(0).to_openssh())
    with pytest.raises(KeyError):
        rap.keys.valid("DCXYZ002")
    with pytest.raises(KeyError):
        rap.keys.register("dcxyz001", None)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["{key}", "{", "{0}", "{account.x}", "{last_day:%}}"])
def test_a_wrong_warning_text_is_refused(text: str) -> None:
    with pytest.raises(RapConfigurationError, match="last_day"):
        KeyFolderBehaviour(warning_text=text)


@pytest.mark.parametrize(
    ("behaviour", "name"),
    [
        *((KeyFolderBehaviour, name) for name in ("results", "uploaded_file", "reupload")),
        *((ServerBehaviour, name) for name in ("supersede", "unsubscribed", "attributes", "stat_attributes")),
    ],
)
def test_a_behaviour_that_is_not_a_choice_is_refused(behaviour: type, name: str) -> None:
    with pytest.raises(RapConfigurationError, match=rf"'{name}' cannot be 'never'.*Valid: '"):
        behaviour(**{name: "never"})


def test_an_upload_shows_nothing_of_its_content() -> None:
    secret = PrivateKey.generate(2048).to_openssh()
    assert "PRIVATE" not in repr(Upload(ACCOUNT, NAME, secret.encode(), NOW, 1))
