"""The registered keys of the simulated RAP, and its answers to uploaded keys (§3.2, §5, §6)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import count
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.expiry_warning import EXPIRY_WARNING_FILE
from airflow_provider_hkex_rap.rap.files import name_text
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER
from airflow_provider_hkex_rap.rap.key_lifecycle import (
    RegisteredKey,
    first_warning_day,
    keys_after_upload,
    last_day_of_new_key,
)
from airflow_provider_hkex_rap.rap.keys import KEY_SIZES
from airflow_provider_hkex_rap.testing._key_answers import (
    KeyRejectedError,
    Rejection,
    check_key_file,
    received_text,
    result_name,
)
from airflow_provider_hkex_rap.testing._tree import Given, ServedFile, Tree
from airflow_provider_hkex_rap.testing.events import EventKind

if TYPE_CHECKING:
    from asyncssh import SSHKey

    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.testing.behaviour import KeyFolderBehaviour
    from airflow_provider_hkex_rap.testing.faults import Fault, FaultRules

RESULT_KEPT = timedelta(hours=24)
"""How long a result file is available (§6)."""
LINGER = timedelta(minutes=1)
"""How long the key folder lists an uploaded file if the file ``lingers``."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One file uploaded to the key folder.

    :param account: the account that uploaded it.
    :param name: the file's name, in the bytes that were sent.
    :param content: the file's content.
    :param at: the time at which the upload was complete, by the simulator's clock.
    :param session: the number of the connection.
    """

    account: str
    name: bytes
    # Left out of the repr, since it may be a private key that was uploaded by mistake.
    content: bytes = field(repr=False)
    at: pendulum.DateTime
    session: int


@dataclass(frozen=True, slots=True)
class Result:
    """One result file (§6).

    :param account: the account whose key folder contains the file.
    :param name: the file's name.
    :param text: the file's content.
    :param accepted: whether the key was accepted (``.rcvd``) or rejected (``.rej``).
    :param at: the time at which the file is generated, by the simulator's clock; later than the upload if the
        result is delayed.
    """

    account: str
    name: str
    text: str
    accepted: bool
    at: pendulum.DateTime


class KeyManagement:
    """The keys of every account, and the answers to uploaded keys.

    :param clock: gives the time at which keys and files expire.
    :param faults: rules that change an answer.
    :param folders: for each account, the tree with its key folder.
    :param behaviour: how the key folder behaves if the guide leaves it open.
    :param record: adds an event to the log; called with kind, account, session, path and detail.
    """

    def __init__(
        self,
        clock: Clock,
        faults: FaultRules,
        folders: Mapping[str, Tree],
        behaviour: KeyFolderBehaviour,
        record: Callable[[EventKind, str, int, bytes, str], None],
    ) -> None:
        self.uploads: list[Upload] = []
        """The uploaded files, oldest first."""
        self.results: list[Result] = []
        """All result files, oldest first: also those that have expired or have not appeared yet."""
        self._clock = clock
        self._faults = faults
        self._folders = folders
        self._behaviour = behaviour
        self._record = record
        self._keys: dict[str, tuple[RegisteredKey, ...]] = dict.fromkeys(folders, ())
        self._changed: dict[str, pendulum.DateTime] = {}
        self._renewed: set[str] = set()
        self._unlisted: dict[str, list[ServedFile]] = defaultdict(list)

    # Registered keys.

    def register(self, account: str, key: SSHKey, expires: date | None = None) -> None:
        """Make *key* the only key of *account*, as a registration with HKEX does (§5).

        :param account: the account.
        :param key: an RSA key of 2048 or 4096 bits; only its fingerprint is kept.
        :param expires: last day, in Hong Kong, on which the key can log in; None for two years less a day
            from now, as for a renewed key (§6.1).
        :raises KeyError: if there is no such account.
        :raises RapConfigurationError: if the key has another type or size (§3.2.1), or if another account has
            the key (§3.2).
        """
        if account not in self._keys:
            raise KeyError(account)
        bits = getattr(key.pyca_key, "key_size", 0) if key.algorithm == b"ssh-rsa" else 0
        if bits not in KEY_SIZES:
            raise RapConfigurationError(
                f"{account} cannot register this {key.get_algorithm()} key.",
                why="RAP accepts RSA keys of 2048 and 4096 bits (guide §3.2.1).",
                todo="Generate an RSA key of 2048 or 4096 bits.",
                account=account,
            )
        fingerprint = fingerprint_of(key)
        if owner := self._other_owner(account, fingerprint):
            raise RapConfigurationError(
                f"{account} cannot register the key {fingerprint}.",
                why=f"It is the key of {owner}; each account needs a key of its own (guide §3.2).",
                todo=f"Generate a key for {account}.",
                account=account,
                fingerprint=fingerprint,
            )
        now = self._clock()
        last_day = pendulum.date(expires.year, expires.month, expires.day) if expires else None
        registered = RegisteredKey(fingerprint, last_day or last_day_of_new_key(now.date()))
        self._set(account, (registered,), now)

    def valid(self, account: str) -> tuple[RegisteredKey, ...]:
        """Return the keys that can log in now: none, one, or the old key and the renewed key (§6.3).

        :param account: the account.
        :raises KeyError: if there is no such account.
        """
        today = self._clock().date()
        return tuple(key for key in self._keys[account] if key.is_valid(today))

    def opens(self, account: str, key: SSHKey) -> bool:
        """Return whether *account* can log in with *key* now."""
        return fingerprint_of(key) in _fingerprints(self.valid(account))

    def is_renewed(self, account: str, key: SSHKey) -> bool:
        """Return whether *key* is the newest key of *account* and was uploaded."""
        fingerprint = fingerprint_of(key)
        newest = self._keys[account][-1:]
        return fingerprint in self._renewed and fingerprint in _fingerprints(newest)

    def _set(self, account: str, keys: tuple[RegisteredKey, ...], now: pendulum.DateTime) -> None:
        self._keys[account] = keys
        self._changed[account] = now

    def _other_owner(self, account: str, fingerprint: str) -> str | None:
        others = (other for other in list(self._keys) if other != account)
        return next((other for other in others if fingerprint in _fingerprints(self.valid(other))), None)

    # Uploads and their results (§6).

    def may_replace(self, account: str, name: bytes) -> bool:
        """Return whether *account* may replace the file *name*; the guide does not allow it (§4.2)."""
        uploaded = {upload.name for upload in self.uploads if upload.account == account}
        return self._behaviour.reupload == "replaces" and name in uploaded

    def on_upload(self, upload: Upload) -> None:
        """Store an uploaded file as long as the behaviour says, and answer it with a result file."""
        self.uploads.append(upload)
        self._keep(upload)
        self._note(EventKind.UPLOAD, upload, upload.name, f"{len(upload.content)} bytes")
        faults = self._take_faults(upload)
        try:
            fingerprint = self._take(upload, faults.get("reject"))
        except KeyRejectedError as rejected:
            text, accepted = f"{rejected}\n", False
        else:
            named = _another(fingerprint) if "wrong_fingerprint" in faults else fingerprint
            text, accepted = received_text(named, name_text(upload.name)), True
        if "no_result" not in faults and self._behaviour.results != "absent":
            delay = faults["delay_result"].seconds if "delay_result" in faults else self._delay
            self._answer(upload, text, accepted, delay)

    def _note(self, kind: EventKind, upload: Upload, name: bytes, detail: str) -> None:
        self._record(kind, upload.account, upload.session, f"{KEY_FOLDER}/".encode() + name, detail)

    def _take_faults(self, upload: Upload) -> dict[str, Fault]:
        path = f"{KEY_FOLDER}/{name_text(upload.name)}"
        faults = {it.kind: it for it in self._faults.take("answer", path=path, account=upload.account)}
        for kind in faults:
            self._note(EventKind.FAULT, upload, upload.name, kind)
        return faults

    def _keep(self, upload: Upload) -> None:
        variant, now = self._behaviour.uploaded_file, upload.at
        if variant == "consumed":
            return
        until = (now + LINGER).timestamp() if variant == "lingers" else float("inf")
        self._folders[upload.account].put(_file(upload.name, upload.content, now, until=until))

    def _take(self, upload: Upload, reject: Fault | None) -> str:
        """Register an uploaded key by the two-key rule (§6.3); return its fingerprint.

        :raises KeyRejectedError: if the key is not accepted.
        """
        if reject:
            raise KeyRejectedError(reject.code, reject.message)
        account = upload.account
        fingerprint = check_key_file(account, upload.name, upload.content).fingerprint
        if self._other_owner(account, fingerprint):
            raise KeyRejectedError.of(Rejection.KEY_OF_ANOTHER)
        # A client that lost the result of the renewed key may upload that key again.
        if fingerprint in _fingerprints(self.valid(account)[:1]):
            raise KeyRejectedError.of(Rejection.KEY_IN_USE)
        keys = keys_after_upload(self._keys[account], fingerprint, upload.at.date())
        self._renewed.add(fingerprint)
        self._set(account, keys, upload.at)
        return fingerprint

    @property
    def _delay(self) -> float:
        return self._behaviour.result_delay if self._behaviour.results == "delayed" else 0

    def _answer(self, upload: Upload, text: str, accepted: bool, delay: float) -> None:
        at = upload.at.add(seconds=delay)
        name = self._free_name(upload, at, accepted)
        file = _file(name, text.encode(), at, since=at.timestamp(), until=(at + RESULT_KEPT).timestamp())
        if self._behaviour.results == "fresh_listing":
            self._unlisted[upload.account].append(file)
        else:
            self._folders[upload.account].put(file)
        self.results.append(Result(upload.account, name_text(name), text, accepted, at))
        self._note(EventKind.RESULT, upload, name, text.rstrip("\n"))

    def _free_name(self, upload: Upload, at: pendulum.DateTime, accepted: bool) -> bytes:
        key_file = upload.name if self._behaviour.pub_in_result_names else upload.name.removesuffix(b".pub")
        files = [*self._folders[upload.account].files(KEY_FOLDER), *self._unlisted[upload.account]]
        taken = {file.name for file in files if file.until > upload.at.timestamp()}
        names = (result_name(key_file, at, sequence, accepted) for sequence in count())
        return next(name for name in names if name not in taken)

    def on_listed(self, account: str) -> None:
        """Let the next listing show the results that appear in a ``fresh_listing`` only (§6, note 2)."""
        for file in self._unlisted.pop(account, ()):
            self._folders[account].put(file)

    # The warning of keys that are about to expire (§6.2).

    def warning(self, account: str) -> ServedFile | None:
        """Return today's ``SSHKeyExpireWarning.txt``; None if no key of *account* expires within 14 days.

        Its mtime is midnight, or the time of the registration or upload if that was later today.
        """
        now = self._clock()
        text = self._behaviour.warning_text
        lines = [
            text.format(account=account, fingerprint=key.fingerprint, last_day=key.last_day)
            for key in self.valid(account)
            if key.last_day and first_warning_day(key.last_day) <= now.date()
        ]
        if not lines:
            return None
        at = max(now.start_of("day"), self._changed[account])
        return _file(EXPIRY_WARNING_FILE.encode(), "".join(f"{line}\n" for line in lines).encode(), at)


def _file(
    name: bytes,
    content: bytes,
    at: pendulum.DateTime,
    *,
    since: float = float("-inf"),
    until: float = float("inf"),
) -> ServedFile:
    return ServedFile(KEY_FOLDER, name, Given(content), at.int_timestamp, since=since, until=until)


def fingerprint_of(key: SSHKey) -> str:
    """Return the MD5 fingerprint of a key, in the form of §3.2.2."""
    return key.get_fingerprint("md5").removeprefix("MD5:")


def _fingerprints(keys: Iterable[RegisteredKey]) -> set[str]:
    return {key.fingerprint for key in keys}


def _another(fingerprint: str) -> str:
    """Return a fingerprint that belongs to no key."""
    return ":".join(reversed(fingerprint.split(":")))
