"""The constants of the guide, copied from its text as literals: the product must not be its own witness.

Each test names the section of "HKCC and SEOCH Report Access Platform (RAP), Technical Guide", version 2.1.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import string
from ipaddress import IPv4Address

import pendulum
import pytest

from airflow_provider_hkex_rap.rap import algorithms, key_lifecycle, retention
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.expiry_warning import EXPIRY_WARNING_FILE
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER, Folder, Service, parse_path
from airflow_provider_hkex_rap.rap.key_lifecycle import RegisteredKey
from airflow_provider_hkex_rap.rap.keys import KEY_SIZES, PrivateKey, public_key_file_name
from airflow_provider_hkex_rap.rap.result_file import Received, Rejected, ResultName
from airflow_provider_hkex_rap.rap.service_hours import KEY_WORK, window
from airflow_provider_hkex_rap.rap.sites import GUIDE_ADDRESSES, RAP_PORT, Site
from airflow_provider_hkex_rap.rap.workstations import MAX_WORKSTATIONS
from airflow_provider_hkex_rap.testing.key_management import RESULT_KEPT
from airflow_provider_hkex_rap.transport.login import read_login

PEM = PrivateKey.generate(2048).to_openssh()


def hkt(text: str) -> pendulum.DateTime:
    parsed = pendulum.parse(text, tz="Asia/Hong_Kong")
    assert isinstance(parsed, pendulum.DateTime)
    return parsed


def day(text: str) -> pendulum.Date:
    return pendulum.Date.fromisoformat(text)


@pytest.mark.parametrize(
    ("ours", "guides"),
    [
        (
            algorithms.KEY_EXCHANGE,
            "curve25519-sha256@libssh.org , ecdh-sha2-nistp521 , ecdh-sha2-nistp384 , ecdh-sha2-nistp256 ,"
            " diffie-hellman-group-exchange-sha256",
        ),
        (algorithms.MACS, "hmac-sha2-512-96, hmac-sha2-256"),
        (
            algorithms.CIPHERS,
            "aes256-gcm@openssh.com , aes128-gcm@openssh.com , aes256-ctr , aes192-ctr , aes128-ctr",
        ),
        (algorithms.PUBLIC_KEY, "ssh-rsa,rsa-sha2-256,rsa-sha2-512"),
    ],
    ids=["key exchange", "MAC", "cipher", "public and host key"],
)
@pytest.mark.guide("2.1 algorithms")
def test_algorithms_2_1(ours: tuple[str, ...], guides: str) -> None:
    assert sorted(ours) == sorted(name.strip() for name in guides.split(","))


@pytest.mark.guide("3.1 accounts")
def test_accounts_3_1() -> None:
    for number in ("001", "002", "003", "004"):
        account = Account(f"DCXYZ{number}")
        assert str(account) == f"DCXYZ{number}"
        assert account.customer == "CXYZ"
    for characters in ("ABC", "A1Z", "000", "999"):
        assert Account(f"DC{characters}001").customer == f"C{characters}"


@pytest.mark.parametrize(
    "text",
    [
        "DCXYZ000",
        "DCXYZ005",
        "DCXYZ009",
        "DCXYZ0011",
        "DCXYZ01",
        "DCXYZ101",
        "CXYZ001",
        "DXYZ001",
        "DCXY001",
        "DCWXYZ001",
        "dcxyz001",
        "DCxyz001",
        "DCX-Z001",
        "ECXYZ001",
        "DDXYZ001",
        "DCXYZ001 ",
        "DCXYZ001\n",
        "",
    ],
)
@pytest.mark.guide("3.1 accounts")
def test_other_names_are_no_accounts_3_1(text: str) -> None:
    with pytest.raises(RapConfigurationError):
        Account(text)


@pytest.mark.guide("3.2.1 key sizes")
def test_key_sizes_3_2_1() -> None:
    assert sorted(KEY_SIZES) == [2048, 4096]
    for bits in (1024, 2047, 3072, 8192):
        with pytest.raises(RapConfigurationError, match="2048 or 4096 bits"):
            PrivateKey.generate(bits)


@pytest.mark.guide("2.1 key files", "3.2.1 names")
def test_the_form_of_a_public_key_file_3_2_1() -> None:
    assert public_key_file_name(Account("DCXYZ001")) == "DCXYZ001.pub"
    public = PrivateKey.load(PEM).public_key
    lines = public.to_rfc4716("SSH KEY").splitlines()
    assert lines[0] == "---- BEGIN SSH2 PUBLIC KEY ----"
    assert lines[1] == 'Comment: "SSH KEY"'
    assert lines[-1] == "---- END SSH2 PUBLIC KEY ----"
    assert {len(line) for line in lines[2:-2]} == {70}


@pytest.mark.guide("3.2.2 fingerprints")
def test_the_form_of_a_fingerprint_3_2_2() -> None:
    key = PrivateKey.load(PEM)
    pairs = key.fingerprint.split(":")
    assert "".join(pairs) == hashlib.md5(base64.b64decode(key.public_key.to_openssh().split()[1])).hexdigest()
    assert len(pairs) == 16
    assert set("".join(pairs)) <= set("0123456789abcdef")
    assert {len(pair) for pair in pairs} == {2}


@pytest.mark.parametrize(
    ("service", "date", "opens", "closes"),
    [
        (Service.DCASS, "2026-11-20", "2026-11-20 07:00", "2026-11-21 03:30"),
        (Service.CCMS, "2026-11-20", "2026-11-20 07:15", "2026-11-21 00:00"),
        (Service.CCMS, "2026-11-21", "2026-11-21 07:15", "2026-11-21 13:00"),
        # The guide names no hours for key work: it uses those in which every account can log in.
        (KEY_WORK, "2026-11-20", "2026-11-20 07:15", "2026-11-21 00:00"),
    ],
)
@pytest.mark.guide("4.1 hours")
def test_service_hours_4_1(service: Service, date: str, opens: str, closes: str) -> None:
    found = window(service, day(date))
    assert found is not None
    assert (found.opens, found.closes) == (hkt(opens), hkt(closes))


@pytest.mark.parametrize(
    ("service", "date"),
    [
        (Service.DCASS, "2026-11-21"),  # a Saturday
        (Service.DCASS, "2026-11-22"),  # a Sunday
        (Service.CCMS, "2026-11-22"),
        (Service.CCMS, "2026-12-26"),  # a Saturday and a public holiday
        (KEY_WORK, "2026-11-21"),
    ],
)
@pytest.mark.guide("4.1 hours")
def test_closed_days_4_1(service: Service, date: str) -> None:
    assert window(service, day(date)) is None


@pytest.mark.guide("4.1 ten days")
def test_reports_stay_for_10_calendar_days_4_1() -> None:
    assert retention.RETENTION_DAYS == 10
    assert retention.first_kept(day("2026-11-20")) == day("2026-11-10")
    assert retention.left_on(day("2026-11-10")) == day("2026-11-21")


@pytest.mark.guide("4.2 folders")
def test_folders_4_2() -> None:
    assert {folder.path: folder.service.value for folder in Folder} == {
        "/download/DCASS": "DCASS",
        "/download/DCASS_OTHERS": "DCASS",
        "/download/HKCC_SEOCH_CCMS_GLOB": "CCMS",
    }
    assert KEY_FOLDER == "/key_management/publickey"
    for path in (
        "/download/DCASS",
        "/download/DCASS_OTHERS",
        "/download/HKCC_SEOCH_CCMS_GLOB",
        "/key_management/publickey",
    ):
        assert parse_path(path) == (path, b"")
    with pytest.raises(RapConfigurationError):
        parse_path("/submission")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # <keyfile>.HHMMSS[.seq].rcvd and <keyfile>.HHMMSS[.seq].rej
        ("DCXYZ001.pub.093000.rcvd", ("DCXYZ001.pub", "093000", None, True)),
        ("DCXYZ001.pub.235959.12.rcvd", ("DCXYZ001.pub", "235959", "12", True)),
        ("DCXYZ001.093000.rej", ("DCXYZ001", "093000", None, False)),
        ("DCXYZ001.pub.093000.1.rej", ("DCXYZ001.pub", "093000", "1", False)),
        ("DCXYZ001.pub", None),
        ("DCXYZ001.pub.093000.recv", None),
        ("DCXYZ001.pub.093000.rejected", None),
    ],
)
@pytest.mark.guide("6 results")
def test_names_of_result_files_6(name: str, expected: tuple[object, ...] | None) -> None:
    assert ResultName.parse(name) == expected


@pytest.mark.guide("6 results")
def test_contents_of_result_files_6() -> None:
    received = b"2e:6c:9f:34:55:5a:dd:cf:7d:18:55:31:72:40:ff:bd      key002.pub\n"
    assert Received.parse(received) == ("2e:6c:9f:34:55:5a:dd:cf:7d:18:55:31:72:40:ff:bd", "key002.pub")
    rejected = b"4007 File name contains invalid characters\n|\n"
    assert Rejected.parse(rejected) == ("4007", "File name contains invalid characters")


def test_result_files_stay_for_24_hours_6() -> None:
    assert RESULT_KEPT.total_seconds() == 24 * 3600


@pytest.mark.guide("6.1 validity")
def test_the_example_of_1_march_2024_6_1() -> None:
    """From 1 to 14 March both keys are valid; from 15 March to 28 Feb 2026 only key B; then none."""
    key_a = RegisteredKey("A", day("2024-06-30"))
    old, new = key_lifecycle.keys_after_upload((key_a,), "B", day("2024-03-01"))
    assert (old.last_day, new.last_day) == (day("2024-03-14"), day("2026-02-28"))
    assert old.is_valid(day("2024-03-14"))
    assert not old.is_valid(day("2024-03-15"))
    assert new.is_valid(day("2026-02-28"))
    assert not new.is_valid(day("2026-03-01"))


@pytest.mark.guide("6.1 validity")
def test_a_key_that_ends_within_14_days_is_not_extended_6_1() -> None:
    old, _ = key_lifecycle.keys_after_upload((RegisteredKey("A", day("2024-03-07")),), "B", day("2024-03-01"))
    assert old.last_day == day("2024-03-07")


@pytest.mark.guide("6.1 validity", "6.2 warning", "6.3 two keys")
def test_days_6_1_to_6_3() -> None:
    assert key_lifecycle.OVERLAP_DAYS == 14
    assert key_lifecycle.WARNING_DAYS == 14
    assert key_lifecycle.last_day_of_new_key(day("2024-03-01")) == day("2026-02-28")
    assert key_lifecycle.first_warning_day(day("2026-02-28")) == day("2026-02-15")
    # A third key replaces the renewed one, so the next upload waits until the old key has ended.
    assert key_lifecycle.first_safe_upload_day([day("2024-03-01")]) == day("2024-03-15")
    old, new = RegisteredKey("A", day("2024-03-14")), RegisteredKey("B", day("2026-02-28"))
    assert key_lifecycle.keys_after_upload((old, new), "C", day("2024-03-05")) == (
        old,
        RegisteredKey("C", day("2026-03-04")),
    )


@pytest.mark.guide("6.2 warning")
def test_the_warning_file_6_2() -> None:
    assert EXPIRY_WARNING_FILE == "SSHKeyExpireWarning.txt"


@pytest.mark.guide("7 workstations")
def test_workstations_7() -> None:
    assert MAX_WORKSTATIONS == 4


@pytest.mark.guide("7.1 addresses")
def test_addresses_7_1() -> None:
    assert RAP_PORT == 18801
    assert {site.value: [str(it) for it in addresses] for site, addresses in GUIDE_ADDRESSES.items()} == {
        "primary": ["10.151.14.141:18801", "10.151.14.142:18801"],
        "secondary": ["10.152.14.141:18801", "10.152.14.142:18801"],
    }
    assert all(IPv4Address(it.host) for it in itertools.chain(*GUIDE_ADDRESSES.values()))


@pytest.mark.parametrize("site", list(Site))
@pytest.mark.guide("7.1 addresses")
def test_a_connection_without_hosts_goes_to_the_guides_addresses_7_1(site: Site) -> None:
    public = PrivateKey.load(PEM).public_key.to_openssh()
    login = read_login(
        login="DCXYZ001",
        host=None,
        port=None,
        extra={"site": site.value, "host_key": public, "private_key": PEM},
        mask=lambda secret: None,
    )
    net = {"primary": "10.151.14", "secondary": "10.152.14"}[site.value]
    assert [str(it) for it in login.addresses] == [f"{net}.141:18801", f"{net}.142:18801"]


@pytest.mark.guide("3.1 accounts")
def test_every_character_of_a_customer_code_3_1() -> None:
    for character in string.ascii_uppercase + string.digits:
        assert Account(f"DC{character * 3}001").customer == f"C{character * 3}"
