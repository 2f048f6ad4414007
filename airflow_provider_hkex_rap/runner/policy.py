"""How long a caller may wait for a session."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How long a caller may wait for a session, and how often it may try again.

    :param lock_wait: seconds to wait while another process of this host is logged in with the account.
    :param superseded_wait: seconds to back off after another login has ended one of this host (§4.3); 0 does
        not back off.
    :param superseded_retries: how often to start the work again after such a back-off.
    :param retries_at_edges: report a login that fails within five minutes of an opening or a closing, or
        that is refused within five minutes of an opening, as "closed", so that the caller tries again in a
        minute (§4.1).
    """

    lock_wait: float
    superseded_wait: float = 0.0
    superseded_retries: int = 0
    retries_at_edges: bool = False

    def superseded_backoff(self) -> float:
        """Return the seconds to wait after a superseded session, with jitter."""
        return self.superseded_wait * random.uniform(1.0, 1.2)  # noqa: S311


ATTENDED = Policy(lock_wait=5.0)
"""For interactive use, such as the commands, the Test button and a notebook: it never waits long."""


def unattended(superseded_wait: float, superseded_retries: int = 0) -> Policy:
    """Return the policy of a task in a DAG run.

    :param superseded_wait: seconds to back off after a superseded session, before the jitter.
    :param superseded_retries: how often to start the work again after such a back-off.
    """
    return Policy(
        lock_wait=900.0,
        superseded_wait=superseded_wait,
        superseded_retries=superseded_retries,
        retries_at_edges=True,
    )
