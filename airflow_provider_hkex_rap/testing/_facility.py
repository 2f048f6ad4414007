"""The state of the simulated RAP and its rules: accounts, folders, service hours, retention (§3, §4)."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.expiry_warning import EXPIRY_WARNING_FILE
from airflow_provider_hkex_rap.rap.files import Kind
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER, Folder, Service
from airflow_provider_hkex_rap.rap.service_hours import is_open
from airflow_provider_hkex_rap.testing._tree import Given, ServedFile, Tree
from airflow_provider_hkex_rap.testing.events import Event, EventKind, EventLog, path_text
from airflow_provider_hkex_rap.testing.key_management import KeyManagement, Upload

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing.behaviour import Access, KeyFolderBehaviour, ServerBehaviour
    from airflow_provider_hkex_rap.testing.clock import SimulatedClock
    from airflow_provider_hkex_rap.testing.faults import FaultRules

SUBMISSION = "/submission"
_WARNING = f"{KEY_FOLDER}/{EXPIRY_WARNING_FILE}".encode()


@dataclass(slots=True, kw_only=True)
class Facility:
    """The state of one simulated RAP, which all sessions share.

    :param subscriptions: the services of each account.
    :param clock: the clock of every rule.
    :param faults: the rules that make something go wrong.
    :param access: who may log in, until when, and which files they see.
    :param server: how the SSH and SFTP server behaves.
    :param key_folder: how the key folder behaves.
    """

    subscriptions: Mapping[str, tuple[Service, ...]]
    clock: SimulatedClock
    faults: FaultRules
    access: Access
    server: ServerBehaviour
    key_folder: KeyFolderBehaviour
    events: EventLog = field(default_factory=EventLog)
    keys: KeyManagement = field(init=False)
    downloads: dict[str, Tree] = field(init=False)
    """The reports, by customer code: the accounts of a customer see the same reports (§4.2)."""
    own: dict[str, Tree] = field(init=False)
    """The key folder and /submission, by account."""

    def __post_init__(self) -> None:
        customers = {Account(account).customer for account in self.subscriptions}
        self.downloads = {
            customer: Tree(*(folder.path for folder in Folder)) for customer in sorted(customers)
        }
        self.own = {account: Tree(KEY_FOLDER, SUBMISSION) for account in self.subscriptions}
        self.keys = KeyManagement(self.clock, self.faults, self.own, self.key_folder, self.record)

    def record(
        self, kind: EventKind, account: str, session: int, path: bytes = b"", detail: str = ""
    ) -> None:
        """Add an event to the log."""
        self.events.record(Event(kind, account, session, path_text(path), self.clock(), detail))

    def trees(self, account: str) -> tuple[Tree, Tree]:
        """Return the tree that *account* shares with the accounts of its customer, and its own tree."""
        return self.downloads[Account(account).customer], self.own[account]

    def is_registered_address(self, address: str) -> bool:
        """Return whether logins are allowed from a source address (§4.3, §7)."""
        allowed = self.access.allowed_addresses
        return allowed is None or address in allowed

    def is_open(self, account: str) -> bool:
        """Return whether any service of *account* is within its hours (§4.1)."""
        if not self.access.enforce_hours:
            return True
        now = self.clock()
        return any(is_open([service], now) for service in self.subscriptions.get(account, tuple(Service)))

    def find(self, account: str, path: bytes) -> ServedFile:
        """Return the file or folder at *path*.

        :raises FileNotFoundError: if the account sees nothing there.
        :raises PermissionError: if the account is not subscribed to the folder, or if its service is shut.
        """
        text = path.decode(errors="surrogateescape")
        self._check_subscription(account, text)
        trees = self.trees(account)
        if text == "/" or any(tree.holds(text) for tree in trees):
            return _directory(text)
        folder, name = posixpath.split(path)
        for tree in trees:
            file = tree.get(folder.decode(errors="surrogateescape"), name)
            if file is not None and self._available([file]):
                return file
        if path == _WARNING and (warning := self.keys.warning(account)):
            return warning
        raise FileNotFoundError

    def listing(self, account: str, folder: str) -> list[ServedFile]:
        """Return the entries of an existing folder: first its folders, then its files."""
        trees = self.trees(account)
        names = [name for tree in trees for name in tree.subfolders(folder)]
        directories = (_directory(posixpath.join(folder, name)) for name in names)
        seen = [directory for directory in directories if self._is_shown(account, path_text(directory.path))]
        files = [file for tree in trees for file in self._available(tree.files(folder))]
        warning = self.keys.warning(account) if folder == KEY_FOLDER else None
        if warning and warning.name not in {file.name for file in files}:
            files.append(warning)
        return seen + files

    def may_upload(self, account: str, path: bytes) -> bool:
        """Return whether *account* may upload *path*: it is a new file (§4.2), or files may be replaced."""
        try:
            self.find(account, path)
        except FileNotFoundError:
            return True
        return self.keys.may_replace(account, posixpath.basename(path))

    def accept_upload(self, account: str, session: int, path: bytes, content: bytes) -> None:
        """Store a completely uploaded key file and answer it (§4.2, §6)."""
        self.keys.on_upload(Upload(account, posixpath.basename(path), content, self.clock(), session))

    def _available(self, files: Sequence[ServedFile]) -> list[ServedFile]:
        """Return the files that have been published and have not expired (§4.1)."""
        now = self.clock()
        present = now.timestamp()
        first_kept = now.start_of("day").subtract(days=self.access.retention_days).timestamp()
        return [
            file
            for file in files
            if file.since <= present < file.until
            and (file.mtime >= first_kept or not file.folder.startswith("/download"))
        ]

    def _is_shown(self, account: str, path: str) -> bool:
        try:
            self._check_subscription(account, path)
        except FileNotFoundError:
            return False
        except PermissionError:
            return True
        return True

    def _check_subscription(self, account: str, path: str) -> None:
        for folder in Folder:
            if f"{path}/".startswith(f"{folder.path}/"):
                if folder.service not in self.subscriptions[account]:
                    if self.server.unsubscribed == "missing":
                        raise FileNotFoundError
                    raise PermissionError(f"not subscribed to {folder.service} (§4.2)")
                if self.access.enforce_hours and not is_open([folder.service], self.clock()):
                    raise PermissionError(f"outside the service hours of {folder.service} (§4.1)")


def _directory(path: str) -> ServedFile:
    folder, name = posixpath.split(path)
    return ServedFile(
        folder.rstrip("/"), name.encode(errors="surrogateescape"), Given(b""), 0, Kind.DIRECTORY
    )
