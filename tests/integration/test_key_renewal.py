"""The renewal of keys against the simulated RAP: the hook's keys, the operator, the sensor, ten years."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import asyncssh
import pendulum
import pytest
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.sdk.log import _secrets_masker

from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
from airflow_provider_hkex_rap.hooks.rap import RapHook
from airflow_provider_hkex_rap.keystore.record import Happened, KeyRecord, StoredKey
from airflow_provider_hkex_rap.keystore.renewal import Renewal
from airflow_provider_hkex_rap.keystore.store import KeyStoreError
from airflow_provider_hkex_rap.operators.key_renewal import KEY_RENEWED, RapKeyRenewalOperator
from airflow_provider_hkex_rap.rap.errors import (
    RapAuthenticationError,
    RapClosed,
    RapConfigurationError,
    RapPermissionDenied,
    RapSessionSuperseded,
)
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER, Folder
from airflow_provider_hkex_rap.rap.key_lifecycle import first_renewal_day
from airflow_provider_hkex_rap.rap.keys import PrivateKey
from airflow_provider_hkex_rap.runner.key_logins import KeyLogins
from airflow_provider_hkex_rap.runner.policy import ATTENDED
from airflow_provider_hkex_rap.runner.runner import SessionRunner
from airflow_provider_hkex_rap.sensors.key_expiry import RapKeyExpiryWarningSensor
from airflow_provider_hkex_rap.testing import Access, Fault, KeyFolderBehaviour, RapSimulator, ServerBehaviour

from .openssh import missing, openssh

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.renewal_outcome import RenewalOutcome

ACCOUNT = "DCXYZ001"
NOW = pendulum.datetime(2026, 11, 20, 9, 0, tz="Asia/Hong_Kong")
TODAY = NOW.date()


class Site:
    """A simulated RAP, and the connections of its accounts with their keys in a directory."""

    def __init__(self, rap: RapSimulator, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rap = rap
        self.keys = keys
        self._monkeypatch = monkeypatch
        for account in rap.accounts:
            self.connect(account)

    def connect(self, account: str = ACCOUNT, *, without: tuple[str, ...] = (), **extra: object) -> None:
        """Make the account's connection, and set the provider's clock to RAP's."""
        connection = self.rap.connection(account)
        connection["extra"] |= {"key_store": self.keys.as_uri(), **extra}
        for name in without:
            del connection["extra"][name]
        self._monkeypatch.setenv(f"AIRFLOW_CONN_{account}", json.dumps(connection))
        self.set_clock()

    def set_clock(self) -> None:
        offset = (self.rap.clock() - pendulum.now()).total_seconds()
        self._monkeypatch.setenv("AIRFLOW__HKEX_RAP__CLOCK_OFFSET", str(offset))

    def advance(self, **durations: int) -> None:
        self.rap.clock.advance(**durations)
        self.set_clock()

    def hook(self, account: str = ACCOUNT) -> RapHook:
        return RapHook(account.lower())

    def source(self, account: str = ACCOUNT) -> AirflowLoginSource:
        return AirflowLoginSource(account.lower())

    def log_in(self, account: str = ACCOUNT) -> str:
        """Log in as every task does; return the fingerprint of the key that did."""

        async def log_in() -> str:
            async with self.hook(account).session() as session:
                await session.list_folder(Folder.DCASS)
                return session.client_key_fingerprint

        return asyncio.run(log_in())

    def record(self, account: str = ACCOUNT) -> KeyRecord:
        return self.source(account).keys.read().record

    def save(self, account: str = ACCOUNT, **changes: Any) -> None:
        keys = self.source(account).keys.read()
        keys.save(replace(keys.record, **changes))

    def renew(self, account: str = ACCOUNT, **options: Any) -> dict[str, Any]:
        """Run the operator."""
        arguments = {"key_size": 2048, **options}
        operator = RapKeyRenewalOperator(task_id="renew", rap_conn_id=account.lower(), **arguments)
        return operator.execute({})

    def renew_in_its_time(self, account: str = ACCOUNT, **options: Any) -> RenewalOutcome:
        """Run the renewal by RAP's clock, which is advanced when the renewal waits."""

        async def sleep(seconds: float) -> None:
            self.rap.clock.advance(seconds=seconds)

        source = self.source(account)
        runner = SessionRunner(source, ATTENDED)
        renewal = Renewal(
            source.keys.read(),
            KeyLogins(runner, source),
            self.rap.clock,
            key_size=2048,
            sleep=sleep,
            **options,
        )
        return runner.run(renewal.run)

    def fingerprint(self, account: str = ACCOUNT) -> str:
        """Return the fingerprint of the key registered first."""
        return PrivateKey.load(self.rap.private_key(account)).fingerprint


