"""The renewal of a key: its steps, its record, and its continuation after an interruption."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_hkex_rap.keystore.record import Happened, KeptWarning, StoredKey
from airflow_provider_hkex_rap.keystore.store import KeyStoreConflict, KeyStoreError
from airflow_provider_hkex_rap.rap.calendar import is_trading_day
from airflow_provider_hkex_rap.rap.errors import (
    RapAuthenticationError,
    RapConfigurationError,
    RapError,
    RapKeyRejected,
    RapKeyVerificationError,
    RapPermissionDenied,
)
from airflow_provider_hkex_rap.rap.key_lifecycle import OVERLAP_DAYS

from .model import ACCOUNT, NOW, Clock, Crash, ModelRap, key, stored

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.renewal_outcome import RenewalOutcome

TODAY = NOW.date()
DUE = TODAY.add(days=10)


def rap_with(last_day: pendulum.Date | None = DUE) -> ModelRap:
    """Return a RAP whose account has one key, which the store knows as the current one."""
    rap = ModelRap(Clock(), stored(1, last_day))
    keys = rap.account_keys()
    keys.save(keys.record.adopted(stored(1, last_day), NOW))
    rap.steps.clear()
    return rap


def renew(rap: ModelRap, **options: Any) -> RenewalOutcome:
    return asyncio.run(rap.renew(**options))


def happened(rap: ModelRap) -> list[Happened]:
    return [entry.what for entry in rap.account_keys().record.history]


def test_a_key_that_is_due_is_renewed() -> None:
    rap = rap_with()
    outcome = renew(rap)
    record = rap.account_keys().record
    assert rap.uploads == [record.current.fingerprint] == [outcome.fingerprint]
    assert outcome.renewed
    assert outcome.last_day == "2028-11-19"
    assert (outcome.previous_fingerprint, outcome.previous_last_day) == (key(1).fingerprint, DUE.isoformat())
    assert record.pending is None
    assert rap.keys[outcome.fingerprint].isoformat() == outcome.last_day
    assert happened(rap)[1:] == [Happened.CREATED, Happened.SUBMITTED, Happened.ACCEPTED, Happened.PROMOTED]
    assert record.results[0].content.startswith(outcome.fingerprint)
    assert not rap.refusals


@pytest.mark.guide("6.1 validity")
def test_the_old_key_ends_fourteen_days_after_the_upload_and_is_then_forgotten() -> None:
    rap = rap_with(TODAY.add(days=25))
    outcome = renew(rap)
    assert outcome.previous_last_day == TODAY.add(days=13).isoformat()
    rap.clock.now = NOW.add(days=13)
    assert renew(rap).previous_fingerprint == key(1).fingerprint
    rap.clock.now = NOW.add(days=14)
    assert renew(rap).previous_fingerprint is None
    assert key(1).to_openssh().splitlines()[3] not in rap.store.texts[ACCOUNT.name]
    assert happened(rap)[-1] == Happened.EXPIRED


@pytest.mark.parametrize(("days", "due"), [(30, False), (29, True), (0, True)])
@pytest.mark.guide("6 renewal")
def test_a_key_is_renewed_on_its_last_thirty_days(days: int, due: bool) -> None:
    rap = rap_with(TODAY.add(days=days))
    assert renew(rap).renewed == due
    assert bool(rap.uploads) == due
    # Every run looks into the key folder: RAP's word beats ours.
    assert "after a login" in rap.steps


def warn(rap: ModelRap, text: str = "Your key will expire soon") -> None:
    rap.put("SSHKeyExpireWarning.txt", text)


@pytest.mark.guide("6.2 warning")
def test_a_key_of_unknown_expiry_is_renewed_when_rap_warns_of_it() -> None:
    rap = rap_with(None)
    outcome = renew(rap)
    assert not outcome.renewed
    assert "not known" in outcome.reason
    rap.clock.now = NOW.add(days=14)
    warn(rap)
    assert renew(rap).renewed
    rap.clock.now = NOW.add(days=15)
    warn(rap)
    assert not renew(rap).renewed


@pytest.mark.parametrize("last_day", [None, TODAY.add(years=2)])
def test_a_warning_that_names_none_fails_the_task_while_the_key_is_new(
    last_day: pendulum.Date | None,
) -> None:
    rap = rap_with(last_day)
    rap.clock.now = NOW.add(days=13)
    warn(rap)
    with pytest.raises(RapKeyVerificationError, match="renew --force") as caught:
        renew(rap)
    assert not caught.value.retryable
    assert not rap.uploads
    assert renew(rap, force=True).renewed


def test_a_warning_that_names_the_current_key_beats_its_last_day() -> None:
    rap = rap_with(TODAY.add(years=2))
    warn(rap, f"MD5:{key(1).fingerprint.upper()} will expire")
    outcome = renew(rap)
    assert outcome.renewed
    assert "RAP warns of the current key" in outcome.reason
    # It is of the old key now, which RAP names until it removes it.
    assert not renew(rap).renewed
    assert len(rap.uploads) == 1


@pytest.mark.guide("6.2 warning")
def test_a_warning_that_names_another_key_is_ignored_and_the_last_one_is_kept() -> None:
    rap = rap_with(TODAY.add(years=2))
    warn(rap, f"{key(50).fingerprint} will expire")
    assert not renew(rap).renewed
    kept = rap.account_keys().record.warning
    assert kept == KeptWarning(day=TODAY, text=f"{key(50).fingerprint} will expire")
    del rap.files["SSHKeyExpireWarning.txt"]
    assert not renew(rap).renewed
    assert rap.account_keys().record.warning == kept


def test_force_acts_once_in_a_run() -> None:
    rap = rap_with(TODAY.add(days=500))
    assert renew(rap, force=True, run="manual").renewed
    assert not renew(rap, force=True, run="manual").renewed
    assert len(rap.uploads) == 1


@pytest.mark.guide("6.3 two keys")
def test_no_third_key_goes_up_within_fourteen_days() -> None:
    rap = rap_with(TODAY.add(days=500))
    renew(rap, force=True, run="first")
    rap.clock.now = NOW.add(days=13)
    with pytest.raises(RapConfigurationError, match=rf"before {TODAY.add(days=14)}"):
        renew(rap, force=True, run="second")
    assert len(rap.uploads) == 1
    assert rap.account_keys().record.pending is None
    assert renew(rap, force=True, run="second", replace_second_key=True).renewed
    rap.clock.now = NOW.add(days=27)
    assert renew(rap, force=True, run="third").renewed


def test_a_refused_upload_does_not_wait_for_the_last_key_file_to_leave() -> None:
    rap = rap_with(TODAY.add(days=500))
    renew(rap, force=True, run="first")
    rap.put(f"{ACCOUNT}.pub", "the key file of the last upload")
    before = rap.clock()
    with pytest.raises(RapConfigurationError, match="before 2026-12-04"):
        renew(rap, force=True, run="second")
    assert rap.clock() == before


def test_nothing_goes_up_while_somebody_elses_key_counts() -> None:
    rap = rap_with()
    rap.put("DCXYZ001.pub.080000.rcvd", f"{key(50).fingerprint}  DCXYZ001.pub")
    rap.register(key(50).fingerprint)
    with pytest.raises(RapConfigurationError, match="by hand"):
        renew(rap)
    rap.clock.now = NOW.add(days=2)
    with pytest.raises(RapConfigurationError, match="by hand"):
        renew(rap)
    assert not rap.uploads
    assert len([what for what in happened(rap) if what is Happened.UPLOADED_ELSEWHERE]) == 1


def test_a_stale_result_counts_for_nothing() -> None:
    rap = rap_with()
    rap.put("DCXYZ001.pub.080000.rcvd", f"{key(1).fingerprint}  DCXYZ001.pub")
    rap.put("DCXYZ001.pub.080001.rej", "4007 an older failure")
    rap.answer = "lost"
    with pytest.raises(RapKeyVerificationError, match="gave no result file"):
        renew(rap)
    assert rap.clock() > NOW.add(minutes=9)
    rap.answer = "rcvd"
    assert renew(rap).renewed
    assert len(set(rap.uploads)) == 1


def test_a_result_for_another_account_counts_for_nothing() -> None:
    rap = rap_with()
    rap.answer = "silent"
    rap.put("DCXYZ002.pub.080001.rej", "4007 not ours")
    assert renew(rap).renewed


@pytest.mark.guide("6 results")
def test_a_rejected_key_is_forgotten_and_the_old_one_stays() -> None:
    rap = rap_with()
    rap.answer = "rej"
    with pytest.raises(RapKeyRejected, match="4007") as caught:
        renew(rap)
    record = rap.account_keys().record
    assert (caught.value.code, caught.value.message) == ("4007", "File name contains invalid characters")
    assert record.pending is None
    assert record.current.fingerprint == key(1).fingerprint
    assert "invalid characters" in record.results[0].content
    rap.answer = "rcvd"
    assert renew(rap).renewed
    assert len(rap.uploads) == 2


@pytest.mark.parametrize("written", [[0], [20], [0, 0, 20], [0, 30, 40]])
def test_an_answer_that_rap_is_still_writing_is_read_whole(written: list[int]) -> None:
    rap = rap_with()
    rap.answer, rap.written = "rej", list(written)
    with pytest.raises(RapKeyRejected, match="4007 File name contains invalid characters"):
        renew(rap)
    rap.answer, rap.written = "another", list(written)
    with pytest.raises(RapKeyVerificationError, match=f"RAP took the key {key(99).fingerprint}"):
        renew(rap)
    rap = rap_with()
    rap.written = list(written)
    assert renew(rap).renewed
    (result,) = rap.account_keys().record.results
    assert result.content == f"{rap.uploads[0]}  DCXYZ001.pub\n"


def test_an_answer_that_stays_empty_is_believed_in_the_end() -> None:
    rap = rap_with()
    rap.written = [0] * 100
    assert renew(rap).renewed
    rap = rap_with()
    rap.answer, rap.written = "rej", [0] * 100
    with pytest.raises(RapKeyRejected):
        renew(rap)


def test_an_accepted_key_that_rap_has_forgotten_goes_up_again_while_the_old_one_logs_in() -> None:
    for weekday in range(5):
        rap = rap_with(TODAY.add(days=25))
        begun = rap.clock.now = NOW.add(days=3 + weekday)
        rap.answer = "accepted but refused"
        with pytest.raises(RapKeyVerificationError, match="does not log in; RAP accepted it"):
            renew(rap)
        rap.answer = "rcvd"
        tries = [begun.add(days=days) for days in range(1, OVERLAP_DAYS)]
        *early, last, _ = [at for at in tries if is_trading_day(at.date())]
        for rap.clock.now in early:
            with pytest.raises(RapKeyVerificationError, match="does not log in; RAP accepted it"):
                renew(rap)
        assert len(rap.uploads) == 1
        rap.clock.now = last
        until = begun.add(days=OVERLAP_DAYS - 1).date()
        outcome = renew(rap)
        assert outcome.fingerprint == rap.uploads[0]
        assert outcome.previous_last_day == until.isoformat()
        assert rap.uploads == [outcome.fingerprint] * 2


@pytest.mark.parametrize("answer", ["lost", "refused", "accepted but refused"])
def test_a_new_key_goes_up_twice_at_most(answer: str) -> None:
    rap = rap_with(TODAY.add(days=25))
    rap.answer = answer
    for days in range(OVERLAP_DAYS):
        rap.clock.now = NOW.add(days=days)
        with pytest.raises(RapKeyVerificationError, match="does not log in"):
            renew(rap)
    assert len(rap.uploads) == 2
    with pytest.raises(RapKeyVerificationError, match=r"went up twice.*ask HKEX") as caught:
        renew(rap)
    assert caught.value.uploads == 2
    rap.answer = "rcvd"
    assert renew(rap, force=True, run="by hand").fingerprint == rap.uploads[0]
    assert set(rap.uploads) == {rap.uploads[0]}


def test_a_rejection_of_a_repeated_upload_does_not_lose_a_key_in_force() -> None:
    rap = rap_with()
    rap.answer = "lost"
    with pytest.raises(RapKeyVerificationError):
        renew(rap)
    # RAP has it in force after all, and rejects the repeated upload as registered already.
    rap.answer = "registered already"
    outcome = renew(rap)
    assert outcome.renewed
    assert rap.uploads == [outcome.fingerprint] * 2
    assert rap.account_keys().record.pending is None


def test_a_rejected_repeated_upload_is_forgotten_after_one_more_login() -> None:
    rap = rap_with()
    rap.answer = "lost"
    with pytest.raises(RapKeyVerificationError):
        renew(rap)
    rap.answer = "rej"
    with pytest.raises(RapKeyRejected, match="4007"):
        renew(rap)
    assert rap.account_keys().record.pending is None
    assert rap.refusals.count(rap.uploads[0]) == 3


def test_rap_may_take_a_key_on_the_day_after_its_upload() -> None:
    rap = rap_with(TODAY.add(days=25))
    rap.answer = "late"
    with pytest.raises(RapKeyVerificationError, match="gave no result file"):
        renew(rap)
    rap.clock.now = NOW.add(days=1)
    rap.register(rap.uploads[0])
    rap.put(f"{ACCOUNT}.pub.090500.rcvd", f"{rap.uploads[0]}  {ACCOUNT}.pub")
    assert renew(rap).renewed
    record = rap.account_keys().record
    assert {it.fingerprint: it.last_day for it in (record.previous, record.current)} == rap.keys
    # RAP warns of the old key until its last day.
    rap.clock.now = NOW.add(days=14)
    warn(rap)
    assert not renew(rap).renewed
    assert len(rap.uploads) == 1


def test_a_killed_renewal_does_not_replace_the_key_of_somebody_else() -> None:
    rap = rap_with()
    # Killed between the creation of the key and its upload.
    rap.crash_at = next(number for number in range(20) if crashes_after_creation(number))
    with pytest.raises(Crash):
        renew(rap)
    rap.crash_at = None
    keys = rap.account_keys()
    keys.save(replace(keys.record, current=stored(7), previous=stored(1)))
    with pytest.raises(RapKeyVerificationError, match="has refused the current key"):
        renew(rap)
    assert not rap.uploads


def crashes_after_creation(number: int) -> bool:
    rap = rap_with()
    rap.crash_at = number
    with pytest.raises(Crash):
        renew(rap)
    return rap.account_keys().record.pending is not None


def test_force_uploads_a_key_again_once_in_a_run() -> None:
    rap = rap_with()
    rap.answer = "lost"
    for _ in range(2):
        with pytest.raises(RapKeyVerificationError):
            renew(rap)
    for _ in range(3):
        with pytest.raises(RapKeyVerificationError):
            renew(rap, force=True, run="manual")
    assert len(rap.uploads) == 3


def test_a_login_with_another_key_is_no_proof_of_the_new_one() -> None:
    rap = rap_with()
    rap.answer = "lost"
    rap.asks_for_no_key = True
    with pytest.raises(RapKeyVerificationError, match="does not log in"):
        renew(rap)


def test_without_times_a_result_file_is_kept_once() -> None:
    rap = rap_with(TODAY.add(days=100))
    rap.sends_times = False
    rap.put(f"{ACCOUNT}.pub.080000.rej", "4007 by hand")
    for _ in range(3):
        renew(rap)
    assert rap.opened == [f"{ACCOUNT}.pub.080000.rej"] * 2
    assert len(rap.account_keys().record.results) == 1


def test_a_denied_upload_takes_the_step_back() -> None:
    rap = rap_with()
    rap.denies = True
    for days in range(3):
        rap.clock.now = NOW.add(days=days)
        with pytest.raises(RapPermissionDenied):
            renew(rap)
        pending = rap.account_keys().record.pending
        assert (pending.submitted, pending.attempts, pending.uploads) == (None, 0, 0)
    assert Happened.SUBMITTED not in happened(rap)
    assert happened(rap).count(Happened.CREATED) == 1
    rap.denies = False
    assert renew(rap).renewed
    assert not rap.refusals


def test_nothing_is_sent_while_our_upload_is_not_processed() -> None:
    rap = rap_with()
    rap.answer, rap.keeps_key_file = "lost", True
    with pytest.raises(RapKeyVerificationError, match="gave no result file"):
        renew(rap)
    for days in range(1, 3):
        rap.clock.now = NOW.add(days=days)
        with pytest.raises(RapKeyVerificationError, match="not processed our upload of 2026-11-20 09:00 HKT"):
            renew(rap)
    assert len(rap.uploads) == 1
    assert not rap.denials
    # Now it does.
    del rap.files[f"{ACCOUNT}.pub"]
    rap.register(rap.uploads[0])
    assert renew(rap).renewed
    assert len(rap.uploads) == 1


def test_nothing_is_sent_while_an_upload_by_hand_is_not_processed() -> None:
    rap = rap_with()
    rap.put(f"{ACCOUNT}.pub", "a key")
    rap.clock.now = NOW.add(hours=1)
    with pytest.raises(RapKeyVerificationError, match="not processed our upload of 2026-11-20 09:00 HKT"):
        renew(rap)
    assert not rap.denials
    assert not rap.uploads


def test_a_key_file_that_stays_after_its_answer_is_no_obstacle() -> None:
    rap = rap_with()
    rap.keeps_key_file = True
    assert renew(rap).renewed
    rap.clock.now = NOW.add(days=14)
    assert renew(rap, force=True, run="again").renewed
    assert len(rap.uploads) == 2


def test_each_result_file_is_opened_until_it_is_kept_and_never_again() -> None:
    rap = rap_with(TODAY.add(days=100))
    rap.put(f"{ACCOUNT}.pub.080000.rej", "4007 by hand")
    for _ in range(3):
        renew(rap)
        rap.clock.now = rap.clock().add(hours=1)
    assert rap.opened == [f"{ACCOUNT}.pub.080000.rej"] * 2
    assert [file.content for file in rap.account_keys().record.results] == ["4007 by hand"]


def test_an_upload_by_hand_ends_the_current_key_and_the_error_says_when() -> None:
    rap = rap_with(TODAY.add(days=100))
    rap.put(f"{ACCOUNT}.pub.090000.rcvd", f"{key(50).fingerprint}  {ACCOUNT}.pub")
    rap.register(key(50).fingerprint)
    rap.clock.now = NOW.add(hours=20)
    with pytest.raises(RapConfigurationError, match="by hand") as caught:
        renew(rap)
    record = rap.account_keys().record
    assert record.current.last_day == rap.keys[key(1).fingerprint] == TODAY.add(days=13)
    assert caught.value.last_day == TODAY.add(days=13).isoformat()
    assert f"ends on {TODAY.add(days=13)}" in str(caught.value)
    assert record.foreign_upload.fingerprint == key(50).fingerprint
    # Somebody gives the connection that key.
    rap.own = stored(50)
    assert not renew(rap).renewed
    current = rap.account_keys().record.current
    assert (current.fingerprint, current.last_day) == (key(50).fingerprint, rap.keys[key(50).fingerprint])
    assert not rap.uploads


def test_an_answer_about_the_current_key_gives_its_last_day() -> None:
    rap = rap_with(None)
    rap.put(f"{ACCOUNT}.pub.080000.rcvd", f"{key(1).fingerprint}  {ACCOUNT}.pub")
    assert not renew(rap).renewed
    assert rap.account_keys().record.current.last_day == TODAY.add(years=2).subtract(days=1)


def test_a_current_key_that_does_not_open_fails_the_renewal() -> None:
    rap = rap_with(TODAY.add(days=100))
    keys = rap.account_keys()
    locked = StoredKey(fingerprint=key(2).fingerprint, private_key=key(2).to_openssh("another"))
    keys.save(replace(keys.record, current=locked, previous=stored(1)))
    with pytest.raises(RapConfigurationError, match="it is encrypted and no passphrase is given"):
        renew(rap)


def test_a_current_key_that_the_last_login_refused_is_tried_again_and_fails_the_renewal() -> None:
    rap = rap_with(TODAY.add(days=100))
    rap.checks = False
    lost, rap.keys = rap.keys, {}
    with pytest.raises(RapAuthenticationError):
        renew(rap)
    assert rap.account_keys().record.refused_key
    with pytest.raises(RapAuthenticationError):
        renew(rap)
    rap.keys = lost
    assert not renew(rap).renewed
    assert rap.account_keys().record.refused_key is None


def test_an_accepted_key_that_another_has_replaced_does_not_go_up_again() -> None:
    rap = rap_with(TODAY.add(days=25))
    rap.answer = "accepted but refused"
    with pytest.raises(RapKeyVerificationError, match="does not log in; RAP accepted it"):
        renew(rap)
    rap.answer = "rcvd"
    rap.put("DCXYZ001.pub.100000.rcvd", f"{key(7).fingerprint}  DCXYZ001.pub")
    with pytest.raises(RapKeyVerificationError, match=f"took the key {key(7).fingerprint}"):
        renew(rap)
    rap.clock.now = NOW.add(days=13)
    with pytest.raises(RapKeyVerificationError, match="does not log in; RAP accepted it"):
        renew(rap)
    assert len(rap.uploads) == 1


def test_where_the_newer_key_is_replaced_the_older_one_is_kept() -> None:
    rap = rap_with(TODAY.add(days=25))
    renew(rap)
    rap.clock.now = NOW.add(days=3)
    rap.answer = "accepted but refused"
    with pytest.raises(RapKeyVerificationError, match=f"old key still works through {TODAY.add(days=13)}"):
        renew(rap, force=True, replace_second_key=True)
    rap.answer = "rcvd"
    outcome = renew(rap, replace_second_key=True)
    record = rap.account_keys().record
    assert outcome.fingerprint == rap.uploads[-1]
    assert (outcome.previous_fingerprint, outcome.previous_last_day) == (
        key(1).fingerprint,
        TODAY.add(days=13).isoformat(),
    )
    assert {it.fingerprint for it in record.keys} == {it for it in rap.keys if rap.lets_in(it)}


def test_a_last_day_that_is_corrected_counts() -> None:
    rap = rap_with(TODAY.add(years=2))
    assert not renew(rap).renewed
    rap.key_expires = TODAY.add(days=20)
    assert renew(rap).renewed


def test_a_rejection_does_not_use_up_what_was_forced() -> None:
    rap = rap_with(TODAY.add(years=2))
    rap.answer = "rej"
    with pytest.raises(RapKeyRejected):
        renew(rap, force=True, run="run")
    rap.answer = "rcvd"
    assert renew(rap, force=True, run="run").renewed
    assert not renew(rap, force=True, run="run").renewed


def test_an_accepted_key_that_rap_has_forgotten_goes_up_again_at_once_if_asked_to() -> None:
    rap = rap_with()
    rap.answer = "accepted but refused"
    with pytest.raises(RapKeyVerificationError):
        renew(rap)
    rap.answer = "rcvd"
    assert renew(rap, replace_second_key=True).renewed
    assert len(rap.uploads) == 2


def test_a_refused_current_key_fails_the_renewal_that_is_not_due() -> None:
    rap = rap_with(TODAY.add(days=25))
    renew(rap)
    record = rap.account_keys().record
    assert record.current
    del rap.keys[record.current.fingerprint]

    async def log_in() -> None:
        async with rap.registered():
            pass

    asyncio.run(log_in())
    with pytest.raises(
        RapKeyVerificationError, match=f"refused the current key.*through {record.previous.last_day}"
    ):
        renew(rap)
    rap.register(record.current.fingerprint)
    asyncio.run(log_in())
    assert not renew(rap).renewed


@pytest.mark.parametrize("answer", ["silent", "bare"])
def test_an_accepted_key_is_found_however_rap_answers(answer: str) -> None:
    rap = rap_with()
    rap.answer = answer
    assert renew(rap).renewed
    assert len(rap.uploads) == 1


@pytest.mark.parametrize("answer", ["lost", "refused", "accepted but refused"])
def test_a_key_that_does_not_log_in_is_not_promoted_and_tried_again(answer: str) -> None:
    rap = rap_with()
    rap.answer = answer
    with pytest.raises(RapKeyVerificationError, match=r"does not log in.*old key still works") as caught:
        renew(rap)
    record = rap.account_keys().record
    assert record.current.fingerprint == key(1).fingerprint
    assert record.pending.fingerprint == caught.value.fingerprint
    if answer == "accepted but refused":
        rap.register(record.pending.fingerprint)
    rap.answer = "rcvd"
    assert renew(rap).fingerprint == record.pending.fingerprint
    assert set(rap.uploads) == {record.pending.fingerprint}
    assert len(rap.uploads) == (1 if answer == "accepted but refused" else 2)


def test_a_result_with_another_fingerprint_is_an_error_and_a_rerun_is_safe() -> None:
    rap = rap_with()
    rap.answer = "another"
    with pytest.raises(RapKeyVerificationError, match=key(99).fingerprint):
        renew(rap)
    assert rap.account_keys().record.current.fingerprint == key(1).fingerprint
    assert renew(rap).renewed
    assert len(rap.uploads) == 1


def test_a_foreign_key_in_place_of_ours_stays() -> None:
    rap = rap_with()
    rap.answer = "another"
    with pytest.raises(RapKeyVerificationError):
        renew(rap)
    rap.register(key(99).fingerprint)
    with pytest.raises(RapConfigurationError, match="by hand"):
        renew(rap)
    assert len(rap.uploads) == 1
    rap.own = stored(99)
    assert not renew(rap).renewed
    record = rap.account_keys().record
    assert record.current.fingerprint == key(99).fingerprint
    assert record.pending is None


@pytest.mark.parametrize("failing", range(1, 5))
def test_a_store_that_fails_stops_everything_before_the_next_step(failing: int) -> None:
    rap = rap_with()
    stepped, writes = rap.store.step, 0

    def fail(name: str) -> None:
        nonlocal writes
        writes += name == "before a write"
        if writes == failing:
            raise KeyStoreError("The store is down.")
        stepped(name)

    rap.store.step = fail
    with pytest.raises(KeyStoreError):
        renew(rap)
    rap.store.step = stepped
    assert len(rap.uploads) == (failing > 2)
    assert rap.account_keys().record.current.fingerprint == key(1).fingerprint
    assert renew(rap).renewed
    assert len(rap.uploads) == 1


def test_a_pending_key_of_somebody_else_stops_the_upload() -> None:
    rap = rap_with()
    stepped = rap.store.step

    def meddle(name: str) -> None:
        stepped(name)
        if name == "after a write" and happened(rap)[-1] is Happened.SUBMITTED:
            del rap.store.texts[ACCOUNT.name]

    rap.store.step = meddle
    with pytest.raises(KeyStoreConflict):
        renew(rap)
    assert not rap.uploads


def test_what_is_about_to_be_done_is_said_and_kept_first(caplog: pytest.LogCaptureFixture) -> None:
    rap = rap_with()
    said: list[str] = []
    stepped = rap.step

    def watch(name: str) -> None:
        if name == "before an upload":
            said.extend(record.getMessage() for record in caplog.records)
            assert happened(rap)[-1] is Happened.SUBMITTED
        stepped(name)

    rap.step = watch  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO):
        outcome = renew(rap)
    assert any("About to upload" in line and outcome.fingerprint in line for line in said)
    assert outcome.last_day in caplog.text
    assert outcome.previous_last_day in caplog.text


@pytest.mark.parametrize("options", [{"key_size": 3072}, {"renew_before_days": 0}])
def test_impossible_arguments_are_refused_at_once(options: dict[str, Any]) -> None:
    rap = rap_with()
    with pytest.raises(RapConfigurationError):
        renew(rap, **options)
    assert not rap.steps


@settings(max_examples=150)
@given(
    crashes=st.lists(st.tuples(st.integers(0, 16), st.integers(0, 16)), max_size=5),
    answer=st.sampled_from(["rcvd", "bare", "silent"]),
    left=st.integers(0, 29),
)
def test_killed_anywhere_a_rerun_converges(crashes: list[tuple[int, int]], answer: str, left: int) -> None:
    """At any step of several runs, with days in between; at each of them the model sees a key that works."""
    rap = rap_with(TODAY.add(days=left))
    rap.answer = answer
    pending: set[str] = set()
    for at, days in crashes:
        rap.steps.clear()
        rap.crash_at = at
        try:
            renew(rap)
        except Crash:
            record = rap.account_keys().record
            pending |= {record.pending.fingerprint} if record.pending else set()
        rap.crash_at = None
        # The key is due, so nobody waits beyond its end before anything was uploaded.
        if rap.uploads or rap.clock().date().add(days=days) <= TODAY.add(days=left):
            rap.clock.now = rap.clock().add(days=days)
    rap.steps.clear()
    renew(rap)
    record = rap.account_keys().record
    assert len(rap.uploads) == 1
    assert pending <= set(rap.uploads)
    assert record.current.fingerprint == rap.uploads[0]
    assert record.pending is None
    assert record.current.last_day == rap.keys[rap.uploads[0]]
    if record.previous:
        assert record.previous.last_day == rap.keys[record.previous.fingerprint]
    assert sorted(rap.refusals).count(rap.uploads[0]) <= len(crashes)


class Person:
    """Somebody who meddles with the keys of an account while its renewal is killed now and then."""

    def __init__(self, rap: ModelRap) -> None:
        self.rap = rap
        self.keys: list[str] = []
        self.backup = dict(rap.store.texts)
        self.number = 500

    def upload(self) -> None:
        """Upload a key by hand."""
        self.number += 1
        found = key(self.number).fingerprint
        self.keys.append(found)
        self.rap.register(found)
        self.rap.put(
            f"{ACCOUNT}.pub.{self.rap.clock():HHmmss}.9{self.number}.rcvd", f"{found}  {ACCOUNT}.pub"
        )

    def connect(self) -> None:
        """Give the connection the key that was uploaded last."""
        if self.number > 500:
            self.rap.own = stored(self.number)

    def register(self) -> None:
        """Register another key with HKEX, in place of all others, and give it to the connection."""
        self.number += 1
        self.rap.keys = {key(self.number).fingerprint: self.rap.clock().date().add(years=2)}
        self.rap.own = stored(self.number)

    def seen(self) -> set[str]:
        """Return the uploaded keys that the record has, or that RAP lists: nobody can know of others."""
        since = self.rap.clock().subtract(hours=24)
        listed = " ".join(content.decode() for content, at in self.rap.files.values() if at > since)
        record = self.rap.account_keys().record
        return {found for found in self.keys if found in listed or record.has_history_of(found)}

    def back_up(self) -> None:
        self.backup = dict(self.rap.store.texts)

    def restore(self) -> None:
        self.rap.store.texts = dict(self.backup)

    def wait(self) -> None:
        self.rap.clock.now = self.rap.clock().add(days=1)


ACTS = st.sampled_from(["upload", "connect", "register", "back_up", "restore", "wait", "wait", "wait"])


@settings(max_examples=150)
@given(
    acts=st.lists(st.tuples(ACTS, st.none() | st.integers(0, 18)), max_size=12),
    answer=st.sampled_from(["rcvd", "bare", "silent", "lost", "rej", "registered already"]),
    left=st.integers(0, 40),
)
def test_whatever_people_do_no_key_in_use_is_replaced_and_no_live_key_is_left_untried(
    acts: list[tuple[str, int | None]], answer: str, left: int
) -> None:
    rap = rap_with(TODAY.add(days=left))
    rap.checks = False
    rap.answer = answer
    person = Person(rap)
    for act, crash_at in acts:
        getattr(person, act)()
        replaced_by_hand, seen = list(rap.replaced), person.seen()
        rap.steps.clear()
        rap.crash_at = crash_at
        with suppress(RapError, Crash):
            renew(rap)
        rap.crash_at = None
        assert not set(rap.replaced[len(replaced_by_hand) :]) & seen
    in_hand = {it.fingerprint for it in rap.account_keys().record.keys} | {rap.own.fingerprint}
    # A restored store forgets an upload; of a killed process nobody knows if RAP got it.
    unknown = sum(act == "restore" or crash_at is not None for act, crash_at in acts)
    assert len([it for it in rap.uploads if it in in_hand]) <= 2 + unknown
    if any(map(rap.lets_in, in_hand)):
        for _ in range(3):
            with suppress(RapAuthenticationError):
                asyncio.run(log_in(rap))
                break
        else:
            pytest.fail("No login has found the key that RAP accepts.")


async def log_in(rap: ModelRap) -> None:
    async with rap.registered():
        pass


def test_ten_years_take_five_renewals() -> None:
    rap = ModelRap(Clock(), stored(1, TODAY.add(days=20)))
    rap.own = stored(1, TODAY.add(days=20))
    asyncio.run(_ten_years(rap))
    assert len(rap.uploads) == len(set(rap.uploads)) == 6
    assert len({file.name for file in rap.account_keys().record.results}) == 1
    assert happened(rap).count(Happened.ACCEPTED) == 6
    assert not rap.refusals


async def _ten_years(rap: ModelRap) -> None:
    while rap.clock() < NOW.add(years=10):
        outcome = await rap.renew()
        assert rap.lets_in(outcome.fingerprint or "")
        assert len([it for it in rap.keys if rap.lets_in(it)]) <= 2
        kept = {it.fingerprint for it in rap.account_keys().record.keys}
        assert kept == {it for it in rap.keys if rap.lets_in(it)}
        # At the same second of each day, so each answer has the name of those before.
        rap.clock.now = rap.clock().add(days=1).at(NOW.hour, NOW.minute, NOW.second)
