"""The keys that open the simulated RAP, and what becomes of those uploaded (§3.2, §6)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

if TYPE_CHECKING:
    import pendulum
    from asyncssh import SSHKey

_KEY_SIZES = (2048, 4096)


@dataclass(frozen=True, slots=True)
class Upload:
    """One file uploaded to the key folder.

    :param account: the account that uploaded it.
    :param name: the file's name in the bytes that came over the wire.
    :param content: its bytes.
    :param at: when it was complete, by the simulator's clock.
    """

    account: str
    name: bytes
    content: bytes
    at: pendulum.DateTime


class KeyManagement:
    """The registered keys of every account."""

    def __init__(self) -> None:
        self.uploads: list[Upload] = []
        self._keys: dict[str, list[bytes]] = defaultdict(list)

    def register(self, account: str, key: SSHKey) -> None:
        """Make *key* the only key of *account*, as a registration with HKEX does (§5).

        :param account: the account.
        :param key: an RSA key of 2048 or 4096 bits; only its public half is kept.
        :raises RapConfigurationError: the key is of another type or size (§3.2.1).
        """
        bits = getattr(key.pyca_key, "key_size", 0) if key.algorithm == b"ssh-rsa" else 0
        if bits not in _KEY_SIZES:
            raise RapConfigurationError(
                f"{account} cannot register this {key.get_algorithm()} key.",
                why="RAP accepts RSA keys of 2048 and 4096 bits (guide §3.2.1).",
                todo="Generate an RSA key of 2048 or 4096 bits.",
                account=account,
            )
        self._keys[account] = [key.public_data]

    def opens(self, account: str, key: SSHKey) -> bool:
        """Return whether *key* logs *account* in."""
        return key.public_data in self._keys[account]

    def on_upload(self, upload: Upload) -> None:
        """Keep what was uploaded."""
        self.uploads.append(upload)