@pytest.fixture(autouse=True)
def masker() -> Iterator[None]:
    """Let the masker of secrets, which a task has to itself, forget those of the test."""
    yield
    _secrets_masker().reset_masker()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with RapSimulator((ACCOUNT, "DCXYZ002"), NOW, access=Access(key_expires=TODAY.add(days=20))) as rap:
        yield Site(rap, tmp_path / "keys", monkeypatch)


def stored(key: PrivateKey, **dates: pendulum.Date) -> StoredKey:
    return StoredKey(fingerprint=key.fingerprint, private_key=key.to_openssh(), **dates)


# The hook and its keys.


def test_the_connections_key_is_adopted_by_its_first_login(site: Site) -> None:
    site.connect(key_expires="2026-12-10")
    assert site.log_in() == site.fingerprint()
    current = site.record().current
    assert current
    assert current.fingerprint == site.fingerprint()
    assert current.last_day == pendulum.Date(2026, 12, 10)
    assert site.record().history[0].what is Happened.ADOPTED
    site.connect(without=("private_key",))
    assert site.log_in() == site.fingerprint()


def test_a_day_that_is_over_is_not_that_of_a_key_that_logs_in(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.connect(key_expires=TODAY.subtract(days=1).isoformat())
    assert site.log_in() == site.fingerprint()
    current = site.record().current
    assert current
    assert current.last_day is None
    assert "has passed, but the key of DCXYZ001 logs in: correct it" in caplog.text


def test_a_key_that_is_refused_is_not_adopted(site: Site) -> None:
    site.rap.register_key(ACCOUNT, PrivateKey.generate(2048).public_key.to_openssh())
    with pytest.raises(RapAuthenticationError):
        site.log_in()
    assert site.record() == KeyRecord(account=ACCOUNT, refused=(site.fingerprint(),))
    assert len(site.rap.events.of("connect")) == 1


def test_what_is_adopted_is_encrypted_where_there_is_a_passphrase(site: Site) -> None:
    site.connect(private_key_passphrase="correct horse")
    site.log_in()
    text = (site.keys / f"{ACCOUNT}.json").read_text()
    with pytest.raises(asyncssh.KeyImportError, match="assphrase"):
        asyncssh.import_private_key(json.loads(text)["current"]["private_key"])
    site.connect(without=("private_key",), private_key_passphrase="correct horse")
    assert site.log_in() == site.fingerprint()
    site.connect(without=("private_key",), private_key_passphrase="wrong")
    with pytest.raises(RapConfigurationError, match=r"key store.*cannot be used"):
        site.log_in()
    # RAP may still accept the connection's key, which was another's before.
    newer = PrivateKey.generate(2048)
    site.connect(private_key_passphrase="wrong")
    site.save(current=StoredKey(fingerprint=newer.fingerprint, private_key=newer.to_openssh("correct horse")))
    assert site.log_in() == site.fingerprint()


def test_a_changed_passphrase_does_not_lock_the_account_out(site: Site) -> None:
    site.connect(private_key_passphrase="correct horse")
    site.log_in()
    # The same key, encrypted again, and both fields of the connection are updated.
    again = PrivateKey.load(site.rap.private_key(ACCOUNT)).to_openssh("battery staple")
    site.connect(private_key=again, private_key_passphrase="battery staple")
    assert site.log_in() == site.fingerprint()
    site.connect(without=("private_key",), private_key_passphrase="battery staple")
    assert site.log_in() == site.fingerprint()


def test_the_previous_key_serves_while_it_is_valid_with_a_warning(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.log_in()
    lost, old = PrivateKey.generate(2048), site.record().current
    assert old
    site.save(current=stored(lost), previous=replace(old, last_day=TODAY))
    assert site.log_in() == site.fingerprint()
    assert f"refused the current key {lost.fingerprint}" in caplog.text
    assert len(site.rap.events.of("connect")) == 2
    # RAP's word beats the record: the last day may be wrong.
    site.save(current=stored(lost), previous=replace(old, last_day=TODAY.subtract(days=1)))
    site.connect(without=("private_key",))
    assert site.log_in() == site.fingerprint()


def test_the_third_key_in_hand_is_found_by_the_next_login(site: Site) -> None:
    site.log_in()
    current = site.record().current
    waiting, lost = PrivateKey.generate(2048), PrivateKey.generate(2048)
    site.save(current=stored(lost), unregistered=stored(waiting), previous=current)
    site.connect(without=("private_key",))
    with pytest.raises(RapAuthenticationError, match="Another key remains") as caught:
        site.log_in()
    assert caught.value.retryable
    assert caught.value.fingerprints == (lost.fingerprint, waiting.fingerprint)
    assert site.log_in() == site.fingerprint()


def test_a_key_made_for_registration_is_current_from_its_first_login(site: Site) -> None:
    new = PrivateKey.generate(2048)
    site.log_in()
    site.save(unregistered=stored(new))
    assert site.log_in() == site.fingerprint()
    site.rap.register_key(ACCOUNT, new.public_key.to_openssh())
    assert site.log_in() == new.fingerprint
    record = site.record()
    assert record.current
    assert (record.unregistered, record.current.fingerprint) == (None, new.fingerprint)
    site.rap.events.clear()
    assert site.log_in() == new.fingerprint
    assert not site.rap.events.of("refused")


def test_a_key_that_the_passphrase_does_not_open_holds_up_no_other(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    new = PrivateKey.generate(2048)
    site.connect(private_key_passphrase="first")
    site.log_in()
    site.save(unregistered=StoredKey(fingerprint=new.fingerprint, private_key=new.to_openssh("second")))
    assert site.log_in() == site.fingerprint()
    assert "Not offering the key made for registration" in caplog.text
    site.rap.faults.add(Fault("refuse_login", times=None))
    with pytest.raises(RapAuthenticationError, match=r"Not offered: .*the passphrase is wrong"):
        site.log_in()
    site.rap.faults.clear()
    site.rap.register_key(ACCOUNT, new.public_key.to_openssh())
    site.connect(private_key_passphrase="second")
    assert site.log_in() == new.fingerprint
    assert site.log_in() == new.fingerprint


def test_a_record_that_names_another_key_is_refused(site: Site) -> None:
    site.log_in()
    current = site.record().current
    assert current
    site.save(current=replace(current, fingerprint=current.fingerprint.upper()))
    site.connect(without=("private_key",))
    with pytest.raises(RapConfigurationError, match=f"fingerprint {site.fingerprint()}, not"):
        site.log_in()


@pytest.mark.guide("3.2 public key")
def test_one_key_on_two_accounts_is_refused_before_the_network(site: Site) -> None:
    site.log_in()
    site.rap.events.clear()
    site.connect("DCXYZ002", private_key=site.rap.private_key(ACCOUNT))
    with pytest.raises(RapConfigurationError, match=f"is a key of {ACCOUNT} too"):
        site.log_in("DCXYZ002")
    assert not site.rap.events


def test_without_any_key_nothing_is_sent(site: Site) -> None:
    site.connect(without=("private_key",))
    with pytest.raises(RapConfigurationError, match="There is no private key"):
        site.log_in()
    assert not site.rap.events


class ReadOnlyStore:
    """A key store that cannot be written, as a secrets backend is."""

    def read(self, account: str) -> str | None:
        return None

    def write(self, account: str, text: str, *, replacing: str | None) -> None:
        raise KeyStoreError("The store is read-only.")


READ_ONLY = f"{__name__}.ReadOnlyStore"


def test_a_login_is_good_even_if_the_store_cannot_keep_its_key(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.connect(key_store=READ_ONLY)
    assert site.log_in() == site.fingerprint()
    assert "The store is read-only." in caplog.text


def test_the_test_button_says_which_key_got_in(site: Site) -> None:
    ok, message = site.hook().test_connection()
    assert ok
    assert site.fingerprint() in message
    assert site.record().current
    site.connect(key_store="no.such.Store")
    ok, message = site.hook().test_connection()
    assert not ok
    assert "not a key store" in message


@pytest.mark.parametrize("text", ["2026-13-01", "soon", "31/12/2026"])
def test_a_last_day_that_is_no_date_is_refused(site: Site, text: str) -> None:
    site.connect(key_expires=text)
    with pytest.raises(RapConfigurationError, match="'key_expires' is not a date"):
        site.log_in()


# The operator.


@pytest.mark.guide("2.1 endurance", "3.2.1 names", "6 renewal")
def test_a_key_that_is_due_is_renewed_over_two_logins(site: Site) -> None:
    site.connect(key_expires=TODAY.add(days=20).isoformat())
    outcome = site.renew()
    assert outcome == {
        "account": ACCOUNT,
        "renewed": True,
        "reason": outcome["reason"],
        "fingerprint": outcome["fingerprint"],
        "last_day": "2028-11-19",
        "days_left": 731,
        "previous_fingerprint": site.fingerprint(),
        "previous_last_day": "2026-12-03",
    }
    valid = [
        (key.fingerprint, key.last_day.isoformat()) for key in site.rap.keys.valid(ACCOUNT) if key.last_day
    ]
    assert valid == [
        (outcome["previous_fingerprint"], outcome["previous_last_day"]),
        (outcome["fingerprint"], outcome["last_day"]),
    ]
    site.rap.events.wait_for("logout", 2)
    events = site.rap.events
    assert len(events.of("login")) == len(events.of("connect")) == 2
    assert len(events.of("upload")) == 1
    assert not events.of("denied", "missing", "refused", "superseded", "lost")
    assert site.log_in() == outcome["fingerprint"]
    assert site.rap.uploads[0].content.startswith(b'---- BEGIN SSH2 PUBLIC KEY ----\nComment: "DCXYZ001"\n')
    assert site.rap.uploads[0].name == b"DCXYZ001.pub"


def test_a_renewal_emits_an_asset_event_without_key_material(site: Site) -> None:
    operator = RapKeyRenewalOperator(task_id="renew", rap_conn_id=ACCOUNT.lower(), key_size=2048, force=True)
    assert KEY_RENEWED in operator.outlets
    events = OutletEventAccessors()
    outcome = operator.execute({"outlet_events": events})
    (event,) = events[KEY_RENEWED].asset_alias_events
    assert event.dest_asset_key.uri == event.dest_asset_key.name == f"hkex-rap://key/{ACCOUNT}"
    assert event.extra == outcome
    again = OutletEventAccessors()
    operator.force = False
    operator.execute({"outlet_events": again})
    assert not again[KEY_RENEWED].asset_alias_events


def test_a_key_that_is_not_due_costs_one_login(site: Site) -> None:
    site.connect(key_expires="2028-01-01")
    site.log_in()
    site.rap.events.clear()
    outcome = site.renew()
    assert not outcome["renewed"]
    assert "2028-01-01" in outcome["reason"]
    # RAP's word beats ours, so each run looks into the key folder.
    assert [event.kind for event in site.rap.events] == ["connect", "login", "list", "logout"]
    assert not site.rap.uploads


@pytest.mark.guide("6.2 warning")
def test_a_key_of_unknown_expiry_is_renewed_once_rap_warns(site: Site) -> None:
    assert not site.renew()["renewed"]
    site.advance(days=6)
    assert not site.renew()["renewed"]
    site.advance(days=1)
    # A Friday again, and on its last 14 days.
    assert site.renew()["renewed"]
    assert len(site.rap.uploads) == 1


def test_a_superseded_renewal_waits_and_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT", "0.1")
    site.rap.faults.add(Fault("drop_after_upload"))
    run = SimpleNamespace(conf={}, run_after=NOW, run_id="run")
    operator = RapKeyRenewalOperator(task_id="renew", rap_conn_id=ACCOUNT.lower(), key_size=2048, force=True)
    outcome = operator.execute({"ti": SimpleNamespace(), "dag_run": run})  # type: ignore[typeddict-item]
    assert outcome["renewed"]
    assert len(site.rap.uploads) == 1
    assert site.rap.events.peak_sessions(ACCOUNT) == 1


def test_arguments_may_come_from_templates(site: Site) -> None:
    assert site.renew(force="True", key_size="2048", renew_before_days="30")["renewed"]
    for wrong in (
        {"force": "maybe"},
        {"key_size": "large"},
        {"key_size": None},
        {"renew_before_days": "366"},
    ):
        with pytest.raises(RapConfigurationError) as caught:
            site.renew(**wrong)
        assert not caught.value.retryable


@pytest.mark.guide("4.1 hours")
def test_while_rap_is_shut_the_task_waits_without_a_login(site: Site) -> None:
    site.rap.clock.set(NOW.set(hour=3))
    site.set_clock()
    with pytest.raises(RapClosed):
        site.renew(force=True)
    in_a_run = {"ti": SimpleNamespace(try_number=1), "dag_run": SimpleNamespace(conf={}, run_id="run")}
    for task in (RapKeyRenewalOperator, RapKeyExpiryWarningSensor):
        with pytest.raises(AirflowRescheduleException):
            task(task_id="look", rap_conn_id=ACCOUNT.lower()).execute(in_a_run)
    assert not site.rap.events


@pytest.mark.guide("6 renewal")
def test_each_account_renews_its_own_key(site: Site) -> None:
    first, second = site.renew(force=True), site.renew("DCXYZ002", force=True)
    assert (first["account"], second["account"]) == (ACCOUNT, "DCXYZ002")
    assert [upload.name for upload in site.rap.uploads] == [b"DCXYZ001.pub", b"DCXYZ002.pub"]
    assert len({first["fingerprint"], second["fingerprint"]}) == 2


@pytest.mark.parametrize("results", ["at_once", "delayed", "fresh_listing", "absent"])
@pytest.mark.parametrize("uploaded_file", ["lingers", "consumed", "stays"])
@pytest.mark.guide("2.1 endurance", "4.2 key folder", "6 results")
def test_however_rap_answers_the_key_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Any, uploaded_file: Any
) -> None:
    with RapSimulator(
        now=NOW,
        key_folder=KeyFolderBehaviour(
            results=results, uploaded_file=uploaded_file, pub_in_result_names=results != "delayed"
        ),
        server=ServerBehaviour(
            attributes="none" if uploaded_file == "stays" else "full", announce_limits=results == "delayed"
        ),
    ) as rap:
        site = Site(rap, tmp_path / "keys", monkeypatch)
        outcome = site.renew_in_its_time(force=True)
        assert outcome.renewed
        assert len(rap.uploads) == 1
        assert [key.fingerprint for key in rap.keys.valid(ACCOUNT)][1] == outcome.fingerprint
        assert not rap.events.of("denied", "missing", "refused", "superseded")
        assert len(site.record().results) == (results != "absent")


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.guide("2.1 endurance")
def test_a_denied_upload_is_an_error_that_speaks_of_endurance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSH's sftp server, read-only, denies it as RAP would."""
    with openssh() as server:
        connection = server.connection(key_store=(tmp_path / "keys").as_uri())
        monkeypatch.setenv("AIRFLOW_CONN_OPENSSH", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW__HKEX_RAP__CLOCK_OFFSET", str((NOW - pendulum.now()).total_seconds()))
        operator = RapKeyRenewalOperator(task_id="renew", rap_conn_id="openssh", key_size=2048, force=True)
        with pytest.raises(RapPermissionDenied, match=r"endurance.*§2\.1") as caught:
            operator.execute({})
        assert not caught.value.retryable
        assert not list((server.root / KEY_FOLDER[1:]).iterdir())


def test_a_store_that_is_away_stops_the_renewal_before_an_upload(site: Site) -> None:
    site.connect(key_store=READ_ONLY)
    for options in ({"force": True}, {}):
        with pytest.raises(KeyStoreError, match="does not have the key"):
            site.renew(**options)
    assert not site.rap.uploads


# The sensor.


def look(**arguments: Any) -> Any:
    return RapKeyExpiryWarningSensor(task_id="look", rap_conn_id=ACCOUNT.lower(), **arguments).execute({})


def test_the_sensor_looks_once_and_skips_where_rap_does_not_warn(site: Site) -> None:
    with pytest.raises(AirflowSkipException):
        look()
    assert len(site.rap.events.of("login")) == 1


@pytest.mark.guide("6.2 warning")
def test_the_sensor_finds_the_warning_and_ignores_its_repeat_after_a_renewal(site: Site) -> None:
    site.advance(days=10)
    found = look()
    assert found["account"] == ACCOUNT
    assert found["fingerprints"] == [site.fingerprint()]
    assert found["dates"] == [TODAY.add(days=20).isoformat()]
    assert found["day"] == TODAY.add(days=10).isoformat()
    site.renew(force=True)
    site.advance(days=1)
    with pytest.raises(AirflowSkipException):
        look()
    for flag in (False, "False"):
        assert look(ignore_if_renewed=flag)["fingerprints"] == [site.fingerprint()]


def test_the_sensor_knows_a_repeat_without_fingerprints_by_its_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RapSimulator(
        now=NOW,
        access=Access(key_expires=TODAY.add(days=10)),
        key_folder=KeyFolderBehaviour(warning_text="A key of {account} will expire soon."),
    ) as rap:
        site = Site(rap, tmp_path / "keys", monkeypatch)
        assert look()["fingerprints"] == []
        site.renew(force=True)
        with pytest.raises(AirflowSkipException):
            look()


def test_a_look_that_fails_is_repeated_and_no_reason_to_skip(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.rap.faults.add(Fault("listing_cut", times=None))
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT", "1000")
    with pytest.raises(AirflowRescheduleException) as rescheduled:
        look(timeout=3600, poke_interval=60)
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT", "0.1")
    # Another login may use the account.
    wait = rescheduled.value.reschedule_date - pendulum.now("UTC")
    assert wait.total_seconds() > 900
    with pytest.raises(RapSessionSuperseded) as caught:
        look()
    assert caught.value.retryable
    site.rap.faults.clear()
    with pytest.raises(AirflowSkipException):
        look()


def test_an_error_is_no_reason_to_skip(site: Site) -> None:
    site.rap.register_key(ACCOUNT, PrivateKey.generate(2048).public_key.to_openssh())
    with pytest.raises(RapAuthenticationError) as caught:
        look()
    assert not caught.value.retryable


# Secrets, and time.


@pytest.mark.guide("3.2.2 private keys")
def test_no_key_material_leaves_the_store(
    site: Site, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    errors: list[BaseException] = []
    with caplog.at_level(logging.DEBUG):
        site.connect(private_key_passphrase="correct horse battery")
        outcome = site.renew(force=True)
        site.advance(days=20)
        second = site.renew(force=True)
        for wrong in ("correct horse", "x"):
            site.connect(private_key_passphrase=wrong)
            with pytest.raises(RapConfigurationError) as caught:
                site.renew(force=True)
            errors.append(caught.value)
    operator = RapKeyRenewalOperator(task_id="renew", rap_conn_id=ACCOUNT.lower())
    rendered = [repr(getattr(operator, field)) for field in operator.template_fields]
    shown = "\n".join(
        [
            caplog.text,
            *capfd.readouterr(),
            json.dumps([outcome, second]),
            *rendered,
            *(f"{error!r} {error} {vars(error)}" for error in errors),
            *(f"{key!r}" for key in site.record().keys),
            repr(site.source().login),
            *(event.detail for event in site.rap.events),
        ]
    )
    texts = [site.rap.private_key(ACCOUNT), *(key.private_key for key in site.record().keys)]
    material = [line for text in texts for line in text.splitlines() if "-----" not in line]
    # Any part of a line would be too much.
    parts = {line[at : at + 20] for line in material for at in range(0, len(line) - 19, 20)}
    assert len(parts) > 200
    assert not [part for part in parts if part in shown]
    assert "correct horse battery" not in shown
    assert "PRIVATE KEY" not in shown
    assert not any(b"PRIVATE" in upload.content for upload in site.rap.uploads)


def _next_day(site: Site, accounts: tuple[str, ...]) -> dict[str, int]:
    """Return the next day on which a key is due, or has just ended."""
    days = []
    for account in accounts:
        record = site.record(account)
        assert record.current
        assert record.current.last_day
        days.append(first_renewal_day(record.current.last_day))
        if record.previous and record.previous.last_day:
            days.append(record.previous.last_day.add(days=1))
    day = min(days)
    return {"year": day.year, "month": day.month, "day": day.day}


@pytest.mark.slow
@pytest.mark.guide("4.2 key folder", "6 renewal", "6.3 two keys")
def test_ten_years_of_four_accounts_pass_unattended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = tuple(f"DCXYZ00{number}" for number in range(1, 5))
    with RapSimulator(accounts, NOW) as rap:
        site = Site(rap, tmp_path / "keys", monkeypatch)
        for account in accounts:
            site.connect(account, key_expires=str(rap.keys.valid(account)[0].last_day))
            site.log_in(account)
            site.connect(account, without=("private_key",))
        while rap.clock() < NOW.add(years=10, months=6):
            for account in accounts:
                site.renew_in_its_time(account)
                held = {key.fingerprint for key in site.record(account).keys}
                assert held == {key.fingerprint for key in rap.keys.valid(account)}
                assert site.log_in(account) == rap.keys.valid(account)[-1].fingerprint
            # The renewal is daily; between these days it finds nothing to do.
            rap.clock.set(NOW.set(**_next_day(site, accounts)))
            site.set_clock()
        for account in accounts:
            uploads = [upload for upload in rap.uploads if upload.account == account]
            assert len(uploads) == 5
            days = [upload.at.date() for upload in uploads]
            assert all((later - earlier).days > 600 for earlier, later in itertools.pairwise(days))
        assert not rap.events.of("denied", "missing", "refused", "superseded")
