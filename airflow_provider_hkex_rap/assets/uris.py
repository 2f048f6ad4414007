"""The URIs of this provider's assets: the reports of a folder, and the key of an account.

The name of each asset is its URI. Airflow takes assets of one URI and different names for different assets,
of which one at most is active.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.folders import Folder

if TYPE_CHECKING:
    from urllib.parse import SplitResult

SCHEME = "hkex-rap"

_CUSTOMER = re.compile(r"C[A-Z0-9]{3}")
_ACCOUNT = re.compile(r"/DC[A-Z0-9]{3}00[1-4]")
_VALID_FORM = (
    f"Write {SCHEME}://CXYZ/DCASS, with the customer code and one of the folders {', '.join(Folder)}, or"
    f" {SCHEME}://key/DCXYZ001, with the account. Codes, folders and accounts are in capital letters."
)


def reports_uri(customer: str, folder: Folder | str) -> str:
    """Return the URI of the asset that stands for the landed reports of a folder.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    """
    return f"{SCHEME}://{customer}/{folder}"


def key_uri(account: str) -> str:
    """Return the URI of the asset that stands for the SSH key of an account.

    :param account: the RAP user account, such as ``DCXYZ001``.
    """
    return f"{SCHEME}://key/{account}"


def normalize(parts: SplitResult) -> SplitResult:
    """Check the URI of an asset of this provider, and return its one valid spelling.

    Airflow calls this for each `Asset` whose scheme is ``hkex-rap``. Other spellings of a name are refused
    and not corrected: Airflow keeps the given text as the asset's name, and an asset with another name never
    gets an event.

    :param parts: the URI; Airflow has removed a trailing slash and the fragment.
    :raises ValueError: if it names neither the reports of a folder nor the key of an account.
    """
    folder = parts.path.removeprefix("/")
    is_key = parts.netloc == "key" and _ACCOUNT.fullmatch(parts.path)
    is_folder = _CUSTOMER.fullmatch(parts.netloc) and parts.path.startswith("/") and folder in set(Folder)
    if parts.query or not (is_key or is_folder):
        raise ValueError(f"{parts.geturl()!r} is not an asset of the HKEX RAP provider. {_VALID_FORM}")
    return parts._replace(scheme=SCHEME, query="", fragment="")
