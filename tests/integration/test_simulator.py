"""The simulated RAP follows the rules of the guide, in every way that the guide leaves open."""

import asyncio
import re
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncssh
import pendulum
import pytest

from airflow_provider_hkex_rap.rap import algorithms
from airflow_provider_hkex_rap.rap.files import Kind
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER, Folder, Service
from airflow_provider_hkex_rap.testing import Access, RapSimulator, ServerBehaviour

ACCOUNT = "DCXYZ001"
NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")
DCASS, CCMS = Folder.DCASS, Folder.HKCC_SEOCH_CCMS_GLOB
PATH = f"{DCASS.path}/TP001"
T = TypeVar("T")
KEY = f"{KEY_FOLDER}/{ACCOUNT}.pub"
CONTENT = bytes(range(256)) * 300


@pytest.fixture
def rap() -> Iterator[RapSimulator]:
    with RapSimulator((ACCOUNT,), NOW) as rap:
        rap.put(DCASS, "TP001", CONTENT)
        yield rap


def connecting(rap: RapSimulator, account: str = ACCOUNT, **options: Any) -> Any:
    connection = rap.connection(ACCOUNT if account not in rap.accounts else account)
    key = asyncssh.import_private_key(connection["extra"]["private_key"])
    host_key = asyncssh.import_public_key(connection["extra"]["host_key"])
    defaults: dict[str, Any] = {
        "client_keys": [key],
        "known_hosts": ([host_key], [], []),
        "agent_path": None,
        "config": [],
        "username": account,
    }
    return asyncssh.connect(connection["host"], connection["port"], **(defaults | options))


@asynccontextmanager
async def sftp(
    rap: RapSimulator, account: str = ACCOUNT, encoding: str | None = "utf-8", **options: Any
) -> AsyncIterator[asyncssh.SFTPClient]:
    async with (
        connecting(rap, account, **options) as connection,
        connection.start_sftp_client(path_encoding=encoding) as client,
    ):
        yield client


def ask(
    rap: RapSimulator,
    question: Callable[[asyncssh.SFTPClient], Awaitable[T]],
    account: str = ACCOUNT,
    **options: Any,
) -> T:
    """Log in, run *question*, and return its result."""

    async def answer() -> T:
        async with sftp(rap, account, **options) as client:
            return await question(client)

    return asyncio.run(answer())


async def read(client: asyncssh.SFTPClient, path: str = PATH, size: int = 1 << 20, offset: int = 0) -> bytes:
    """Send one READ; do not ask again if the reply is short."""
    async with client.open(path, "rb", block_size=0) as file:
        return bytes(await file.read(size, offset))


async def entries(client: asyncssh.SFTPClient, path: Any = DCASS.path) -> dict[Any, asyncssh.SFTPAttrs]:
    return {entry.filename: entry.attrs async for entry in client.scandir(path)}


async def names(client: asyncssh.SFTPClient, path: str = DCASS.path) -> set[Any]:
    return set(await entries(client, path)) - {".", ".."}


# Reading and listing.


def test_published_reports_are_read_unchanged(rap: RapSimulator) -> None:
    published = rap.publish_day(NOW.date(), reports=30)
    rap.clock.advance(hours=2)

    async def read_all(client: asyncssh.SFTPClient) -> dict[bytes, bytes]:
        paths = [file.path for file in published]
        return dict(
            zip(paths, await asyncio.gather(*(read(client, path.decode()) for path in paths)), strict=True)
        )

    assert ask(rap, read_all) == {file.path: file.content for file in published}
    rap.events.wait_for("logout")
    assert len(rap.events.of("login")) == 1
    for file in published:
        assert len(rap.events.of("open", path=file.path)) == 1
        assert rap.events.of("close", path=file.path)[0].detail == f"{file.size} bytes"
    assert not rap.events.of("denied", "missing", "refused", "fault", "lost")


def test_a_listing_gives_the_entries_and_their_attributes(rap: RapSimulator) -> None:
    rap.put(DCASS, "empty", b"", NOW.subtract(days=2))
    found = ask(rap, entries)
    assert set(found) == {".", "..", "TP001", "empty"}
    assert (found["TP001"].size, found["empty"].size) == (len(CONTENT), 0)
    assert found["empty"].mtime == NOW.subtract(days=2).int_timestamp
    assert found["TP001"].type == asyncssh.FILEXFER_TYPE_REGULAR


