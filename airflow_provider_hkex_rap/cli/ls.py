"""``airflow hkex-rap ls``: list folders of RAP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.cli.command import FAILED, agreed, command, printable, say, show
from airflow_provider_hkex_rap.rap.clock import time_of
from airflow_provider_hkex_rap.rap.errors import RapPermissionDenied
from airflow_provider_hkex_rap.rap.folders import Folder, parse_folders
from airflow_provider_hkex_rap.rap.report_name import Naming
from airflow_provider_hkex_rap.rap.service_hours import next_opening

if TYPE_CHECKING:
    from argparse import Namespace

    import pendulum

    from airflow_provider_hkex_rap.rap.files import RemoteFile
    from airflow_provider_hkex_rap.runner.runner import SessionRunner


@command
def ls(args: Namespace) -> int:
    """List folders, once the user agrees to the login."""
    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
    from airflow_provider_hkex_rap.runner.policy import ATTENDED
    from airflow_provider_hkex_rap.runner.runner import SessionRunner

    folders = parse_folders(args.folder or list(Folder))
    source = AirflowLoginSource(args.conn_id)
    now = source.clock()
    say(
        f"This logs in to RAP as {source.login.account} and ends a session of that account that is open"
        " elsewhere (§4.3): a running task loses its own, and tries again after some minutes."
    )
    for service in sorted({folder.service for folder in folders}):
        opening = next_opening([service], now)
        if opening > now:
            closed = ", ".join(folder for folder in folders if folder.service is service)
            say(f"Closed until {opening:ddd YYYY-MM-DD HH:mm} HKT (§4.1): {closed}.")
    if not args.yes and not agreed():
        say("Nothing was sent.")
        return FAILED
    runner = SessionRunner(source, ATTENDED)
    files, denied = runner.run(lambda: _list(runner, folders))
    naming = Naming(customer=source.login.account.customer)
    show([_row(file, naming, now) for file in files], args.output)
    if not args.folder and len(denied) < len(folders):
        # Nobody has asked for these: an account has the folders of its subscription (§4.2).
        for error in denied:
            say(
                f"Left out: {error.path}, which RAP does not show to {source.login.account} now (§4.1, §4.2)."
            )
        return 0
    for error in denied:
        say(str(error))
    return FAILED if denied else 0


async def _list(
    runner: SessionRunner, folders: tuple[Folder, ...]
) -> tuple[list[RemoteFile], list[RapPermissionDenied]]:
    """Return the files of the folders, and the errors of those that RAP denied."""
    files: list[RemoteFile] = []
    denied = []
    async with runner.session() as session:
        for folder in folders:
            try:
                files += sorted(await session.list_folder(folder), key=lambda file: file.name)
            except RapPermissionDenied as error:
                denied.append(error)
    return files, denied


def _row(file: RemoteFile, naming: Naming, now: pendulum.DateTime) -> dict[str, object]:
    name = naming.read(file.text, file.mtime, now)
    modified = time_of(file.mtime, now)
    return {
        "folder": file.folder.value,
        "name": printable(file.text),
        "kind": file.kind.value,
        "size": file.size,
        "modified_hkt": modified and modified.format("YYYY-MM-DD HH:mm:ss"),
        "business_date": name.business_date.isoformat(),
        "report": printable(name.report),
    }
