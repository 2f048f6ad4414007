"""Keep private keys out of logs."""

from __future__ import annotations

import re
from collections.abc import Callable

_BETWEEN = re.compile(r"-----(?:BEGIN|END) [A-Z0-9 ]+-----|\\[rn]|\s+")


def mask_private_key(text: str, mask: Callable[[str], object]) -> None:
    r"""Mask every line of a private key.

    A log may show one line without the others, so each line is a secret of its own. Headers such as
    ``Proc-Type`` are not secret.

    :param text: the key as PEM; its line breaks may have become spaces, literal ``\n``, or nothing.
    :param mask: called with each secret.
    """
    for part in _BETWEEN.split(text):
        # Base64 has neither a colon nor a comma.
        if part and ":" not in part and "," not in part:
            mask(part)
