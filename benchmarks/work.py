"""The files that a benchmark transfers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_hkex_rap.rap.folders import Folder

if TYPE_CHECKING:
    from tests.integration.openssh import OpenSSH

NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")
"""The time of the provider's clock: a Friday, within the service hours of DCASS and CCMS."""
MTIME = NOW.subtract(hours=2).int_timestamp
REPORT_CODES = 40

_MB = 1_000_000
_SIGMA = 1.5


@dataclass(frozen=True)
class Work:
    """Files of one folder.

    :param name: the name of the work on the command line.
    :param folder: the folder on RAP.
    :param sizes: the size of each file in bytes.
    :param fetched: how many of the files are transferred; the others are only listed.
    """

    name: str
    folder: Folder
    sizes: tuple[int, ...]
    fetched: int

    @property
    def bytes(self) -> int:
        """How many bytes are transferred."""
        return sum(self.sizes[: self.fetched])

    @property
    def path(self) -> str:
        """The folder's path on RAP."""
        return self.folder.path

    def publish(self, server: OpenSSH) -> None:
        """Put the files onto a server.

        :param server: the server.
        """
        customer = server.account[1:5]
        content = random.Random(1)
        for number, size in enumerate(self.sizes):
            name = file_name(customer, number)
            server.put(self.folder, name, content.randbytes(size), MTIME)


def file_name(customer: str, number: int) -> str:
    """Return the name of a file: report codes in turn, each with a sequence number."""
    return f"{customer}_TP{number % REPORT_CODES:03}_20261120_{number // REPORT_CODES:04}.csv"


def small(files: int = 800, size: int = 26 * _MB) -> Work:
    """Return the work S: many small files, whose sizes have a lognormal distribution.

    :param files: how many files.
    :param size: bytes of all files together.
    """
    drawn = [random.Random(number).lognormvariate(0, _SIGMA) for number in range(files)]
    return Work("S", Folder.DCASS, tuple(int(one * size / sum(drawn)) + 1 for one in drawn), files)


def big(files: int = 5, size: int = 60 * _MB) -> Work:
    """Return the work B: few large files.

    :param files: how many files.
    :param size: bytes of each file.
    """
    return Work("B", Folder.DCASS_OTHERS, (size,) * files, files)


def listing(files: int = 100_000) -> Work:
    """Return the work L: a long listing, of which one file is transferred.

    :param files: how many files.
    """
    return Work("L", Folder.HKCC_SEOCH_CCMS_GLOB, (10,) * files, 1)