def test_dots_are_listed_or_not() -> None:
    with RapSimulator(now=NOW, server=ServerBehaviour(list_dots=False)) as rap:
        assert set(ask(rap, entries)) == set()


@pytest.mark.parametrize(
    ("variant", "size", "mtime"),
    [("full", True, True), ("no_mtime", True, False), ("no_size", False, True), ("none", False, False)],
)
@pytest.mark.parametrize("of", ["attributes", "stat_attributes"])
def test_attributes_are_listed_or_left_out(of: str, variant: Any, size: bool, mtime: bool) -> None:
    async def look(client: asyncssh.SFTPClient) -> list[asyncssh.SFTPAttrs]:
        return [(await entries(client))["TP001"], await client.stat(PATH)]

    with RapSimulator(now=NOW, server=ServerBehaviour(**{of: variant})) as rap:
        rap.put(DCASS, "TP001", CONTENT)
        listed, stated = ask(rap, look)
        changed, other = (listed, stated) if of == "attributes" else (stated, listed)
        assert (changed.size is not None, changed.mtime is not None) == (size, mtime)
        assert (other.size, other.mtime) == (len(CONTENT), rap.files(DCASS)[0].mtime)


def test_names_are_bytes(rap: RapSimulator) -> None:
    odd = {b"../x", b"/abs", b"a\\b", b"nul\0", b"\xff\xfe", "ä".encode(), "a\u0308".encode()}
    for name in odd:
        rap.put(DCASS, name, b"1")
    found = ask(rap, lambda client: entries(client, DCASS.path.encode()), encoding=None)
    assert set(found) - {b".", b".."} == odd | {b"TP001"}


def test_other_entries_are_listed_as_what_they_are(rap: RapSimulator) -> None:
    rap.put(DCASS, "link", kind=Kind.SYMLINK)
    rap.put(f"{DCASS.path}/archive", "old", b"1")
    found = ask(rap, entries)
    assert found["link"].type == asyncssh.FILEXFER_TYPE_SYMLINK
    assert found["archive"].type == asyncssh.FILEXFER_TYPE_DIRECTORY
    assert ask(rap, lambda client: names(client, f"{DCASS.path}/archive")) == {"old"}


@pytest.mark.parametrize("limit", [1, 32 * 1024])
def test_one_read_returns_at_most_the_read_limit(limit: int) -> None:
    with RapSimulator(now=NOW, server=ServerBehaviour(read_limit=limit)) as rap:
        rap.put(DCASS, "TP001", CONTENT)
        assert ask(rap, read) == CONTENT[:limit]


def test_limits_are_announced_or_not(rap: RapSimulator) -> None:
    async def limit(client: asyncssh.SFTPClient) -> int:
        return client.limits.max_read_len

    with RapSimulator(now=NOW, server=ServerBehaviour(read_limit=1000, announce_limits=True)) as other:
        assert ask(other, limit) == 1000
    assert ask(rap, limit) != 1000


def test_a_large_file_costs_no_memory(rap: RapSimulator) -> None:
    size = 1 << 40
    file = rap.put(DCASS, "LARGE", size)
    tail = ask(rap, lambda client: read(client, f"{DCASS.path}/LARGE", 100, size - 60))
    assert tail == file.body.read(size - 60, 60)
    assert len(tail) == 60


def test_many_entries_are_listed(rap: RapSimulator) -> None:
    expected = {f"{number}" for number in range(10_000)}
    for name in expected:
        rap.put(CCMS, name)
    assert ask(rap, lambda client: names(client, CCMS.path)) == expected


# Folders (§4.2).


def test_the_folders_of_the_guide_are_there(rap: RapSimulator) -> None:
    assert ask(rap, lambda client: names(client, "/")) == {"download", "key_management", "submission"}
    assert ask(rap, lambda client: names(client, "/download")) == set(Folder)
    assert ask(rap, lambda client: names(client, KEY_FOLDER)) == set()
    assert ask(rap, lambda client: names(client, "/submission")) == set()


