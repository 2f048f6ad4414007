"""How the lines of a private key are kept out of logs."""

from __future__ import annotations

from collections.abc import Callable


def mask_private_key(text: str, mask: Callable[[str], object]) -> None:
    """Tell *mask* each line of a private key: a log may show one of them without the others.

    :param text: the key in PEM form.
    :param mask: is told each secret.
    """
    for line in text.splitlines():
        if line and not line.startswith("-----"):
            mask(line)
