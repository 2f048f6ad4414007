"""What a registration takes (§5, §7)."""

from __future__ import annotations

from ipaddress import IPv4Address

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.keys import PrivateKey
from airflow_provider_hkex_rap.rap.registration import RegistrationKit
from airflow_provider_hkex_rap.rap.workstations import parse_registered_addresses, parse_workstations

NOW = pendulum.datetime(2026, 11, 20, 9, 0, tz="Asia/Hong_Kong")

octet = st.integers(1, 254)


@given(st.tuples(st.just(10), octet, octet), st.lists(octet, min_size=1, max_size=4, unique=True))
@pytest.mark.guide("7 workstations")
def test_up_to_four_addresses_of_one_subnet_are_taken(net: tuple[int, ...], hosts: list[int]) -> None:
    texts = [".".join(map(str, (*net, host))) for host in hosts]
    assert [str(address) for address in parse_workstations(texts)] == texts


@given(st.lists(st.tuples(st.just(10), octet, octet, octet), min_size=2, max_size=6, unique=True))
@pytest.mark.guide("7 workstations")
def test_addresses_are_taken_just_where_the_rules_of_the_guide_hold(hosts: list[tuple[int, ...]]) -> None:
    texts = [".".join(map(str, host)) for host in hosts]
    if len(hosts) <= 4 and len({host[:3] for host in hosts}) == 1:
        assert len(parse_workstations(texts)) == len(hosts)
    else:
        with pytest.raises(RapConfigurationError, match="§7"):
            parse_workstations(texts)


@pytest.mark.parametrize(
    "text",
    [
        *("", "10.1.1", "10.1.1.256", "10.1.1.01", " 10.1.1.1", "10.1.1.1:22", "::1", "host"),
        *("10.1.1.0", "10.1.1.255", "0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255"),
    ],
)
def test_what_is_no_address_of_a_workstation_is_refused(text: str) -> None:
    with pytest.raises(RapConfigurationError, match="is not the address of a workstation"):
        parse_workstations([text])


@pytest.mark.guide("5 registration")
def test_a_kit_takes_public_keys_only() -> None:
    private = PrivateKey.generate(2048)
    with pytest.raises(AttributeError):
        RegistrationKit({Account("DCXYZ001"): private}, (IPv4Address("10.1.1.1"),)).pack(NOW)


def test_the_registered_addresses_of_a_connection_are_parsed_or_none():
    assert parse_registered_addresses(" ") == ()
    # For trials against a simulated RAP; the form has no address of this machine itself.
    assert list(map(str, parse_registered_addresses("127.0.0.1"))) == ["127.0.0.1"]
    with pytest.raises(RapConfigurationError):
        parse_workstations(["127.0.0.1"])
    assert list(map(str, parse_registered_addresses("10.1.1.1, 10.1.1.2,"))) == ["10.1.1.1", "10.1.1.2"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("10.1.1.1, 10.1.2.1", "its addresses are of several subnets"),
        ("10.1.1.1,10.1.1.1", "it gives an address twice"),
        ("secret", "part 1 of 1, separated by commas, is not the IPv4 address of a host"),
        ("10.1.1.1, 10.1.1.1/24", "part 2 of 2"),
        ("10.1.1.1;10.1.1.2", "part 1 of 1, separated by commas"),
        ("10.1.1.1,10.1.1.2,10.1.1.3,10.1.1.4,10.1.1.5", "it has 5 addresses"),
    ],
)
def test_registered_addresses_that_cannot_be_registered_are_refused_and_not_shown(text, rule):
    with pytest.raises(RapConfigurationError, match=f"registered_addresses.*{rule}") as caught:
        parse_registered_addresses(text)
    assert text not in str(caught.value)
