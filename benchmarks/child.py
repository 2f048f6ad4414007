"""Transfer the files of a work in Python, in a process of its own: ``python -m benchmarks.child JOB``.

The job is JSON, and the measurements go to the file that it names. The clock starts after the imports that a
worker has made before a task runs: `airflow.sdk`, and the module that the DAG file imports.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.measure import peak_rss


def main() -> None:
    job = json.loads(sys.argv[1])
    started = time.perf_counter()
    importlib.import_module("airflow.sdk")
    airflow = time.perf_counter()
    transfer = {"ours": _ours, "stock": _stock, "stock-async": _stock_async, "raw": _raw}[job["kind"]](job)
    imported = time.perf_counter()
    base = peak_rss()
    calls = []
    for target in job["targets"]:
        begun, cpu = time.perf_counter(), time.process_time()
        details = transfer(target)
        calls.append(
            {
                "seconds": time.perf_counter() - begun,
                "cpu": time.process_time() - cpu,
                "rss": peak_rss() - base,
                **details,
            }
        )
    result = {
        "airflow_seconds": airflow - started,
        "import_seconds": imported - airflow,
        "base_rss": base,
        "calls": calls,
    }
    Path(job["result"]).write_text(json.dumps(result))


def _ours(job: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """Return a function that lands the files with the operator, in the lake that it is given."""
    from airflow_provider_hkex_rap.operators.download import RapDownloadOperator

    def land(lake: str) -> dict[str, Any]:
        operator = RapDownloadOperator(task_id="land", lake=lake, expect=[], **job["arguments"])
        with ExitStack() as stack:
            phases = None
            if job.get("phases"):
                from benchmarks.phases import Phases

                phases = stack.enter_context(Phases())
            summary = operator.execute({})
        keys = ("landed", "already", "bytes")
        return {key: summary[key] for key in keys} | ({"phases": phases.report()} if phases else {})

    return land


def _stock(job: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """Return a function that transfers or lists the folder with `SFTPHook`."""
    from airflow.providers.sftp.hooks.sftp import SFTPHook

    def transfer(target: str) -> dict[str, Any]:
        hook = SFTPHook(ssh_conn_id="rap_sftp")
        if job["list_only"]:
            return {"listed": len(hook.list_directory_with_attr(job["path"]))}
        # Otherwise it logs in for each file.
        with hook.get_managed_conn():
            hook.retrieve_directory(job["path"], target)
        return {}

    return transfer


def _stock_async(job: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """Return a function that transfers or lists the folder with `SFTPHookAsync`."""
    from airflow.providers.sftp.hooks.sftp import SFTPHookAsync

    def transfer(target: str) -> dict[str, Any]:
        hook = SFTPHookAsync(sftp_conn_id="rap_sftp")
        if job["list_only"]:
            entries = asyncio.run(hook.read_directory(job["path"])) or ()
            return {"listed": sum(entry.filename not in (".", "..") for entry in entries)}
        asyncio.run(hook.retrieve_directory(job["path"], target))
        return {}

    return transfer


def _raw(job: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """Return a function that reads the files with asyncssh, all at once, and keeps nothing."""
    import asyncssh

    from airflow_provider_hkex_rap.rap import algorithms

    key = asyncssh.import_private_key(job["private_key"])

    async def read(sftp: asyncssh.SFTPClient, name: bytes | str) -> int:
        async with sftp.open(f"{job['path']}/{name}", "rb") as file:
            return len(await file.read())

    async def read_all() -> dict[str, Any]:
        async with (
            asyncssh.connect(
                "127.0.0.1",
                job["port"],
                username=job["account"],
                client_keys=[key],
                known_hosts=None,
                config=None,
                agent_path=None,
                kex_algs=algorithms.KEY_EXCHANGE,
                encryption_algs=algorithms.CIPHERS,
                mac_algs=algorithms.MACS,
                compression_algs=None,
                window=16 * 2**20,
                max_pktsize=2**18,
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):
            names = [entry.filename async for entry in sftp.scandir(job["path"]) if entry.attrs.size]
            names = [name for name in names if name not in (".", "..")]
            sizes = await asyncio.gather(*(read(sftp, name) for name in sorted(names)[: job["fetched"]]))
        return {"listed": len(names), "bytes": sum(sizes)}

    return lambda target: asyncio.run(read_all())


if __name__ == "__main__":
    main()
