"""The folders of RAP, and the service that fills each of them (§4.2)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError


class Service(StrEnum):
    """A kind of report that an account subscribes to, with its own service hours (§4.1)."""

    DCASS = "DCASS"
    """DCASS and pre-trade risk management reports."""
    CCMS = "CCMS"


class Folder(StrEnum):
    """A folder with reports to download (§4.2)."""

    DCASS = "DCASS"
    DCASS_OTHERS = "DCASS_OTHERS"
    HKCC_SEOCH_CCMS_GLOB = "HKCC_SEOCH_CCMS_GLOB"

    @property
    def path(self) -> str:
        """The path of the folder on RAP, such as ``/download/DCASS``."""
        return f"/download/{self.value}"

    @property
    def service(self) -> Service:
        """The service that an account must subscribe to for this folder."""
        return Service.CCMS if self is Folder.HKCC_SEOCH_CCMS_GLOB else Service.DCASS

    @classmethod
    def parse(cls, text: str) -> Folder:
        """Return the folder that *text* names.

        :param text: the name of a folder, such as ``DCASS``, or its path on RAP.
        :raises RapConfigurationError: if RAP has no download folder of this name.
        """
        try:
            return cls(str(text).removeprefix("/download/").removesuffix("/"))
        except ValueError:
            raise RapConfigurationError(
                f"{text!r} is not a folder to download from.",
                why=f"The folders with reports are {', '.join(cls)} (guide §4.2).",
                todo="Name one or more of them, in capital letters.",
                folder=text,
            ) from None


KEY_FOLDER = "/key_management/publickey"
"""The folder for key renewal. It allows upload and download, but no change and no removal (§4.2, §6)."""


def parse_folders(folders: str | Iterable[str]) -> tuple[Folder, ...]:
    """Return the folders that are named, in the given order and without duplicates.

    :param folders: one or more folders, as names or as paths on RAP.
    :raises RapConfigurationError: if no folder is given, or if RAP has no download folder of a given name.
    """
    names = [folders] if isinstance(folders, str) else folders or ()
    if not isinstance(names, list | tuple | set | frozenset):
        raise RapConfigurationError(
            f"{folders!r} is not a list of folders.",
            why=f"The folders with reports are {', '.join(Folder)} (guide §4.2).",
            todo="Give their names as a list, such as ['DCASS'].",
            folders=folders,
        )
    if not names:
        raise RapConfigurationError(
            "No folder is given.",
            why=f"The folders with reports are {', '.join(Folder)} (guide §4.2).",
            todo="Name at least one of them in 'folders'.",
        )
    return tuple(dict.fromkeys(Folder.parse(name) for name in names))
