"""The operations of a login on the key folder (§4.2, §6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class KeyFile(NamedTuple):
    """A file of the key folder, as it was listed."""

    name: str
    """The file's name; bytes that are not UTF-8 are replaced, since no result file has such a name."""
    mtime: int | None
    """Seconds since the epoch; None if RAP sent no mtime."""


class KeyFolder(Protocol):
    """One login to RAP, with the operations that a renewal of keys needs."""

    @property
    def client_key_fingerprint(self) -> str:
        """MD5 fingerprint of the key that logged in (§3.2.2)."""
        ...

    async def list_key_folder(self) -> Sequence[KeyFile]:
        """Return the files in the folder, freshly listed.

        :raises RapError: if the listing is incomplete.
        """
        ...

    async def read_key_file(self, name: str) -> bytes:
        """Return the content of a file in the folder.

        :param name: the file's name.
        :raises RapTransferError: if this file cannot be read; RAP may have removed it.
        :raises RapError: if the session has ended.
        """
        ...

    async def upload_key(self, content: bytes) -> None:
        """Upload the account's public key file, once.

        :param content: the file's bytes.
        :raises RapPermissionDenied: if RAP denies the upload.
        :raises RapError: if RAP does not confirm the upload; it may have accepted it nevertheless.
        """
        ...
