"""Keep private keys out of logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from airflow_provider_hkex_rap.rap.pem import secret_parts


def mask_private_key(text: str, mask: Callable[[Sequence[str]], object]) -> None:
    r"""Mask every line of a private key.

    A log may show one line without the others, so each line is a secret of its own. Headers such as
    ``Proc-Type`` are not secret.

    :param text: the key as PEM; its line breaks may have become spaces, literal ``\n``, or nothing.
    :param mask: called with all secrets.
    """
    mask([*secret_parts(text)])
