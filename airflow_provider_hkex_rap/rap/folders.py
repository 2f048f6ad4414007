"""The folders of RAP, and the service that fills each of them (§4.2)."""

from __future__ import annotations

import os
import posixpath
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


def _shortest(path: str | bytes | os.PathLike[str]) -> bytes:
    """Return the shortest form of a path in bytes; empty if no bytes are that text."""
    full = posixpath.normpath(os.fspath(path))
    try:
        # Like asyncssh, but bytes of a name that are not UTF-8 stay as they are.
        return full.encode(errors="surrogateescape") if isinstance(full, str) else full
    except UnicodeEncodeError:
        return b""


def parse_path(path: object) -> tuple[str, bytes]:
    """Return the folder and the name that a path on RAP leads to (§4.2).

    The path is judged as a server would read it: ``//``, ``.`` and ``..`` are resolved. ::

        parse_path("/download/DCASS/../DCASS_OTHERS/x.csv")  # ("/download/DCASS_OTHERS", b"x.csv")

    :param path: a folder of RAP, or a file in one, as text, bytes or path object.
    :returns: the path of the folder, and the name of the file; an empty name if the path is a folder.
    :raises RapConfigurationError: if it is neither; ``/submission`` is not used for derivatives.
    """
    folders = [folder.path for folder in Folder] + [KEY_FOLDER]
    if isinstance(path, str | bytes | os.PathLike):
        raw = _shortest(path)
        # normpath keeps two slashes at the beginning, to which POSIX gives no meaning.
        raw = b"/" + raw.lstrip(b"/") if raw.startswith(b"/") else raw
        for folder in folders:
            parent, _, name = raw.rpartition(b"/")
            if raw == folder.encode():
                return folder, b""
            if parent == folder.encode():
                return folder, name
    raise RapConfigurationError(
        f"{path!r} is not a folder of RAP, or a file in one.",
        why=f"An account can access {', '.join(folders)} and the files in them (guide §4.2).",
        todo="Give the full path, in this spelling.",
        path=path,
    )
