"""Mask secrets in Airflow's logs, all lines of a private key at once."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow.sdk import log

_SURE_CHARACTERS = 20
"""Airflow masks every secret of at least this many characters; it may skip shorter ones."""


def mask_secrets(secrets: Sequence[str]) -> None:
    """Mask secrets in the logs of this process, and of the supervisor of its task.

    Airflow compiles the pattern of all its secrets again for each new one: for the fifty lines of a key, this
    takes up to half a second of each task. So they are added to the pattern together, before Airflow adds the
    longest one and compiles it.

    :param secrets: the secrets, such as the lines of a private key.
    """
    # Not documented: if Airflow lacks these parts, the secrets are still masked, but more slowly.
    masker = log._secrets_masker() if hasattr(log, "_secrets_masker") else None
    patterns: set[str] = getattr(masker, "patterns", set())
    new = sorted((secret for secret in set(secrets) if re.escape(secret) not in patterns), key=len)
    patterns.update(re.escape(secret) for secret in new[:-1] if len(secret) >= _SURE_CHARACTERS)
    # All of them, since the supervisor may not know those that this process knows.
    log.mask_secret([*secrets])
