"""The key folder: what a login lists, reads and uploads in it (§4.2, §6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class KeyFile(NamedTuple):
    """A file of the key folder, as a listing gave it."""

    name: str
    """Bytes that are not UTF-8 are replaced: no result file has any."""
    mtime: int | None
    """Seconds since the epoch; None where the listing did not say."""


class KeyFolder(Protocol):
    """One login to RAP, as the renewal of keys sees it."""

    @property
    def client_key_fingerprint(self) -> str:
        """MD5 fingerprint of the key that logged in (§3.2.2)."""
        ...

    async def list_key_folder(self) -> Sequence[KeyFile]:
        """Return the files in the folder, freshly listed.

        :raises RapError: the listing did not arrive whole.
        """
        ...

    async def read_key_file(self, name: str) -> bytes:
        """Return what is in a file of the folder.

        :raises RapTransferError: this file could not be read; it may have left RAP.
        :raises RapError: the session is over.
        """
        ...

    async def upload_key(self, content: bytes) -> None:
        """Upload the account's public key file, once.

        :raises RapPermissionDenied: RAP denied it.
        :raises RapError: the upload was not confirmed; RAP may have taken it all the same.
        """
        ...
