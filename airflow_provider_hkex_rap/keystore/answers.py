"""RAP's answers to uploaded keys, as a login finds them in the key folder (§6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.rap.errors import RapTransferError
from airflow_provider_hkex_rap.rap.result_file import Received, ResultName

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.account import Account
    from airflow_provider_hkex_rap.rap.key_folder import KeyFile, KeyFolder


class Answer(NamedTuple):
    """A result file that was read."""

    file: str
    """Its name."""
    accepted: bool
    """Whether it is a ``.rcvd`` or a ``.rej``."""
    fingerprint: str | None
    """The MD5 fingerprint in it; None where none can be read."""
    content: bytes


def result_names(listing: Sequence[KeyFile]) -> tuple[str, ...]:
    """Return the names of the result files in a listing."""
    return tuple(sorted(file.name for file in listing if ResultName.parse(file.name)))


async def read_answers(rap: KeyFolder, listing: Sequence[KeyFile], account: Account) -> list[Answer]:
    """Return the answers to an account's uploads, oldest first.

    :param rap: a login.
    :param listing: the files in the key folder.
    :param account: whose uploads.
    :raises RapError: the session ended.
    """
    found = []
    for file in sorted(listing, key=lambda file: (file.mtime or 0, file.name)):
        name = ResultName.parse(file.name)
        if name is None or not name.is_for(account):
            continue
        try:
            content = await rap.read_key_file(file.name)
        except RapTransferError:
            # Gone since the listing, or not whole yet: another listing will tell.
            continue
        found.append(Answer(file.name, name.accepted, Received.parse(content).fingerprint, content))
    return found
