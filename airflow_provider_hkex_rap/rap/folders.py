"""The folders of RAP and the services that fill them (§4.2)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError


class Service(StrEnum):
    """What an account subscribes to; each has service hours of its own (§4.1)."""

    DCASS = "DCASS"
    """DCASS and pre-trade risk management reports."""
    CCMS = "CCMS"


class Folder(StrEnum):
    """A folder that reports are downloaded from (§4.2)."""

    DCASS = "DCASS"
    DCASS_OTHERS = "DCASS_OTHERS"
    HKCC_SEOCH_CCMS_GLOB = "HKCC_SEOCH_CCMS_GLOB"

    @property
    def path(self) -> str:
        """The folder's path on RAP."""
        return f"/download/{self.value}"

    @property
    def service(self) -> Service:
        """The subscription that opens the folder."""
        return Service.CCMS if self is Folder.HKCC_SEOCH_CCMS_GLOB else Service.DCASS

    @classmethod
    def parse(cls, text: str) -> Folder:
        """Return the folder of that name.

        :param text: a folder's name, or its path on RAP.
        :raises RapConfigurationError: RAP has no such folder to download from.
        """
        try:
            return cls(str(text).removeprefix("/download/").removesuffix("/"))
        except ValueError:
            raise RapConfigurationError(
                f"{text!r} is not a folder to download from.",
                why=f"RAP has {', '.join(cls)} (guide §4.2).",
                todo="Name one or more of these, in capital letters.",
                folder=text,
            ) from None


KEY_FOLDER = "/key_management/publickey"
"""Where public keys are renewed; upload of new files and download only (§4.2, §6)."""


def parse_folders(folders: str | Iterable[str]) -> tuple[Folder, ...]:
    """Return the folders named, each once, in the order given.

    :param folders: one folder or several, by name or by path on RAP.
    :raises RapConfigurationError: none is given, or one does not exist.
    """
    names = [folders] if isinstance(folders, str) else list(folders or ())
    if not names:
        raise RapConfigurationError(
            "No folder is given.",
            why=f"RAP has {', '.join(Folder)} (guide §4.2).",
            todo="Name at least one in 'folders'.",
        )
    return tuple(dict.fromkeys(Folder.parse(name) for name in names))
