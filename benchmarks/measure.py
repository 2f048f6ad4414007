"""Run a command, and measure its time, its processor time and its memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.02
_TIMEOUT_SECONDS = 1800


class FailedError(Exception):
    """A command failed; its text is the end of what the command printed."""


@dataclass(frozen=True)
class Measured:
    """One run of a peer.

    :param seconds: how long the transfer took.
    :param cpu: seconds of processor time of the process.
    :param rss: peak memory in MB; of a Python process, above that of the interpreter with its imports.
    :param details: what else the run measured, by name.
    """

    seconds: float
    cpu: float
    rss: float
    details: Mapping[str, Any] = field(default_factory=dict)


def peak_rss(pid: int | str = "self") -> float:
    """Return the peak memory of a process in MB; 0 if it has ended.

    Not `ru_maxrss`, which a process inherits from the one that has started it.

    :param pid: its id.
    """
    with contextlib.suppress(OSError, StopIteration), open(f"/proc/{pid}/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024
    return 0.0


def run(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Measured:
    """Run a command to its end.

    :param command: the command.
    :param log: takes what the command prints.
    :param environment: variables to set beside those of this process.
    :raises FailedError: if it does not exit with status 0 in time.
    """
    # The files of the run before must not be written to the disk during this one.
    os.sync()
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(environment or {}),
        )
        memory = _Memory(process.pid)
        too_late = threading.Timer(_TIMEOUT_SECONDS, process.kill)
        too_late.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
        finally:
            too_late.cancel()
            memory.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise FailedError(f"exit status {process.returncode}: {log.read_text(errors='replace')[-500:]}")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, memory.peak)


class _Memory(threading.Thread):
    """Follows the peak memory of a process, in MB, while it runs."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0
        self._pid = pid
        self._stopped = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._stopped.is_set():
            self.peak = max(self.peak, peak_rss(self._pid))
            self._stopped.wait(_POLL_SECONDS)

    def stop(self) -> None:
        self._stopped.set()
        self.join()
