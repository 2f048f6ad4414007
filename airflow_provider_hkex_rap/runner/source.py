"""What the runner needs to know to log in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.login_keys import LoginKeys
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.transport.login import Login


class LoginSource(Protocol):
    """Where the settings of a login come from; each property may block and may raise a `RapError`."""

    @property
    def name(self) -> str:
        """The source in words, such as ``connection hkex_rap_default``."""
        ...

    @property
    def login(self) -> Login:
        """The account, the addresses and the host keys."""
        ...

    @property
    def keys(self) -> LoginKeys:
        """The account's private keys."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock that decides whether RAP is open."""
        ...

    @property
    def lock_directory(self) -> Path | None:
        """The directory of the lock files; None for the default."""
        ...

    def refresh(self) -> None:
        """Read the settings again: the connection may have been switched to the other site (§2.2)."""
        ...
