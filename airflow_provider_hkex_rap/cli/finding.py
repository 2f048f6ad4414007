"""The result of one check of ``airflow hkex-rap doctor``."""

from __future__ import annotations

from typing import NamedTuple

OK, NOTE, WARN, FAIL = "ok", "-", "warn", "FAIL"


class Finding(NamedTuple):
    """The result of one check.

    :param state: ``ok``; ``-`` if nothing was checked; ``warn``; or ``FAIL``.
    :param check: the name of the check.
    :param found: the result, with advice if there is a problem.
    """

    state: str
    check: str
    found: str

    def __str__(self) -> str:
        return f"{self.state:<5} {self.check:<13} {self.found}"
