"""The simulated RAP: one object to start, fill and look at."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Collection, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.files import Kind
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER, Folder, Service
from airflow_provider_hkex_rap.rap.keys import PublicKey
from airflow_provider_hkex_rap.rap.report_name import Naming
from airflow_provider_hkex_rap.testing._documents import generated_content
from airflow_provider_hkex_rap.testing._facility import SUBMISSION, Facility
from airflow_provider_hkex_rap.testing._keys import private_pem, rsa_key
from airflow_provider_hkex_rap.testing._tree import Content, Given, ServedFile, Tree
from airflow_provider_hkex_rap.testing.behaviour import Access, KeyFolderBehaviour, ServerBehaviour
from airflow_provider_hkex_rap.testing.clock import SimulatedClock
from airflow_provider_hkex_rap.testing.events import path_text
from airflow_provider_hkex_rap.testing.faults import FaultRules
from airflow_provider_hkex_rap.testing.reports import generate_day

if TYPE_CHECKING:
    from types import TracebackType

    import pendulum

    from airflow_provider_hkex_rap.testing._server import RapServer
    from airflow_provider_hkex_rap.testing.events import EventLog
    from airflow_provider_hkex_rap.testing.key_management import KeyManagement, Upload

_START_SECONDS = 10


class RapSimulator:
    """Run a simulated RAP on 127.0.0.1 that follows the rules of the guide; use it in a ``with`` block.

    A pytest in which a task lands one report. The clock of tasks must show the simulator's time, since tasks
    wait if RAP is shut::

        NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")

        def test_a_report_lands(monkeypatch, tmp_path):
            with RapSimulator(["DCXYZ001"], NOW) as rap:
                rap.put("DCASS", "TP001_CXYZ_20261120.csv", b"1,2,3")
                offset = (NOW - pendulum.now()).total_seconds()
                monkeypatch.setenv("AIRFLOW__HKEX_RAP__CLOCK_OFFSET", str(offset))
                monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", rap.connection_json("DCXYZ001"))
                task = RapDownloadOperator(task_id="land", folders=["DCASS"], lake=tmp_path.as_uri())
                task.execute({})
                assert rap.events.of("open", path="/download/DCASS/TP001_CXYZ_20261120.csv")
                assert [path.read_bytes() for path in tmp_path.rglob("TP001_*")] == [b"1,2,3"]

    The server runs in a thread of its own. Each account has one registered RSA key, which no other account
    has. Add to :attr:`faults` to make something go wrong, and move :attr:`clock` to let time pass.

    :param accounts: the RAP user accounts (§3.1); accounts of one customer see the same reports.
    :param now: the aware time that :attr:`clock` shows first; None for the machine's time.
    :param port: the TCP port; 0 for a free one.
    :param name: the name of the server; each name has a host key of its own.
    :param access: who may log in, until when, and which files they see; by default every account, always.
    :param server: how the SSH and SFTP server behaves if the guide leaves it open.
    :param key_folder: how the key folder behaves if the guide leaves it open.
    :raises RapConfigurationError: if an account's name has another form than §3.1 gives, or if *now* has no
        time zone.
    """

    host = "127.0.0.1"
    port: int
    """The TCP port; before the start, the port that was asked for."""

    def __init__(
        self,
        accounts: Sequence[str] = ("DCXYZ001",),
        now: pendulum.DateTime | None = None,
        *,
        port: int = 0,
        name: str = "rap",
        access: Access | None = None,
        server: ServerBehaviour | None = None,
        key_folder: KeyFolderBehaviour | None = None,
    ) -> None:
        access = access or Access()
        self.accounts = tuple(Account(account).name for account in accounts)
        self.clock = SimulatedClock(now)
        self.faults = FaultRules(self._wake)
        self.port = port
        self._host_key = rsa_key(name)
        self._facility = Facility(
            subscriptions={
                account: tuple(access.subscriptions.get(account, Service)) for account in self.accounts
            },
            clock=self.clock,
            faults=self.faults,
            access=access,
            server=server or ServerBehaviour(),
            key_folder=key_folder or KeyFolderBehaviour(),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        for account in self.accounts:
            self.keys.register(account, rsa_key(account), access.key_expires)

    # Running.

    def start(self) -> Self:
        """Start the server; afterwards :attr:`port` is the real port, and a restart uses the same one.

        :raises OSError: if the port is in use.
        """
        from airflow_provider_hkex_rap.testing._server import RapServer

        self._loop = asyncio.new_event_loop()
        self._server: RapServer = RapServer(self._facility, self._host_key)
        self._thread = threading.Thread(target=self._loop.run_forever, name="rap-simulator", daemon=True)
        self._thread.start()
        try:
            listening = self._server.listen(self.host, self.port)
            self.port = asyncio.run_coroutine_threadsafe(listening, self._loop).result(_START_SECONDS)
        except BaseException:
            self._stop_loop(self._loop)
            raise
        return self

    def stop(self) -> None:
        """End every session and stop the server; do nothing if it is not running."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(_START_SECONDS)
            self._stop_loop(self._loop)

    def _stop_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = None
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    def _wake(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._server.wake)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # Keys and connections.

    @property
    def host_key(self) -> str:
        """The public host key, in OpenSSH's one-line form, for clients to pin."""
        return self._host_key.export_public_key("openssh").decode().strip()

    @property
    def keys(self) -> KeyManagement:
        """The registered keys, the uploaded keys and their results."""
        return self._facility.keys

    def register_key(self, account: str, public_key: str, expires: date | None = None) -> None:
        """Make a key the only key of *account*, as HKEX does if a key is lost, compromised or expired (§5).

        :param account: one of :attr:`accounts`.
        :param public_key: the text of a public key file, in SSH2 form (RFC 4716) or in OpenSSH's form.
        :param expires: last day, in Hong Kong, on which the key can log in; None for two years less a day
            from now.
        :raises RapConfigurationError: if there is no such account, if HKEX does not accept the key (§3.2.1),
            or if another account has the key (§3.2).
        """
        from asyncssh import import_public_key

        key = import_public_key(PublicKey.parse(public_key).to_openssh())
        self.keys.register(self._check(account), key, expires)

    def private_key(self, account: str) -> str:
        """Return the private key that *account* had at first, in OpenSSH's PEM form.

        :param account: one of :attr:`accounts`.
        :raises RapConfigurationError: if there is no such account.
        """
        self._check(account)
        return private_pem(account)

    def connection(self, account: str) -> dict[str, Any]:
        """Return the arguments of an Airflow ``Connection`` to this simulated RAP.

        :param account: one of :attr:`accounts`.
        :raises RapConfigurationError: if there is no such account.
        """
        return {
            "conn_type": "hkex_rap",
            "login": account,
            "host": self.host,
            "port": self.port,
            "extra": {"host_key": self.host_key, "private_key": self.private_key(account)},
        }

    def connection_json(self, account: str) -> str:
        """Return the same connection as JSON, for an environment variable ``AIRFLOW_CONN_…``.

        :param account: one of :attr:`accounts`.
        :raises RapConfigurationError: if there is no such account.
        """
        return json.dumps(self.connection(account))

    # Files and events.

    def publish_day(
        self, business_date: date, reports: int = 40, seed: int = 0, *, missing: Collection[str] = ()
    ) -> list[ServedFile]:
        """Publish the reports of one business date for every customer; return them.

        As on RAP, each report appears when the clock reaches its mtime; the last DCASS reports appear at
        about 01:10 of the next day. A report without a date in its name replaces that of an earlier day.

        :param business_date: the business date of the reports.
        :param reports: number of reports for each customer, without the monthly ones.
        :param seed: another seed gives other sizes, times and content.
        :param missing: codes of reports that do not come, such as ``TP001``.
        :raises RapConfigurationError: if *missing* names a report that the day would not have.
        """
        published, codes = [], set()
        for customer, tree in self._facility.downloads.items():
            naming = Naming(customer=customer)
            for file in generate_day(business_date, customer, reports=reports, seed=seed):
                code = naming.read(file.text, file.mtime, self.clock()).report
                codes.add(code)
                if code not in missing:
                    tree.put(file)
                    published.append(file)
        if unknown := sorted(set(missing) - codes):
            raise RapConfigurationError(
                f"{business_date.isoformat()} has no report {', '.join(unknown)} that could be missing.",
                why=f"Its reports are {', '.join(sorted(codes))}.",
                todo="Name one of these.",
            )
        return published

    def put(
        self,
        folder: Folder | str,
        name: str | bytes,
        content: bytes | int = b"",
        mtime: pendulum.DateTime | int | None = None,
        *,
        account: str | None = None,
        kind: Kind = Kind.FILE,
    ) -> ServedFile:
        """Put one entry into a folder at once, or replace the entry of the same name; return it.

        :param folder: a download folder by name, such as ``DCASS``, or a path on RAP; a folder below a known
            folder is created.
        :param name: the entry's name; bytes if the name is not UTF-8.
        :param content: the content, or the number of bytes to generate.
        :param mtime: the mtime, as an aware time or in seconds since the epoch; None for now.
        :param account: put the entry into the folder of this account; None for every account.
        :param kind: the kind of entry: file, folder, symlink or other.
        :raises RapConfigurationError: if there is no such folder or account.
        """
        raw = name.encode() if isinstance(name, str) else name
        path = _path(folder)
        when = self.clock() if mtime is None else mtime
        seconds = when if isinstance(when, int) else when.int_timestamp
        if isinstance(content, bytes):
            body: Content = Given(content)
        else:
            body = generated_content(path_text(raw), content, f"{raw!r} at {seconds}")
        file = ServedFile(path, raw, body, seconds, kind)
        for tree in self._trees(path, account):
            tree.put(file)
        return file

    def remove(self, folder: Folder | str, name: str | bytes, *, account: str | None = None) -> None:
        """Remove one entry.

        :param folder: the folder, as for :meth:`put`.
        :param name: the entry's name.
        :param account: remove the entry from the folder of this account; None for every account.
        :raises KeyError: if the folder has no such entry.
        """
        raw = name.encode() if isinstance(name, str) else name
        path = _path(folder)
        for tree in self._trees(path, account):
            tree.remove(path, raw)

    def files(self, folder: Folder | str, *, account: str | None = None) -> list[ServedFile]:
        """Return the entries that a listing of *folder* shows now, without ``.`` and ``..``.

        :param folder: the folder, as for :meth:`put`.
        :param account: the account that lists the folder; None for the first of :attr:`accounts`.
        :raises RapConfigurationError: if there is no such folder or account.
        """
        return self._facility.listing(self._check(account or self.accounts[0]), _path(folder))

    @property
    def events(self) -> EventLog:
        """The log of logins, reads, uploads, denials and faults."""
        return self._facility.events

    @property
    def uploads(self) -> list[Upload]:
        """The uploaded files, oldest first."""
        return self.keys.uploads

    def _trees(self, path: str, account: str | None) -> list[Tree]:
        accounts = self.accounts if account is None else (self._check(account),)
        if path.startswith("/download"):
            customers = dict.fromkeys(Account(account).customer for account in accounts)
            return [self._facility.downloads[customer] for customer in customers]
        return [self._facility.own[account] for account in accounts]

    def _check(self, account: str) -> str:
        if account not in self.accounts:
            raise RapConfigurationError(
                f"{account!r} is not an account of this simulated RAP.",
                why=f"Its accounts are {', '.join(self.accounts)}.",
                todo="Add it to the argument 'accounts' of RapSimulator.",
                account=account,
            )
        return account


def _path(folder: Folder | str) -> str:
    """Return the path of a folder on RAP.

    :raises RapConfigurationError: if it is neither a folder of the guide (§4.2) nor below one.
    """
    if isinstance(folder, Folder) or not folder.startswith("/"):
        return Folder.parse(folder).path
    path = folder.rstrip("/")
    if f"{path}/".startswith((f"{KEY_FOLDER}/", f"{SUBMISSION}/")):
        return path
    Folder.parse("/".join(path.split("/")[:3]))
    return path