@pytest.mark.parametrize("unsubscribed", ["missing", "denied"])
def test_a_folder_without_subscription(unsubscribed: Any) -> None:
    error = {"missing": asyncssh.SFTPNoSuchFile, "denied": asyncssh.SFTPPermissionDenied}[unsubscribed]
    with RapSimulator(
        now=NOW,
        access=Access(subscriptions={ACCOUNT: [Service.CCMS]}),
        server=ServerBehaviour(unsubscribed=unsubscribed),
    ) as rap:
        rap.put(DCASS, "TP001", CONTENT)
        for question in (names, read, lambda client: client.stat(PATH)):
            with pytest.raises(error):
                ask(rap, question)
        assert ask(rap, lambda client: names(client, CCMS.path)) == set()
        seen = ask(rap, lambda client: names(client, "/download"))
        assert seen == ({CCMS} if unsubscribed == "missing" else set(Folder))
        assert len(rap.events.of(unsubscribed)) == 3


def test_accounts_of_a_customer_share_reports_but_not_key_folders() -> None:
    with RapSimulator(("DCXYZ001", "DCXYZ002", "DCABC001"), NOW) as rap:
        rap.put(DCASS, "TP001", b"xyz", account="DCXYZ001")
        rap.put(KEY_FOLDER, "SSHKeyExpireWarning.txt", b"", account="DCXYZ001")
        assert [ask(rap, names, account) for account in rap.accounts] == [{"TP001"}, {"TP001"}, set()]
        seen = [ask(rap, lambda client: names(client, KEY_FOLDER), account) for account in rap.accounts]
        assert seen == [{"SSHKeyExpireWarning.txt"}, set(), set()]


# Read only (§4.2).


async def write(client: asyncssh.SFTPClient, path: str, mode: str = "wb", data: bytes = b"x") -> None:
    async with client.open(path, mode) as file:
        await file.write(data)


