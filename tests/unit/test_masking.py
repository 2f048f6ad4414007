"""Masking of secrets in Airflow's logs."""

from collections.abc import Iterator

import asyncssh
import pytest
from airflow.sdk import log

from airflow_provider_hkex_rap.hooks.masking import mask_secrets
from airflow_provider_hkex_rap.rap.masking import mask_private_key


@pytest.fixture(autouse=True)
def masker() -> Iterator[None]:
    log._secrets_masker().reset_masker()
    yield
    log._secrets_masker().reset_masker()


def shown(text: str) -> str:
    return str(log.redact(text))


def lines_of_key() -> list[str]:
    """Return the secret lines of a new key; the first ones of all keys are alike."""
    pem = asyncssh.generate_private_key("ssh-rsa", key_size=1024).export_private_key().decode()
    mask_private_key(pem, mask_secrets)
    return pem.splitlines()[1:-1]


@pytest.mark.parametrize("keys", [1, 2, 3])
def test_every_line_of_every_key_is_masked_by_itself(keys: int) -> None:
    for line in [line for _ in range(keys) for line in lines_of_key()]:
        assert shown(f"key: {line}.") == "key: ***."


def test_a_key_that_was_pasted_twice_is_masked() -> None:
    pem = asyncssh.generate_private_key("ssh-rsa", key_size=1024).export_private_key().decode()
    mask_private_key(pem + pem, mask_secrets)
    for line in pem.splitlines()[1:-1]:
        assert shown(f"key: {line}.") == "key: ***."


def test_a_short_secret_is_masked_as_airflow_does() -> None:
    mask_secrets(["abc", "correct horse", "xyz"])
    assert shown("abc xyz correct horse") == "abc xyz ***"


def test_an_airflow_with_another_masker_masks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(log, "_secrets_masker")
    masked: list[str] = []
    monkeypatch.setattr(log, "mask_secret", masked.extend)
    assert sorted(lines_of_key()) == sorted(masked)
