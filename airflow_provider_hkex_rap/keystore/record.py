"""What is kept of one account's keys: the record that a key store holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import pendulum

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.key_lifecycle import (
    OVERLAP_DAYS,
    RegisteredKey,
    last_day_of_new_key,
    last_day_of_old_key,
)

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.account import Account

SCHEMA = 1
# Airflow masks each text of a variable that it has seen, in ever longer patterns: what is kept stays small.
_HISTORY = 40
_RESULTS = 20


class Happened(StrEnum):
    """What happens to a key."""

    ADOPTED = "adopted"
    """A login with it succeeded; it became current without a renewal."""
    CREATED = "created"
    SUBMITTED = "submitted"
    """Its upload was begun."""
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    PROMOTED = "promoted"
    """It became current by a renewal."""
    EXPIRED = "expired"
    """Its last day was over and its private half was forgotten."""
    UPLOADED_ELSEWHERE = "uploaded elsewhere"
    """RAP told of an upload that was not ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A private key and its dates; each date is a day in Hong Kong.

    :param fingerprint: MD5, as in §3.2.2.
    :param private_key: the private key in PEM form, encrypted where a passphrase is set: a secret.
    :param uploaded: the day on which we uploaded it; None where HKEX registered it in another way (§5).
    :param promoted: the day on which it became the current key.
    :param last_day: the last day on which it logs in (§6.1); None where it is not known.
    :param refused: the day from which on RAP has refused it, while it let another key of the account in.
    """

    fingerprint: str
    private_key: str = field(repr=False)
    uploaded: pendulum.Date | None = None
    promoted: pendulum.Date | None = None
    last_day: pendulum.Date | None = None
    refused: pendulum.Date | None = None

    def is_valid(self, day: pendulum.Date) -> bool:
        """Return whether the key logs in on *day*, by its last day."""
        return RegisteredKey(self.fingerprint, self.last_day).is_valid(day)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingKey:
    """The key of a renewal in progress.

    :param fingerprint: MD5, as in §3.2.2.
    :param private_key: the private key in PEM form, encrypted where a passphrase is set: a secret.
    :param public_key: the public key as one OpenSSH line.
    :param results_before: the names of the result files that were listed before the upload.
    :param submitted: the day in Hong Kong on which the last upload of it was begun; None before the first.
    :param accepted: the name of the result file by which RAP took it; None before that.
    """

    fingerprint: str
    private_key: str = field(repr=False)
    public_key: str
    results_before: tuple[str, ...] = ()
    submitted: pendulum.Date | None = None
    accepted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """A result file of RAP, kept whole: RAP removes it after 24 hours (§6).

    :param name: its name on RAP.
    :param content: its bytes as text; those that are not UTF-8 as surrogates.
    :param read: when it was read (ISO 8601, Hong Kong).
    """

    name: str
    content: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One thing that happened to a key; never holds key material.

    :param at: when (ISO 8601, Hong Kong).
    :param what: what happened.
    :param fingerprint: the key that it happened to.
    :param run: the DAG run in which it happened, where there is one.
    :param note: more about it, in words.
    """

    at: str
    what: Happened
    fingerprint: str
    run: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """All that is kept of one account's keys.

    :param account: the RAP user account.
    :param unregistered: a key made for a registration with HKEX (§5); current after its first login.
    :param current: the key that logs in.
    :param pending: the key of a renewal in progress; never more than one.
    :param previous: the key that *current* has renewed, while it is valid (§6.1).
    :param results: result files, oldest first; the last 20.
    :param history: what has happened, oldest first: which keys have become current, and the last 40 other
        things.
    """

    account: str
    unregistered: StoredKey | None = None
    current: StoredKey | None = None
    pending: PendingKey | None = None
    previous: StoredKey | None = None
    results: tuple[ResultFile, ...] = ()
    history: tuple[HistoryEntry, ...] = ()

    @property
    def keys(self) -> Iterator[StoredKey | PendingKey]:
        """The keys whose private half is kept."""
        return (key for key in (self.unregistered, self.current, self.pending, self.previous) if key)

    def knows(self, fingerprint: str) -> bool:
        """Return whether the key is, or was, one of ours."""
        ours = (entry for entry in self.history if entry.what is not Happened.UPLOADED_ELSEWHERE)
        return any(it.fingerprint == fingerprint for it in (*self.keys, *ours))

    def tells_of(self, fingerprint: str) -> bool:
        """Return whether the history has the key, whosever it is."""
        return any(entry.fingerprint == fingerprint for entry in self.history)

    @property
    def became_current(self) -> Iterator[HistoryEntry]:
        """When keys became current, oldest first; none of it is ever forgotten."""
        return (entry for entry in self.history if entry.what in (Happened.ADOPTED, Happened.PROMOTED))

    @property
    def uploads_allowed_from(self) -> pendulum.Date | None:
        """The first day on which a new key replaces none of two valid ones, by the uploads known (§6.3)."""
        seen = [_day(entry.at) for entry in self.history if entry.what is Happened.UPLOADED_ELSEWHERE]
        known = [key.uploaded for key in (self.current, self.previous) if key and key.uploaded]
        return max([*seen, *known]).add(days=OVERLAP_DAYS) if seen or known else None

    def noted(
        self,
        now: pendulum.DateTime,
        what: Happened,
        fingerprint: str,
        *,
        run: str | None = None,
        note: str = "",
    ) -> KeyRecord:
        """Return the record with one more entry in its history."""
        entry = HistoryEntry(
            at=now.to_iso8601_string(), what=what, fingerprint=fingerprint, run=run, note=note
        )
        return replace(self, history=_shortened((*self.history, entry)))

    def has_result(self, name: str, content: bytes) -> bool:
        """Return whether this result file is kept; another of its name comes on another day (§6)."""
        return any((file.name, file.content) == (name, _text(content)) for file in self.results)

    def with_result(self, name: str, content: bytes, now: pendulum.DateTime) -> KeyRecord:
        """Return the record with one more result file."""
        file = ResultFile(name=name, content=_text(content), read=now.to_iso8601_string())
        return replace(self, results=(*self.results, file)[-_RESULTS:])

    def adopted(self, key: StoredKey, now: pendulum.DateTime) -> KeyRecord:
        """Return the record after a login with a key that was not current: it is from now on.

        The key that was current stays as the previous one, for as long as RAP can still know it (§6.1). A
        renewal in progress was one of that key, and is over.
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
            current=replace(key, promoted=today),
            pending=None,
            previous=None if previous and previous.fingerprint == key.fingerprint else previous,
        ).noted(now, Happened.ADOPTED, key.fingerprint, note="It has logged in for the first time.")

    def old_key_after_upload(self, uploaded: pendulum.Date) -> StoredKey | None:
        """Return the key that RAP keeps beside one that it takes, with the last day that it then has (§6.3).

        :param uploaded: the day of the upload.
        """
        current, previous = self.current, self.previous
        if current and current.uploaded and previous and previous.last_day and uploaded <= previous.last_day:
            # RAP holds both, and replaces the newer one.
            return previous
        return current and replace(current, last_day=last_day_of_old_key(uploaded, current.last_day))

    def promoted(self, now: pendulum.DateTime, *, run: str | None = None) -> KeyRecord:
        """Return the record after a login with the pending key: it is current, the old one is kept (§6.1)."""
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
        """Return the record without a previous key whose last day is over; its private half is forgotten."""
        old = self.previous
        if not old or old.is_valid(now.date()):
            return self
        note = f"Its last day was {old.last_day}."
        return replace(self, previous=None).noted(now, Happened.EXPIRED, old.fingerprint, note=note)

    def to_json(self) -> str:
        """Return the record as text for a key store: it holds private keys."""
        return json.dumps({"schema": SCHEMA, **_plain(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, account: Account) -> KeyRecord:
        """Read a record.

        :param text: what a key store holds.
        :param account: whose record it must be.
        :raises RapConfigurationError: the text is no such record; the error shows nothing of it.
        """
        try:
            found = json.loads(text)
            schema, owner = found["schema"], found["account"]
            if schema == SCHEMA and owner == account.name:
                return _record(found)
            problem = f"It is of {owner!r}, schema {schema!r}, where {SCHEMA} is known."
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # The text, and so the cause, may hold key material.
            problem = "It cannot be read."
        raise RapConfigurationError(
            f"The key store's record of {account} is not valid.",
            why=problem,
            todo="Restore it from a backup of the store; where there is none, register a new key (§5).",
            account=account.name,
        )


_Kept = TypeVar("_Kept", StoredKey, PendingKey, ResultFile, HistoryEntry)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _shortened(history: tuple[HistoryEntry, ...]) -> tuple[HistoryEntry, ...]:
    # Which keys were ours is never forgotten: a connection may go on to hold the first of them.
    passing = [entry for entry in history if entry.what not in (Happened.ADOPTED, Happened.PROMOTED)]
    forgotten = passing[:-_HISTORY]
    return tuple(entry for entry in history if not any(entry is old for old in forgotten))


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it, without what is empty."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, pendulum.Date):
        return value.isoformat()
    if hasattr(value, "__dataclass_fields__"):
        named = ((one.name, getattr(value, one.name)) for one in fields(value))
        return {name: _plain(item) for name, item in named if item is not None and item != ()}
    return value


def _record(found: Mapping[str, Any]) -> KeyRecord:
    return KeyRecord(
        account=found["account"],
        unregistered=_key(found.get("unregistered")),
        current=_key(found.get("current")),
        pending=_pending(found.get("pending")),
        previous=_key(found.get("previous")),
        results=tuple(_checked(ResultFile(**result)) for result in found.get("results", ())),
        history=tuple(map(_entry, found.get("history", ()))),
    )


def _checked(kept: _Kept) -> _Kept:
    """Return what was read, if its texts are texts.

    :raises TypeError: one is something else.
    """
    if all(isinstance(getattr(kept, one.name), str) for one in fields(kept) if one.type == "str"):
        return kept
    raise TypeError


def _entry(found: Mapping[str, Any]) -> HistoryEntry:
    entry = _checked(HistoryEntry(**{**found, "what": Happened(found["what"])}))
    _day(entry.at)
    return entry


def _key(found: Mapping[str, Any] | None) -> StoredKey | None:
    if found is None:
        return None
    dates = {name: _date(found.get(name)) for name in ("uploaded", "promoted", "last_day", "refused")}
    return _checked(StoredKey(**{**found, **dates}))


def _pending(found: Mapping[str, Any] | None) -> PendingKey | None:
    if found is None:
        return None
    names = tuple(found.get("results_before", ()))
    return _checked(
        PendingKey(**{**found, "results_before": names, "submitted": _date(found.get("submitted"))})
    )


def _date(text: str | None) -> pendulum.Date | None:
    return None if text is None else pendulum.Date.fromisoformat(text)


def _day(at: str) -> pendulum.Date:
    found = pendulum.parse(at)
    if not isinstance(found, pendulum.DateTime):
        raise ValueError
    return found.date()
