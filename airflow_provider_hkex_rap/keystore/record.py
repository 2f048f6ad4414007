"""The record of one account's keys, as a key store holds it: what it contains and how it changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

import pendulum
from pydantic import AfterValidator, ConfigDict, PlainSerializer, PlainValidator, TypeAdapter

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.key_lifecycle import (
    RegisteredKey,
    first_safe_upload_day,
    last_day_of_new_key,
    last_day_of_old_key,
    old_key_after_upload,
)

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.account import Account

SCHEMA = 1
"""Version of the record's JSON; a record of another version is refused."""
# Airflow's log masker adds every text of every variable that a task reads to one pattern. Keep records small.
_HISTORY = 40
_RESULTS = 20
_SUPERSEDED = 10
_SECONDS_OF_ONE_LOGIN = 3600


def _parse_day(value: object) -> pendulum.Date:
    day = value if isinstance(value, pendulum.Date) else pendulum.Date.fromisoformat(_check_text(value))
    if not 2000 <= day.year < 2200:
        raise ValueError("This is not a day of a key.")
    return day


def _check_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("This is not a text.")
    return value


def _check_time(text: str) -> str:
    _day(text)
    return text


def _day(time: str) -> pendulum.Date:
    """Return the day of an ISO 8601 time."""
    return pendulum.DateTime.fromisoformat(time).date()


def _check_content(text: str) -> str:
    text.encode("utf-8", "surrogateescape")
    return text


_Day = Annotated[pendulum.Date, PlainValidator(_parse_day), PlainSerializer(pendulum.Date.isoformat)]
_Time = Annotated[str, AfterValidator(_check_time)]
# Errors must not show the input: it holds private keys.
_STRICT = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Happened(StrEnum):
    """An event in the life of a key."""

    ADOPTED = "adopted"
    """It became current by its first login, without a renewal."""
    CREATED = "created"
    SUBMITTED = "submitted"
    """Its upload was started."""
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    PROMOTED = "promoted"
    """It became current by a renewal."""
    EXPIRED = "expired"
    """Its last day has passed and its private key was deleted."""
    UPLOADED_ELSEWHERE = "uploaded elsewhere"
    """RAP accepted an upload that was not ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A private key and its dates; each date is a day in Hong Kong.

    :param fingerprint: MD5, as in §3.2.2.
    :param private_key: the private key as PEM, encrypted if a passphrase is set: a secret.
    :param uploaded: the day on which we uploaded the key; None if HKEX registered it in another way (§5).
    :param promoted: the day on which the key became current.
    :param last_day: the last day on which the key can log in (§6.1); None if it is not known.
    :param refused: the first day on which RAP refused the key; None once it logs in again.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    fingerprint: str
    private_key: str = field(repr=False)
    uploaded: _Day | None = None
    promoted: _Day | None = None
    last_day: _Day | None = None
    refused: _Day | None = None

    def is_valid(self, day: pendulum.Date) -> bool:
        """Return whether the key can log in on *day*, according to its last day."""
        return self.registered.is_valid(day)

    @property
    def registered(self) -> RegisteredKey:
        """The key as RAP knows it: its fingerprint and its last day."""
        return RegisteredKey(self.fingerprint, self.last_day)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingKey:
    """The new key of a renewal in progress.

    :param fingerprint: MD5, as in §3.2.2.
    :param private_key: the private key as PEM, encrypted if a passphrase is set: a secret.
    :param public_key: the public key as one OpenSSH line.
    :param results_before: names of the result files that were listed before the upload.
    :param submitted: the day in Hong Kong of the last upload of this key; None before the first.
    :param attempts: how often an upload of this key was started, and not denied.
    :param uploads: how often this key went up, as far as is known: a killed attempt does not count.
    :param accepted: name of the result file by which RAP accepted the key; None before that.
    :param rejected: name of the result file by which RAP rejected a repeated upload; the first one may have
        put the key in force.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    fingerprint: str
    private_key: str = field(repr=False)
    public_key: str
    results_before: tuple[str, ...] = ()
    submitted: _Day | None = None
    attempts: int = 0
    uploads: int = 0
    accepted: str | None = None
    rejected: str | None = None

    @property
    def may_have_gone_up(self) -> int:
        """How often RAP may have got this key; several attempts that were killed count as one."""
        return self.uploads + (self.attempts_begun > self.uploads)

    @property
    def attempts_begun(self) -> int:
        """How often an upload of this key was started, also according to a record without that number."""
        return max(self.attempts, 1 if self.submitted else 0)