CHANGES: dict[str, Callable[[asyncssh.SFTPClient], Awaitable[object]]] = {
    "remove": lambda client: client.remove(PATH),
    "rename": lambda client: client.rename(PATH, f"{PATH}.old"),
    "mkdir": lambda client: client.mkdir(f"{DCASS.path}/new"),
    "rmdir": lambda client: client.rmdir(DCASS.path),
    "setstat": lambda client: client.utime(PATH, (0, 0)),
    "symlink": lambda client: client.symlink(PATH, f"{PATH}.link"),
    "readlink": lambda client: client.readlink(PATH),
    "upload": lambda client: write(client, f"{DCASS.path}/new"),
    "overwrite": lambda client: write(client, PATH),
    "append": lambda client: write(client, PATH, "ab"),
    "modify": lambda client: write(client, PATH, "r+b"),
    "upload elsewhere": lambda client: write(client, "/submission/new"),
    "upload at the top": lambda client: write(client, "/new"),
    "append a new key": lambda client: write(client, KEY, "ab"),
    "upload below": lambda client: write(client, f"{KEY_FOLDER}/below/new"),
    "modify the key folder": lambda client: client.rename(KEY_FOLDER, "/old"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_change_is_allowed(rap: RapSimulator, change: str) -> None:
    before = rap.files(DCASS)
    with pytest.raises(asyncssh.SFTPPermissionDenied):
        ask(rap, CHANGES[change])
    assert len(rap.events.of("denied")) == 1
    assert rap.files(DCASS) == before
    assert before[0].content == CONTENT
    assert not rap.uploads


def test_setting_attributes_of_an_open_file_is_denied(rap: RapSimulator) -> None:
    async def change(client: asyncssh.SFTPClient) -> None:
        async with client.open(PATH, "rb") as file:
            await file.utime((0, 0))

    with pytest.raises(asyncssh.SFTPPermissionDenied):
        ask(rap, change)
    assert [event.path for event in rap.events.of("denied", detail="fsetstat")] == [PATH]


def test_a_new_key_is_uploaded_and_read_back(rap: RapSimulator) -> None:
    async def upload(client: asyncssh.SFTPClient) -> bytes:
        await write(client, KEY, data=CONTENT)
        return await read(client, KEY)

    assert ask(rap, upload) == CONTENT
    (kept,) = rap.uploads
    assert (kept.account, kept.name, kept.content) == (ACCOUNT, f"{ACCOUNT}.pub".encode(), CONTENT)
    assert [event.path for event in rap.events.of("upload")] == [KEY]
    assert not rap.events.of("denied")


@pytest.mark.parametrize("mode", ["wb", "ab", "r+b", "xb"])
def test_an_uploaded_key_cannot_be_modified(rap: RapSimulator, mode: str) -> None:
    ask(rap, lambda client: write(client, KEY, data=CONTENT))
    with pytest.raises(asyncssh.SFTPPermissionDenied):
        ask(rap, lambda client: write(client, KEY, mode))
    with pytest.raises(asyncssh.SFTPPermissionDenied):
        ask(rap, lambda client: client.remove(KEY))
    assert [upload.content for upload in rap.uploads] == [CONTENT]


def test_of_two_uploads_of_one_name_the_first_closed_wins(rap: RapSimulator) -> None:
    async def upload_twice(client: asyncssh.SFTPClient) -> None:
        first, second = await client.open(KEY, "wb"), await client.open(KEY, "wb")
        await first.write(b"first")
        await second.write(b"second")
        await first.close()
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            await second.close()

    ask(rap, upload_twice)
    assert [upload.content for upload in rap.uploads] == [b"first"]


def test_an_upload_cannot_be_resumed(rap: RapSimulator) -> None:
    async def resume(client: asyncssh.SFTPClient) -> None:
        async with client.open(KEY, "wb") as file:
            await file.write(b"x", 10)

    with pytest.raises(asyncssh.SFTPPermissionDenied):
        ask(rap, resume)


def test_an_upload_that_is_not_closed_does_not_happen(rap: RapSimulator) -> None:
    async def abandon() -> None:
        async with connecting(rap) as connection:
            client = await connection.start_sftp_client()
            file = await client.open(KEY, "wb")
            await file.write(CONTENT)
            connection.abort()

    asyncio.run(abandon())
    rap.events.wait_for("lost")
    assert not rap.uploads
    assert ask(rap, lambda client: names(client, KEY_FOLDER)) == set()


# Nothing but SFTP.


@pytest.mark.parametrize("wanted", [{"command": "id"}, {"subsystem": "shell"}, {}])
def test_there_is_no_shell(rap: RapSimulator, wanted: dict[str, str]) -> None:
    async def run() -> None:
        async with connecting(rap) as connection:
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.create_process(**wanted)

    asyncio.run(run())
    assert rap.events.of("denied")


def test_nothing_is_forwarded(rap: RapSimulator) -> None:
    async def forward() -> None:
        async with connecting(rap) as connection:
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.open_connection("127.0.0.1", rap.port)
            with pytest.raises(asyncssh.ChannelListenError):
                await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", rap.port)

    asyncio.run(forward())
    assert len(rap.events.of("denied")) == 2


# Logging in (§3, §4.3, §7).


@pytest.mark.parametrize(
    ("account", "options", "reason"),
    [
        ("dcxyz001", {}, "unknown account"),
        ("DCXYZ002", {}, "unknown account"),
        (ACCOUNT, {"client_keys": [asyncssh.generate_private_key("ssh-rsa")]}, "unregistered key"),
        (ACCOUNT, {"client_keys": [asyncssh.generate_private_key("ecdsa-sha2-nistp256")]}, None),
        (ACCOUNT, {"client_keys": None, "password": "secret"}, None),
    ],
)
def test_a_login_is_refused(
    rap: RapSimulator, account: str, options: dict[str, Any], reason: str | None
) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        ask(rap, names, account, **options)
    assert not rap.events.of("login")
    if reason:
        assert {event.detail for event in rap.events.of("refused")} == {reason}


def test_the_key_of_another_account_is_refused() -> None:
    with RapSimulator(("DCXYZ001", "DCXYZ002"), NOW) as rap:
        other = asyncssh.import_private_key(rap.private_key("DCXYZ002"))
        with pytest.raises(asyncssh.PermissionDenied):
            ask(rap, names, client_keys=[other])


def test_only_public_keys_are_asked_for(rap: RapSimulator) -> None:
    async def methods() -> list[str]:
        return list(await asyncssh.get_server_auth_methods(rap.host, rap.port, username=ACCOUNT, config=[]))

    assert asyncio.run(methods()) == ["publickey"]


def test_an_unregistered_address_is_refused() -> None:
    with RapSimulator(now=NOW, access=Access(allowed_addresses=["127.0.0.2"])) as rap:
        with pytest.raises(asyncssh.PermissionDenied):
            ask(rap, names)
        assert ask(rap, names, local_addr=("127.0.0.2", 0)) == set()
        assert rap.events.of("refused", detail="unregistered address")
        assert len(rap.events.of("login")) == 1


def test_a_registration_replaces_the_key(rap: RapSimulator) -> None:
    new = asyncssh.generate_private_key("ssh-rsa", key_size=4096)
    rap.keys.register(ACCOUNT, new)
    with pytest.raises(asyncssh.PermissionDenied):
        ask(rap, names)
    assert ask(rap, names, client_keys=[new]) == {"TP001"}


@pytest.mark.parametrize("supersede", ["disconnect", "cut"])
def test_the_newest_login_wins(supersede: Any) -> None:
    async def log_in_twice() -> None:
        async with connecting(rap) as older:
            client = await older.start_sftp_client()
            async with sftp(rap) as newer:
                with pytest.raises((asyncssh.SFTPError, asyncssh.Error)):
                    await names(client)
                await older.wait_closed()
                assert await names(newer) == set()

    with RapSimulator(now=NOW, server=ServerBehaviour(supersede=supersede)) as rap:
        asyncio.run(log_in_twice())
        rap.events.wait_for("logout")
        assert [event.session for event in rap.events.of("superseded")] == [1]
        assert [event.session for event in rap.events.of("logout", "lost")] == [2]
        assert rap.events.peak_sessions(ACCOUNT) == 2


def test_logins_one_after_another_do_not_overlap(rap: RapSimulator) -> None:
    for _ in range(3):
        ask(rap, names)
    assert rap.events.peak_sessions(ACCOUNT) == 1
    assert not rap.events.of("superseded")


def test_a_login_does_not_end_sessions_of_other_accounts() -> None:
    async def log_in_both() -> set[Any]:
        async with sftp(rap, "DCXYZ001") as one, sftp(rap, "DCXYZ002"):
            return await names(one)

    with RapSimulator(("DCXYZ001", "DCXYZ002"), NOW) as rap:
        assert asyncio.run(log_in_both()) == set()
        assert not rap.events.of("superseded")


# Algorithms (§2.1).


async def offer(rap: RapSimulator) -> dict[str, list[str]]:
    """Return the algorithms that the server offers in its first KEXINIT."""
    reader, writer = await asyncio.open_connection(rap.host, rap.port)
    await reader.readline()
    writer.write(b"SSH-2.0-test\r\n")
    length = int.from_bytes(await reader.readexactly(4), "big")
    packet = await reader.readexactly(length)
    writer.close()
    at, lists = 1 + 1 + 16, []
    for _ in range(10):
        size = int.from_bytes(packet[at : at + 4], "big")
        lists.append(packet[at + 4 : at + 4 + size].decode().split(","))
        at += 4 + size
    return dict(zip(("kex", "host_key", "cipher", "_", "mac", "__", "compression"), lists, strict=False))


MARKERS = {"ext-info-s", "kex-strict-s-v00@openssh.com"}


def test_only_the_algorithms_of_the_guide_are_offered(rap: RapSimulator) -> None:
    offered = asyncio.run(offer(rap))
    assert set(offered["kex"]) == set(algorithms.KEY_EXCHANGE) | MARKERS
    assert set(offered["host_key"]) == set(algorithms.PUBLIC_KEY)
    assert set(offered["cipher"]) == set(algorithms.CIPHERS)
    assert set(offered["mac"]) == set(algorithms.MACS)
    assert offered["compression"] == ["none"]


@pytest.mark.parametrize(
    ("option", "algorithm"),
    [
        *(("kex_algs", algorithm) for algorithm in algorithms.KEY_EXCHANGE),
        *(("encryption_algs", algorithm) for algorithm in algorithms.CIPHERS),
        *(("server_host_key_algs", algorithm) for algorithm in algorithms.PUBLIC_KEY),
        *(("signature_algs", algorithm) for algorithm in algorithms.PUBLIC_KEY),
    ],
)
def test_every_algorithm_of_the_guide_works(rap: RapSimulator, option: str, algorithm: str) -> None:
    assert ask(rap, names, **{option: [algorithm]}) == {"TP001"}


@pytest.mark.parametrize("mac", algorithms.MACS)
def test_every_mac_of_the_guide_works(rap: RapSimulator, mac: str) -> None:
    assert ask(rap, names, encryption_algs=["aes256-ctr"], mac_algs=[mac]) == {"TP001"}


@pytest.mark.parametrize("allowed", algorithms.PUBLIC_KEY)
def test_accounts_may_sign_with_some_algorithms_only(allowed: str) -> None:
    with RapSimulator(now=NOW, server=ServerBehaviour(client_signatures=[allowed])) as rap:
        assert ask(rap, names) == set()
        for other in set(algorithms.PUBLIC_KEY) - {allowed}:
            with pytest.raises(asyncssh.PermissionDenied):
                ask(rap, names, signature_algs=[other])


def test_another_signature_is_refused_if_the_server_sends_no_server_sig_algs() -> None:
    with RapSimulator(
        now=NOW, server=ServerBehaviour(client_signatures=["rsa-sha2-256"], server_sig_algs=False)
    ) as rap:
        # asyncssh signs with SHA-1 if the server sends no server-sig-algs.
        with pytest.raises(asyncssh.PermissionDenied):
            ask(rap, names)
        assert rap.events.of("refused", detail="signature algorithm ssh-rsa")


@pytest.mark.parametrize("variant", [{"server_sig_algs": False}, {"extension_markers": False}])
def test_extensions_may_be_missing(variant: dict[str, bool]) -> None:
    with RapSimulator(now=NOW, server=ServerBehaviour(**variant)) as rap:
        assert ask(rap, names) == set()
        offered = asyncio.run(offer(rap))["kex"]
        assert MARKERS.isdisjoint(offered) == (variant == {"extension_markers": False})


# Time (§4.1).


@pytest.mark.parametrize(
    ("at", "is_open"),
    [
        ("20 06:59", False),
        ("20 07:00", True),
        ("21 03:29", True),
        ("21 03:30", False),
        ("21 08:00", True),
        ("22 12:00", False),
    ],
)
def test_logins_outside_the_service_hours_are_refused(at: str, is_open: bool) -> None:
    now = pendulum.from_format(f"2026-11-{at}", "YYYY-MM-DD HH:mm", tz="Asia/Hong_Kong")
    with RapSimulator(now=now, access=Access(enforce_hours=True)) as rap:
        if is_open:
            assert ask(rap, lambda client: names(client, "/submission")) == set()
        else:
            with pytest.raises(asyncssh.DisconnectError, match="service hours"):
                ask(rap, names)
            assert rap.events.of("refused", detail="service hours")


def test_a_service_is_shut_while_another_is_open() -> None:
    now = pendulum.datetime(2026, 11, 20, 23, 59, tz="Asia/Hong_Kong")
    with RapSimulator(now=now, access=Access(enforce_hours=True)) as rap:
        assert ask(rap, lambda client: names(client, CCMS.path)) == set()
        rap.clock.advance(minutes=1)
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            ask(rap, lambda client: names(client, CCMS.path))
        assert ask(rap, names) == set()


@pytest.mark.parametrize("days", [9, 10])
def test_a_report_expires_after_the_retention_days(days: int) -> None:
    with RapSimulator(now=NOW, access=Access(retention_days=days)) as rap:
        rap.put(DCASS, "TP001", CONTENT, NOW.start_of("day"))
        rap.put(KEY_FOLDER, "old", b"", NOW.subtract(years=1))
        rap.clock.set(NOW.start_of("day").add(days=days, hours=23))
        assert ask(rap, names) == {"TP001"}
        rap.clock.advance(hours=1)
        assert ask(rap, names) == set()
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            ask(rap, read)
        assert ask(rap, lambda client: names(client, KEY_FOLDER)) == {"old"}


def test_reports_appear_when_they_are_generated() -> None:
    with RapSimulator(now=NOW) as rap:
        published = rap.publish_day(NOW.date())
        after_midnight = {file.text for file in published if file.mtime > NOW.int_timestamp}
        assert after_midnight
        seen = set.union(
            *(ask(rap, lambda client, path=folder.path: names(client, path)) for folder in Folder)
        )
        assert seen == {file.text for file in published} - after_midnight
        rap.clock.set(NOW.add(days=1).at(1, 10))
        assert {file.text for folder in Folder for file in rap.files(folder)} == {
            file.text for file in published
        }


# The documentation.


def test_the_example_of_a_pytest_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from airflow_provider_hkex_rap.operators.download import RapDownloadOperator

    (example,) = re.findall(r"::\n\n((?: {8}.*\n|\n)+)", RapSimulator.__doc__ or "")
    names = {
        "pendulum": pendulum,
        "RapSimulator": RapSimulator,
        "RapDownloadOperator": RapDownloadOperator,
    }
    exec(textwrap.dedent(example), names)
    names["test_a_report_lands"](monkeypatch, tmp_path)
