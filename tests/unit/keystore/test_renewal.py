"""The renewal of a key: its steps, its record, and its continuation after an interruption."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_hkex_rap.keystore.record import Happened
from airflow_provider_hkex_rap.keystore.store import KeyStoreConflict, KeyStoreError
from airflow_provider_hkex_rap.rap.calendar import is_trading_day
from airflow_provider_hkex_rap.rap.errors import (
    RapConfigurationError,
    RapKeyRejected,
    RapKeyVerificationError,
)
from airflow_provider_hkex_rap.rap.key_lifecycle import OVERLAP_DAYS

from .model import ACCOUNT, NOW, Clock, Crash, ModelRap, key, stored

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.renewal import RenewalOutcome

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
def test_a_key_is_renewed_on_its_last_thirty_days(days: int, due: bool) -> None:
    rap = rap_with(TODAY.add(days=days))
    assert renew(rap).renewed == due
    assert bool(rap.steps) == due
    assert bool(rap.uploads) == due


def test_a_key_of_unknown_expiry_is_renewed_when_rap_warns_of_it() -> None:
    rap = rap_with(None)
    outcome = renew(rap)
    assert not outcome.renewed
    assert "key_expires" in outcome.reason
    rap.put("SSHKeyExpireWarning.txt", "Your key will expire soon")
    assert renew(rap).renewed
    rap.clock.now = NOW.add(days=1)
    rap.put("SSHKeyExpireWarning.txt", "Your key will expire soon")
    assert not renew(rap).renewed


def test_force_acts_once_in_a_run() -> None:
    rap = rap_with(TODAY.add(days=500))
    assert renew(rap, force=True, run="manual").renewed
    assert not renew(rap, force=True, run="manual").renewed
    assert len(rap.uploads) == 1


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
        rap.answer = "accepted but refused"
        until = begun.add(days=OVERLAP_DAYS - 1).date()
        with pytest.raises(RapKeyVerificationError, match=f"old key still works through {until}"):
            renew(rap)
        rap.answer = "rcvd"
        outcome = renew(rap)
        assert outcome.fingerprint == rap.uploads[0]
        assert outcome.previous_last_day == until.isoformat()
        assert rap.uploads[2:] == rap.uploads[:1] * (len(rap.uploads) - 2)
        assert set(rap.uploads) == {rap.uploads[0]}


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


def test_a_last_day_that_is_corrected_counts_without_a_login() -> None:
    rap = rap_with(TODAY.add(years=2))
    assert not renew(rap).renewed
    assert not rap.steps
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


@settings(max_examples=150, deadline=None)
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
