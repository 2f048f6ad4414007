"""A process that lands files and is killed at a random time: run by the test of killed landings.

The arguments are the protocol of the lake's file system, its options as JSON, and the lake's root. Each line
of the standard input is a landing: a JSON object with the files on RAP, by name the content and the mtime;
and the seconds after which the process is killed, or null.
Each landing runs in a fork of a process that has imported every module, since each import takes a second. The
answer is a line with the signal that killed it, or 0, and the seconds that it took.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from typing import Any

import fsspec

from airflow_provider_hkex_rap.lake import claims
from airflow_provider_hkex_rap.lake.store import Lake

from ..in_memory_rap import InMemoryRap, run


def land(protocol: str, options: dict[str, Any], root: str, landing: dict[str, Any]) -> None:
    """Land the files, in a process of its own."""
    logging.disable()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    rap = InMemoryRap()
    for name, (content, mtime) in landing["files"].items():
        rap.put(name, content.encode(), mtime)
    lake = Lake(fsspec.filesystem(protocol, **options), root)
    # The default action of this signal ends the process as SIGKILL does, at any instruction.
    if landing["kill_after"] is not None:
        signal.setitimer(signal.ITIMER_REAL, landing["kill_after"])
    # No other run lands at the same time.
    claims.SETTLE_SECONDS = 0.0
    run(rap, lake)


def main() -> None:
    protocol, options, root = sys.argv[1:]
    fsspec.get_filesystem_class(protocol)
    for line in sys.stdin:
        started = time.monotonic()
        child = os.fork()
        if not child:
            land(protocol, json.loads(options), root, json.loads(line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            raise SystemExit(f"A landing ended with status {os.WEXITSTATUS(status)}.")
        print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, time.monotonic() - started, flush=True)


if __name__ == "__main__":
    main()
