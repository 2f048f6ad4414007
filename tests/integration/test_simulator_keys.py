"""The simulated RAP answers uploaded keys as the guide says (§6), in every way that the guide leaves open."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from typing import Any, TypeVar

import asyncssh
import pendulum
import pytest

from airflow_provider_hkex_rap.rap.expiry_warning import EXPIRY_WARNING_FILE, ExpiryWarning
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER
from airflow_provider_hkex_rap.rap.keys import PrivateKey
from airflow_provider_hkex_rap.rap.result_file import Received, Rejected, ResultName
from airflow_provider_hkex_rap.testing import Access, Fault, KeyFolderBehaviour, RapSimulator

ACCOUNT = "DCXYZ001"
OTHER = "DCXYZ002"
NOW = pendulum.datetime(2024, 3, 1, 9, 30, tz="Asia/Hong_Kong")
NAME = f"{ACCOUNT}.pub"
GONE = (asyncssh.ConnectionLost, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
T = TypeVar("T")


def new(number: int = 1) -> PrivateKey:
    """Return one of a few keys, the same one every time."""
    return _generated(number)


@cache
def _generated(number: int) -> PrivateKey:
    return PrivateKey.generate(2048)


loaded = cache(PrivateKey.load)
exported = cache(PrivateKey.to_openssh)
imported = cache(asyncssh.import_private_key)


@pytest.fixture
def rap() -> Iterator[RapSimulator]:
    with RapSimulator((ACCOUNT, OTHER), NOW) as rap:
        yield rap


def ask(
    rap: RapSimulator,
    question: Callable[[asyncssh.SFTPClient], Awaitable[T]],
    key: PrivateKey | None = None,
    account: str = ACCOUNT,
) -> T:
    """Log in, run *question*, and return its result; without *key*, use the first registered key."""

    async def answer() -> T:
        private_key = imported(exported(key) if key else rap.private_key(account))
        options: dict[str, Any] = {"agent_path": None, "known_hosts": None, "config": []}
        async with (
            asyncssh.connect(
                rap.host, rap.port, username=account, client_keys=[private_key], **options
            ) as connection,
            connection.start_sftp_client() as client,
        ):
            return await question(client)

    return asyncio.run(answer())


async def write(client: asyncssh.SFTPClient, content: bytes, name: str = NAME) -> None:
    async with client.open(f"{KEY_FOLDER}/{name}", "wb") as file:
        await file.write(content)


async def read(client: asyncssh.SFTPClient, name: str) -> bytes:
    async with client.open(f"{KEY_FOLDER}/{name}", "rb") as file:
        return bytes(await file.read())


async def times(client: asyncssh.SFTPClient) -> dict[str, int]:
    entries = [entry async for entry in client.scandir(KEY_FOLDER)]
    found = {str(entry.filename): int(entry.attrs.mtime or 0) for entry in entries}
    return {name: mtime for name, mtime in found.items() if name not in (".", "..")}


async def nothing(client: asyncssh.SFTPClient) -> None:
    """Do nothing after the login."""


def upload(
    rap: RapSimulator, number: int = 1, *, key: PrivateKey | None = None, account: str = ACCOUNT
) -> None:
    content = new(number).public_key.to_rfc4716(account).encode()
    ask(rap, lambda client: write(client, content, f"{account}.pub"), key, account)


def results(rap: RapSimulator, key: PrivateKey | None = None) -> dict[str, bytes]:
    """Return the result files that one login lists and reads."""

    async def look(client: asyncssh.SFTPClient) -> dict[str, bytes]:
        return {name: await read(client, name) for name in await times(client) if ResultName.parse(name)}

    return ask(rap, look, key)


def logs_in(rap: RapSimulator, key: PrivateKey | None = None, account: str = ACCOUNT) -> bool:
    try:
        ask(rap, nothing, key, account)
    except asyncssh.PermissionDenied:
        return False
    assert rap.events.of("login", account=account)[-1].detail == fingerprint(rap, key, account)
    return True


def fingerprint(rap: RapSimulator, key: PrivateKey | None = None, account: str = ACCOUNT) -> str:
    return (key or loaded(rap.private_key(account))).fingerprint


# An upload and its answer.


def test_an_accepted_key_is_answered_and_logs_in(rap: RapSimulator) -> None:
    upload(rap)
    ((name, content),) = results(rap, new()).items()
    parsed = ResultName.parse(name)
    assert parsed
    assert re.fullmatch(r"DCXYZ001\.pub\.0930\d\d\.rcvd", name)
    assert content.decode() == f"{new().fingerprint}      {NAME}\n"
    assert Received.parse(content) == (new().fingerprint, NAME)
    assert logs_in(rap)
    assert logs_in(rap, new())
    assert not logs_in(rap, new(), OTHER)
    (uploaded,) = rap.events.of("upload")
    (result,) = rap.events.of("result", session=uploaded.session)
    assert (result.account, result.path) == (ACCOUNT, f"{KEY_FOLDER}/{name}")
    assert result.detail == content.decode().strip()
    (kept,) = rap.keys.results
    assert (kept.account, kept.name, kept.text.encode(), kept.accepted) == (ACCOUNT, name, content, True)
    assert [it.fingerprint for it in rap.keys.valid(ACCOUNT)] == [fingerprint(rap), new().fingerprint]


def test_an_upload_renews_the_key_of_its_account_only(rap: RapSimulator) -> None:
    upload(rap)
    assert [it.fingerprint for it in rap.keys.valid(OTHER)] == [fingerprint(rap, account=OTHER)]
    assert not ask(rap, times, account=OTHER)


GUIDE_EXAMPLE = b"""---- BEGIN SSH2 PUBLIC KEY ----
Comment: SSH KEY
AAAAB3NzaC1kc3MAAACBAPY8ZOHY2yF5JA6XYC9HRwNHxaehvx5wOJ0rzZdzoSOXxbET
W6ToHv8D1UJ/z+zHo9Fiko5XybZnDIaBDHtblQ+Yp7StxyltHnXF1YLfKD1G4T6JYrdH
YI14Om1eg9e4NnCRleaQoZPF3UGfZia6bXrGTQf3gJq2e7Yisk/gF+1VAAAAFQDb8D5c
vwHWTZDPfX0D2s9Rd7NBvQAAAIEA1N92+Bb7D4KLYk3IwRbXblwXdkPggA4pfdtW9vGf
J0/RHd+NjB4eo1D+0dix6tXwYGN7PKS5R/FXPNwxHPapcj9uL1Jn2AWQ2dsknf+i/FAA
vioUPkmdMc0zuWoSOEsSNhVDtX3WdvVcGcBq9cetzrtOKWOocJmJ80qadxTRHtUAAACB
AN7CY+KKv1gHpRzFwdQm7HK9bb1LAo2KwaoXnadFgeptNBQeSXG1vO+JsvphVMBJc9HS
n24VYtYtsMu74qXviYjziVucWKjjKEb11juqnF0GD1B3VVMxHLmxnAz643WK42Z7dLM5
sY29ouezv4Xz2PuMch5VGPP+CDqzCM41oWgV
---- END SSH2 PUBLIC KEY ----
"""
"""The example of §3.2.1: a DSA key, which the guide itself does not accept."""


def public(algorithm: str, form: str, **size: int) -> bytes:
    return asyncssh.generate_private_key(algorithm, **size).export_public_key(form)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        (f"{OTHER}.pub", None, "4001"),
        ("dcxyz001.pub", None, "4001"),
        (ACCOUNT, None, "4001"),
        (f"{ACCOUNT} (1).pub", None, "4007"),
        ("钥匙.pub", None, "4007"),
        (NAME, b"", "4002"),
        (NAME, public("ssh-rsa", "openssh", key_size=2048), "4002"),
        (NAME, new().public_key.to_rfc4716(ACCOUNT).encode()[:-40], "4002"),
        (NAME, new().public_key.to_rfc4716(ACCOUNT).encode("utf-16"), "4002"),
        (NAME, new().public_key.to_rfc4716(ACCOUNT).encode().replace(b"\nAAAA", b"AAAA"), "4002"),
        (NAME, GUIDE_EXAMPLE, "4003"),
        (NAME, public("ecdsa-sha2-nistp256", "rfc4716"), "4003"),
        (NAME, public("ssh-rsa", "rfc4716", key_size=3072), "4003"),
    ],
)
def test_an_upload_that_is_not_a_new_key_of_the_account_is_rejected(
    rap: RapSimulator, name: str, content: bytes | None, code: str
) -> None:
    good = new().public_key.to_rfc4716(ACCOUNT).encode()
    ask(rap, lambda client: write(client, good if content is None else content, name))
    ((result, text),) = results(rap).items()
    assert re.fullmatch(rf"{re.escape(name)}\.0930\d\d\.rej", result)
    assert Rejected.parse(text).code == code
    assert Rejected.parse(text).message
    assert len(rap.keys.valid(ACCOUNT)) == 1
    assert not logs_in(rap, new())


@pytest.mark.parametrize(("owner", "code"), [(ACCOUNT, "4004"), (OTHER, "4005")])
def test_a_key_that_is_registered_is_rejected(rap: RapSimulator, owner: str, code: str) -> None:
    rap.register_key(owner, new().public_key.to_openssh())
    upload(rap, key=new() if owner == ACCOUNT else None)
    assert rap.keys.results[0].text.startswith(f"{code} ")
    assert [logs_in(rap, new(), account) for account in (ACCOUNT, OTHER)] == [
        owner == ACCOUNT,
        owner == OTHER,
    ]


# How long keys are valid (§5, §6.1, §6.3).


def test_the_timeline_of_the_guide() -> None:
    """§6.1: key A renewed by key B on 1 March 2024."""
    timeline = {
        (2024, 3, 14): (True, True),
        (2024, 3, 15): (False, True),
        (2026, 2, 28): (False, True),
        (2026, 3, 1): (False, False),
    }
    with RapSimulator((ACCOUNT,), NOW) as rap:
        upload(rap)
        for day, expected in timeline.items():
            for hour, minute in ((0, 0), (23, 59)):
                rap.clock.set(pendulum.datetime(*day, hour, minute, tz="Asia/Hong_Kong"))
                assert (logs_in(rap), logs_in(rap, new())) == expected
        rap.register_key(ACCOUNT, new(2).public_key.to_rfc4716(ACCOUNT))
        assert logs_in(rap, new(2))


@pytest.mark.parametrize(("left", "last_day"), [(0, 1), (5, 6), (13, 14), (14, 14), (500, 14)])
def test_an_earlier_expiry_of_the_old_key_is_not_extended(left: int, last_day: int) -> None:
    with RapSimulator((ACCOUNT,), NOW, access=Access(key_expires=NOW.add(days=left).date())) as rap:
        upload(rap)
        rap.clock.set(pendulum.datetime(2024, 3, last_day, 23, 59, tz="Asia/Hong_Kong"))
        assert logs_in(rap)
        rap.clock.advance(minutes=1)
        assert not logs_in(rap)
        assert logs_in(rap, new())


def test_a_registered_key_lasts_two_years(rap: RapSimulator) -> None:
    rap.clock.set(pendulum.datetime(2026, 2, 28, 23, 59, tz="Asia/Hong_Kong"))
    assert logs_in(rap)
    rap.clock.advance(minutes=1)
    assert not logs_in(rap)


def test_a_registration_removes_every_other_key(rap: RapSimulator) -> None:
    upload(rap)
    rap.register_key(ACCOUNT, new(2).public_key.to_openssh(), NOW.date())
    assert [logs_in(rap), logs_in(rap, new()), logs_in(rap, new(2))] == [False, False, True]
    rap.clock.advance(days=1)
    assert not logs_in(rap, new(2))


@pytest.mark.parametrize("by", [None, 1])
def test_a_third_key_replaces_the_second(rap: RapSimulator, by: int | None) -> None:
    upload(rap)
    rap.clock.advance(days=3)
    upload(rap, 2, key=new(by) if by else None)
    assert [logs_in(rap), logs_in(rap, new(1)), logs_in(rap, new(2))] == [True, False, True]
    rap.clock.set(pendulum.datetime(2024, 3, 14, 23, 59, tz="Asia/Hong_Kong"))
    assert logs_in(rap)
    rap.clock.advance(minutes=1)
    assert [logs_in(rap), logs_in(rap, new(2))] == [False, True]


def test_ten_years_of_renewals(rap: RapSimulator) -> None:
    key = None
    for number in range(1, 7):
        upload(rap, number, key=key)
        assert logs_in(rap, key)
        rap.clock.advance(days=700)
        assert not logs_in(rap, key)
        key = new(number)
        assert logs_in(rap, key)
    assert [result.accepted for result in rap.keys.results] == [True] * 6


# Result files: when they appear, and their names.


def test_a_result_is_gone_after_24_hours(rap: RapSimulator) -> None:
    upload(rap)
    at = rap.keys.results[0].at
    rap.clock.set(at.add(hours=24).subtract(seconds=30))
    assert results(rap)
    rap.clock.set(at.add(hours=24))
    assert not results(rap)
    with pytest.raises(asyncssh.SFTPNoSuchFile):
        ask(rap, lambda client: read(client, rap.keys.results[0].name))


def test_a_delayed_result() -> None:
    with RapSimulator(
        (ACCOUNT,), NOW, key_folder=KeyFolderBehaviour(results="delayed", result_delay=600)
    ) as rap:
        upload(rap)
        # The key is valid before the result appears.
        assert logs_in(rap, new())
        assert not results(rap)
        rap.clock.set(rap.keys.uploads[0].at.add(seconds=600))
        ((name, _),) = results(rap).items()
        assert re.fullmatch(r"DCXYZ001\.pub\.0940\d\d\.rcvd", name)
        assert ask(rap, times)[name] == rap.keys.results[0].at.int_timestamp


def test_a_result_in_a_fresh_listing_only() -> None:
    async def upload_and_list(client: asyncssh.SFTPClient) -> list[set[str]]:
        await write(client, new().public_key.to_rfc4716(ACCOUNT).encode())
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await read(client, rap.keys.results[0].name)
        return [{name for name in await times(client) if ResultName.parse(name)} for _ in range(3)]

    with RapSimulator((ACCOUNT,), NOW, key_folder=KeyFolderBehaviour(results="fresh_listing")) as rap:
        found = ask(rap, upload_and_list)
        name = {result.name for result in rap.keys.results}
        assert found == [set(), name, name]


def test_an_absent_result() -> None:
    with RapSimulator((ACCOUNT,), NOW, key_folder=KeyFolderBehaviour(results="absent")) as rap:
        upload(rap)
        assert not results(rap)
        assert logs_in(rap, new())
        assert not rap.events.of("result")


def test_a_result_without_pub_in_its_name() -> None:
    with RapSimulator((ACCOUNT,), NOW, key_folder=KeyFolderBehaviour(pub_in_result_names=False)) as rap:
        upload(rap)
        ((name, content),) = results(rap).items()
        assert re.fullmatch(r"DCXYZ001\.0930\d\d\.rcvd", name)
        assert Received.parse(content).file_name == NAME


# The uploaded file.


@pytest.mark.parametrize(
    ("variant", "after"), [("consumed", ()), ("lingers", (0,)), ("stays", (0, 60, 9999))]
)
def test_the_uploaded_file_lingers_is_consumed_or_stays(variant: Any, after: tuple[int, ...]) -> None:
    with RapSimulator((ACCOUNT,), NOW, key_folder=KeyFolderBehaviour(uploaded_file=variant)) as rap:
        upload(rap)
        at = rap.uploads[0].at
        for seconds in (0, 60, 9999):
            rap.clock.set(at.add(seconds=seconds))
            assert (NAME in ask(rap, times)) == (seconds in after)


@pytest.mark.parametrize("reupload", ["denied", "replaces"])
def test_a_second_upload_while_the_first_file_is_listed(reupload: Any) -> None:
    with RapSimulator(
        (ACCOUNT,), NOW, key_folder=KeyFolderBehaviour(uploaded_file="stays", reupload=reupload)
    ) as rap:
        upload(rap)
        if reupload == "denied":
            with pytest.raises(asyncssh.SFTPPermissionDenied):
                upload(rap, 2)
            assert [event.detail for event in rap.events.of("denied")] == ["overwrite"]
        else:
            upload(rap, 2)
            assert logs_in(rap, new(2))
            assert ask(rap, lambda client: read(client, NAME)) == rap.uploads[1].content


def test_a_result_is_never_replaced() -> None:
    with RapSimulator(
        (ACCOUNT,),
        NOW,
        key_folder=KeyFolderBehaviour(reupload="replaces"),
        access=Access(key_expires=NOW.date()),
    ) as rap:
        upload(rap)
        for name in (rap.keys.results[0].name, EXPIRY_WARNING_FILE):
            with pytest.raises(asyncssh.SFTPPermissionDenied):
                ask(rap, lambda client, name=name: write(client, b"", name))  # type: ignore[misc]
        assert len(rap.uploads) == 1


# The warning (§6.2).


async def warning(client: asyncssh.SFTPClient) -> tuple[str, int] | None:
    listed = await times(client)
    if EXPIRY_WARNING_FILE not in listed:
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await read(client, EXPIRY_WARNING_FILE)
        return None
    return (await read(client, EXPIRY_WARNING_FILE)).decode(), listed[EXPIRY_WARNING_FILE]


def test_a_warning_is_generated_daily_in_the_last_14_days() -> None:
    last_day = NOW.date().add(days=20)
    with RapSimulator((ACCOUNT,), NOW, access=Access(key_expires=last_day)) as rap:
        for days in (0, 6, 7, 8, 20):
            day = NOW.add(days=days)
            rap.clock.set(day)
            found = ask(rap, warning)
            assert (found is not None) == (days >= 7)
            if found:
                text, mtime = found
                assert ExpiryWarning.parse(text.encode())[1:] == ((fingerprint(rap),), (last_day,))
                assert mtime == day.start_of("day").int_timestamp


def test_a_warning_is_generated_after_a_renewal_until_the_old_key_is_removed() -> None:
    with RapSimulator((ACCOUNT,), NOW, access=Access(key_expires=NOW.date().add(days=4))) as rap:
        assert ask(rap, warning)
        upload(rap)
        for days in range(1, 7):
            rap.clock.set(NOW.add(days=days))
            found = ask(rap, warning, new())
            assert (found is not None) == (days <= 4)
            assert not found or ExpiryWarning.parse(found[0].encode()).fingerprints == (fingerprint(rap),)


def test_the_text_of_the_warning_can_be_chosen() -> None:
    text = "Dear {account}, {{your}} key ends on {last_day:%d/%m/%Y}"
    with RapSimulator(
        (ACCOUNT,),
        NOW,
        access=Access(key_expires=NOW.date()),
        key_folder=KeyFolderBehaviour(warning_text=text),
    ) as rap:
        found = ask(rap, warning)
        assert found
        assert found[0] == "Dear DCXYZ001, {your} key ends on 01/03/2024\n"


# Faults.


def fault_events(rap: RapSimulator) -> list[str]:
    return [event.detail for event in rap.events.of("fault")]


def converges(rap: RapSimulator) -> bool:
    """Upload without a fault; return whether that renews the key."""
    rap.clock.advance(minutes=1)
    upload(rap, 2)
    return logs_in(rap) and logs_in(rap, new(2)) and rap.keys.results[-1].accepted


def test_a_rejection(rap: RapSimulator) -> None:
    rap.faults.add(Fault("reject", code="4999", message="Not today"))
    upload(rap)
    ((name, content),) = results(rap).items()
    assert name.endswith(".rej")
    assert Rejected.parse(content) == ("4999", "Not today")
    assert not logs_in(rap, new())
    assert fault_events(rap) == ["reject"]
    assert converges(rap)


def test_no_result(rap: RapSimulator) -> None:
    rap.faults.add(Fault("no_result"))
    upload(rap)
    assert not results(rap)
    assert logs_in(rap, new())
    assert converges(rap)


def test_a_result_that_appears_later(rap: RapSimulator) -> None:
    rap.faults.add(Fault("delay_result", seconds=1000))
    upload(rap)
    assert not results(rap)
    rap.clock.set(rap.uploads[0].at.add(seconds=1000))
    assert results(rap)
    assert converges(rap)


def test_a_result_of_another_key(rap: RapSimulator) -> None:
    rap.faults.add(Fault("wrong_fingerprint"))
    upload(rap)
    (content,) = results(rap).values()
    assert Received.parse(content).fingerprint not in (None, new().fingerprint)
    assert logs_in(rap, new())
    assert converges(rap)


def test_an_accepted_key_that_does_not_log_in(rap: RapSimulator) -> None:
    fault = rap.faults.add(Fault("refuse_renewed_key", times=None))
    upload(rap)
    assert rap.keys.results[0].accepted
    assert [logs_in(rap), logs_in(rap, new()), logs_in(rap, account=OTHER)] == [True, False, True]
    rap.faults.release(fault)
    assert logs_in(rap, new())
    assert converges(rap)


def test_a_denied_upload(rap: RapSimulator) -> None:
    rap.faults.add(Fault("deny_upload"))
    with pytest.raises(asyncssh.SFTPPermissionDenied):
        upload(rap)
    assert not rap.uploads
    assert converges(rap)


@pytest.mark.parametrize("at_byte", [0, 100, 1 << 20])
def test_an_upload_that_is_cut_does_not_happen(rap: RapSimulator, at_byte: int) -> None:
    rap.faults.add(Fault("drop_upload", at_byte=at_byte))
    with pytest.raises(GONE):
        upload(rap)
    rap.events.wait_for("lost")
    assert fault_events(rap) == ["drop_upload"]
    assert not rap.uploads
    assert not ask(rap, times)
    assert converges(rap)


def test_an_upload_that_is_not_confirmed_does_happen(rap: RapSimulator) -> None:
    rap.faults.add(Fault("drop_after_upload"))
    with pytest.raises(GONE):
        upload(rap)
    rap.events.wait_for("lost")
    assert len(rap.uploads) == 1
    assert results(rap)
    assert logs_in(rap, new())
    assert converges(rap)


def test_a_key_whose_result_was_lost_is_accepted_again(rap: RapSimulator) -> None:
    rap.faults.add(Fault("no_result"))
    upload(rap)
    rap.clock.advance(days=2)
    upload(rap)
    assert [result.accepted for result in rap.keys.results] == [True]
    assert [key.last_day for key in rap.keys.valid(ACCOUNT)] == [
        pendulum.date(2024, 3, 14),
        pendulum.date(2026, 3, 2),
    ]
