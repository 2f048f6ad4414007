"""The extra fields of a connection: nothing is dropped in silence, and no value is shown."""

from __future__ import annotations

import pytest

from airflow_provider_hkex_rap.get_provider_info import get_provider_info
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.transport.extras import NAMES, Extras


def test_the_form_and_the_code_know_the_same_fields() -> None:
    (form,) = get_provider_info()["connection-types"]
    assert set(form["conn-fields"]) == set(NAMES)


def test_an_unknown_field_is_refused_with_the_valid_names() -> None:
    with pytest.raises(RapConfigurationError, match=r"'hostkey'.*host_key, no_host_key_check"):
        Extras({"hostkey": "secret text"})


@pytest.mark.parametrize("fields", ['{"site": "primary"}', [1], 3])
def test_an_extra_that_is_no_object_is_refused(fields: object) -> None:
    with pytest.raises(RapConfigurationError, match="JSON object"):
        Extras(fields)


@pytest.mark.parametrize("name", ["site", "key_file", "private_key_passphrase", "key_expires", "key_store"])
@pytest.mark.parametrize("value", [20280229, 1.5, True, ["secret"], {"a": "secret"}])
def test_a_text_of_another_type_is_refused_and_not_shown(name: str, value: object) -> None:
    for read in (Extras.text, Extras.secret):
        with pytest.raises(RapConfigurationError, match=f"'{name}'.*in quotes") as caught:
            read(Extras({name: value}), name)
        assert "secret" not in str(caught.value)
        assert "20280229" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "flag"), [(True, True), ("true", True), (False, False), (" False ", False)]
)
def test_a_flag_is_a_boolean_or_its_text(value: object, flag: bool) -> None:
    assert Extras({"no_host_key_check": value}).flag("no_host_key_check") == flag


@pytest.mark.parametrize("value", ["yes", 1, ["true"]])
def test_any_other_flag_is_refused(value: object) -> None:
    with pytest.raises(RapConfigurationError, match="true or false"):
        Extras({"no_host_key_check": value}).flag("no_host_key_check")


@pytest.mark.parametrize("value", [5, 2.5, "30"])
def test_seconds_are_a_number_or_its_text(value: object) -> None:
    assert Extras({"idle_timeout": value}).seconds("idle_timeout", 60) == float(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1, "soon", "inf", "nan", True, [5]])
def test_any_other_number_of_seconds_is_refused(value: object) -> None:
    with pytest.raises(RapConfigurationError, match="seconds above zero"):
        Extras({"idle_timeout": value}).seconds("idle_timeout", 60)


def test_blank_fields_count_as_left_out() -> None:
    extras = Extras(dict.fromkeys(NAMES, ""))
    assert extras.text("site") == extras.secret("private_key") == ""
    assert extras.lines("host_key") == []
    assert not extras.flag("no_host_key_check")
    assert extras.seconds("idle_timeout", 60) == 60