_Key = TypeVar("_Key", StoredKey, PendingKey)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """A complete copy of one of RAP's result files, which RAP deletes after 24 hours (§6).

    :param name: the file's name on RAP.
    :param content: the file's bytes as text; bytes that are not UTF-8 become surrogates.
    :param read: the time of reading (ISO 8601, Hong Kong).
    :param mtime: its modification time on RAP, in seconds since the epoch; None if RAP sent none.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: str
    content: Annotated[str, AfterValidator(_check_content)]
    read: _Time
    mtime: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptWarning:
    """RAP's last warning that a key of the account expires (§6.2).

    :param day: the day in Hong Kong on which RAP wrote it, or on which it was seen first.
    :param text: the text of the file.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    day: _Day
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedDay:
    """The connection's ``key_expires``, and the key that it was first applied to.

    :param day: the day as it was typed.
    :param fingerprint: the key; empty if the day was typed before the current key had logged in, and so is
        that of another key.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    day: _Day
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One event in the life of a key; contains no key material.

    :param at: the time (ISO 8601, Hong Kong).
    :param what: the event.
    :param fingerprint: the key's fingerprint.
    :param run: the DAG run in which it happened, if there is one.
    :param note: details, in words.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    at: _Time
    what: Happened
    fingerprint: str
    run: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """The keys of one account, with their result files and their history.

    A record never changes; each change returns a new one.

    :param account: the RAP user account.
    :param unregistered: a key made for a registration with HKEX (§5); it becomes current by its first login.
    :param current: the key that logs in.
    :param pending: the new key of a renewal in progress; there is never more than one.
    :param previous: the key that *current* has replaced, while RAP may accept it (§6.1).
    :param refused: the fingerprints of the keys that RAP has refused since the last login, in this order.
    :param typed: the connection's ``key_expires``, as it was last applied to a key.
    :param warning: RAP's last warning.
    :param results: result files, oldest first; the last 20 are kept.
    :param history: events, oldest first: all that made a key current, and the last 40 others.
    :param last_login: the time of the last login (ISO 8601, Hong Kong); logins within an hour of it are not
        recorded, so that a sensor does not write the store at every poke. None if it is not known.
    :param superseded: the times at which another login ended a session of ours (§4.3), oldest first; the last
        10 are kept.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True)

    account: str
    unregistered: StoredKey | None = None
    current: StoredKey | None = None
    pending: PendingKey | None = None
    previous: StoredKey | None = None
    refused: tuple[str, ...] = ()
    typed: TypedDay | None = None
    warning: KeptWarning | None = None
    results: tuple[ResultFile, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    last_login: _Time | None = None
    superseded: tuple[_Time, ...] = ()

    @property
    def keys(self) -> Iterator[StoredKey | PendingKey]:
        """The keys whose private key is in the record."""
        return (key for key in (self.unregistered, self.current, self.pending, self.previous) if key)

    @property
    def refused_key(self) -> StoredKey | None:
        """The current key if RAP has refused it since its last login; otherwise None."""
        return self.current if self.current and self.current.refused else None

    def knows(self, fingerprint: str) -> bool:
        """Return whether the key is, or was, one of ours."""
        ours = (entry for entry in self.history if entry.what is not Happened.UPLOADED_ELSEWHERE)
        return any(it.fingerprint == fingerprint for it in (*self.keys, *ours))

    def is_newly_registered(self, today: pendulum.Date) -> bool:
        """Return whether the current key was made here for a registration (§5), and logs in since today."""
        current = self.current
        return bool(current and current.promoted == today) and any(
            entry.what is Happened.CREATED and current and entry.fingerprint == current.fingerprint
            for entry in self.history
        )

    def has_history_of(self, fingerprint: str) -> bool:
        """Return whether the history mentions the key, whether it is ours or not."""
        return any(entry.fingerprint == fingerprint for entry in self.history)

    @property
    def became_current(self) -> Iterator[HistoryEntry]:
        """The events that made a key current, oldest first; none of them is ever dropped."""
        return (entry for entry in self.history if entry.what in (Happened.ADOPTED, Happened.PROMOTED))

    @property
    def foreign_upload(self) -> HistoryEntry | None:
        """The last upload that was not ours, until the key or another one becomes current; otherwise None."""
        for entry in reversed(self.history):
            if entry.what in (Happened.ADOPTED, Happened.PROMOTED):
                return None
            if entry.what is Happened.UPLOADED_ELSEWHERE:
                return entry
        return None

    @property
    def uploads_allowed_from(self) -> pendulum.Date | None:
        """The first day on which an upload cannot replace a valid key (§6.3); None if no upload is known."""
        foreign = [_day(entry.at) for entry in self.history if entry.what is Happened.UPLOADED_ELSEWHERE]
        ours = [key.uploaded for key in (self.current, self.previous) if key and key.uploaded]
        return first_safe_upload_day([*foreign, *ours])

    def noted(
        self,
        now: pendulum.DateTime,
        what: Happened,
        fingerprint: str,
        *,
        run: str | None = None,
        note: str = "",
    ) -> KeyRecord:
        """Return the record with one more event in its history.

        :param now: the time of the event.
        :param what: the event.
        :param fingerprint: the key's fingerprint.
        :param run: the DAG run, if there is one.
        :param note: details, in words.
        """
        entry = HistoryEntry(
            at=now.to_iso8601_string(), what=what, fingerprint=fingerprint, run=run, note=note
        )
        return replace(self, history=_shortened((*self.history, entry)))

    def logged_in(self, now: pendulum.DateTime) -> KeyRecord:
        """Return the record after a login; unchanged within an hour of the last login that it has."""
        if (
            self.last_login
            and 0
            <= (now - pendulum.DateTime.fromisoformat(self.last_login)).total_seconds()
            < _SECONDS_OF_ONE_LOGIN
        ):
            return self
        return replace(self, last_login=now.to_iso8601_string())

    def with_superseded_session(self, now: pendulum.DateTime) -> KeyRecord:
        """Return the record after another login has ended a session of ours (§4.3)."""
        return replace(self, superseded=(*self.superseded, now.to_iso8601_string())[-_SUPERSEDED:])

    def has_result(self, name: str, content: bytes) -> bool:
        """Return whether the record has this result file; names repeat on other days (§6)."""
        return any((file.name, file.content) == (name, _as_text(content)) for file in self.results)

    def result_content(self, name: str, mtime: int | None, now: pendulum.DateTime) -> bytes | None:
        """Return the bytes of a result file that the record has; None if it has none of this time.

        Without an mtime, a file of the same name counts for 24 hours, after which RAP has deleted it (§6).

        :param name: the file's name on RAP.
        :param mtime: its modification time; None if RAP sends none.
        :param now: the current time.
        """
        for file in reversed(self.results):
            is_recent = mtime is not None or now.subtract(hours=24) < pendulum.DateTime.fromisoformat(
                file.read
            )
            if (file.name, file.mtime) == (name, mtime) and is_recent:
                return file.content.encode("utf-8", "surrogateescape")
        return None

    def with_result(
        self, name: str, content: bytes, now: pendulum.DateTime, mtime: int | None = None
    ) -> KeyRecord:
        """Return the record with one more result file; unchanged if it has the file."""
        if self.result_content(name, mtime, now) == content:
            return self
        file = ResultFile(name=name, content=_as_text(content), read=now.to_iso8601_string(), mtime=mtime)
        return replace(self, results=(*self.results, file)[-_RESULTS:])

    def with_foreign_upload(
        self, fingerprint: str, uploaded: pendulum.DateTime, *, run: str | None = None, note: str = ""
    ) -> KeyRecord:
        """Return the record after RAP has accepted an upload that was not ours (§6.3).

        The current key ends as after an upload of ours: on the 14th day, or at once if RAP held two keys,
        since the upload has then replaced it.

        :param fingerprint: the uploaded key's, or the name of its result file if that is not known.
        :param uploaded: the time of the upload.
        :param run: the DAG run in which it was found, if there is one.
        :param note: details, in words.
        """
        record, day, current = self, uploaded.date(), self.current
        if current and current.uploaded and day <= current.uploaded:
            # The current key was uploaded since, in place of that one.
            return self
        if current:
            replaced = self._still_held(day) is not None
            ends = day.subtract(days=1) if replaced else last_day_of_old_key(day, current.last_day)
            if current.last_day is None or ends < current.last_day:
                record = replace(self, current=replace(current, last_day=ends))
        return record.noted(uploaded, Happened.UPLOADED_ELSEWHERE, fingerprint, run=run, note=note)

    def adopted(self, key: StoredKey, now: pendulum.DateTime) -> KeyRecord:
        """Return the record after the first login with a key: the key becomes current.

        The key that was current becomes the previous one, with the last day that RAP may still accept it
        (§6.1). A renewal in progress was a renewal of that key, and is dropped.

        :param key: the key that has logged in.
        :param now: the time of the login.
        """
        today = now.date()
        previous = self.previous
        if self.current:
            last_day = last_day_of_old_key(today, self.current.last_day)
            previous = replace(self.current, last_day=last_day)
        kept = self.unregistered
        return replace(
            self,
            unregistered=None if kept and kept.fingerprint == key.fingerprint else kept,
            current=replace(self._with_known_upload(key), promoted=today, refused=None),
            pending=None,
            previous=None if previous and previous.fingerprint == key.fingerprint else previous,
        ).noted(now, Happened.ADOPTED, key.fingerprint, note="First login with this key.")

    def _with_known_upload(self, key: StoredKey) -> StoredKey:
        """Return a key with its days, if RAP has listed its upload by somebody else (§6.1)."""
        for entry in reversed(self.history):
            if entry.what is Happened.UPLOADED_ELSEWHERE and entry.fingerprint == key.fingerprint:
                uploaded = _day(entry.at)
                return replace(key, uploaded=uploaded, last_day=last_day_of_new_key(uploaded))
        return key

    def with_private_key(self, fingerprint: str, private_key: str) -> KeyRecord:
        """Return the record with another text of one private key, such as one with another passphrase.

        :param fingerprint: the key's.
        :param private_key: the key as PEM.
        """

        def changed(key: _Key | None) -> _Key | None:
            is_it = key is not None and key.fingerprint == fingerprint
            return replace(key, private_key=private_key) if key and is_it else key

        return replace(
            self,
            unregistered=changed(self.unregistered),
            current=changed(self.current),
            pending=changed(self.pending),
            previous=changed(self.previous),
        )

    def old_key_after_upload(self, uploaded: pendulum.Date) -> StoredKey | None:
        """Return the key that stays valid beside an uploaded one, with its last day after the upload (§6.3).

        :param uploaded: the day of the upload.
        """
        held = [key for key in (self._still_held(uploaded), self.current) if key]
        old = old_key_after_upload([key.registered for key in held], uploaded)
        return old and replace(held[0], last_day=old.last_day)

    def _still_held(self, day: pendulum.Date) -> StoredKey | None:
        """Return the previous key if RAP still holds it beside the current one."""
        current, previous = self.current, self.previous
        is_renewal = current and current.uploaded and previous and previous.last_day
        return previous if is_renewal and previous and previous.is_valid(day) else None

    def promoted(self, now: pendulum.DateTime, *, run: str | None = None) -> KeyRecord:
        """Return the record after the first login with the pending key: the key becomes current.

        The old key is kept while it is valid (§6.1).

        :param now: the time of the login.
        :param run: the DAG run, if there is one.
        """
        pending = self.pending
        if not pending:
            return self
        uploaded = pending.submitted or now.date()
        previous = self.old_key_after_upload(uploaded)
        new = StoredKey(
            fingerprint=pending.fingerprint,
            private_key=pending.private_key,
            uploaded=uploaded,
            promoted=now.date(),
            last_day=last_day_of_new_key(uploaded),
        )
        note = f"Its last day is {new.last_day}."
        if previous:
            note += f" The last day of {previous.fingerprint} is {previous.last_day}."
        return replace(self, pending=None, current=new, previous=previous).noted(
            now, Happened.PROMOTED, new.fingerprint, run=run, note=note
        )

    def without_expired(self, now: pendulum.DateTime) -> KeyRecord:
        """Return the record without the previous key if RAP cannot accept it any more.

        Its last day may have been typed, and too early. So the key is kept for the days on which RAP keeps
        an old key beside a new one (§6.1).
        """
        old, today = self.previous, now.date()
        promoted = self.current.promoted if self.current else None
        may_be_held = promoted and today <= last_day_of_old_key(promoted, None)
        # While RAP refuses the current key, the previous one may be the only key.
        if not old or old.is_valid(today) or may_be_held or self.refused_key:
            return self
        note = f"Its last day was {old.last_day}."
        return replace(self, previous=None).noted(now, Happened.EXPIRED, old.fingerprint, note=note)

    def to_json(self) -> str:
        """Return the record as ASCII text for a key store. It contains private keys."""
        fields = _adapter().dump_python(self, exclude_defaults=True)
        return json.dumps({"schema": SCHEMA, **fields}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, account: Account) -> KeyRecord:
        """Read a record.

        :param text: the text of a key store.
        :param account: the account that the record must belong to.
        :raises RapConfigurationError: if the text is not a valid record of *account*. The error shows nothing
            of the text.
        """
        try:
            found = json.loads(text)
            schema, owner = found.pop("schema"), found["account"]
            if schema == SCHEMA and owner == account.name:
                return _adapter().validate_python(found)
            problem = f"It belongs to {owner!r} and has schema {schema!r}; schema {SCHEMA} is supported."
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # The text may hold key material, and so may the error that it causes.
            problem = "It is damaged."
        raise RapConfigurationError(
            f"The key store's record of {account} is not valid.",
            why=problem,
            todo="Restore it from a backup of the store. If there is no backup, register a new key (§5).",
            account=account.name,
        )


@cache
def _adapter() -> TypeAdapter[KeyRecord]:
    return TypeAdapter(KeyRecord)


def _as_text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _shortened(history: tuple[HistoryEntry, ...]) -> tuple[HistoryEntry, ...]:
    # Never forget which keys were current: a connection may still hold the first of them.
    others = [entry for entry in history if entry.what not in (Happened.ADOPTED, Happened.PROMOTED)]
    forgotten = others[:-_HISTORY]
    return tuple(entry for entry in history if not any(entry is old for old in forgotten))
