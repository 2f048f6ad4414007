"""Define the commands of ``airflow hkex-rap``. Every ``airflow`` command imports this module.

The texts are ASCII: argparse prints ``--help`` before a command runs, on any terminal.
"""

from __future__ import annotations

from typing import Any

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_VERBOSE,
    ARG_YES,
    ActionCommand,
    Arg,
    CLICommand,
    GroupCommand,
    lazy_load_command,
)

_ROOM = "airflow_provider_hkex_rap.cli"


def _arg(flag: str, **options: Any) -> Arg:
    return Arg((flag,), **options)  # type: ignore[no-untyped-call]


_CONN_ID = _arg(
    "--conn-id",
    help="An Airflow connection of the type hkex_rap (default: hkex_rap_default)",
    default="hkex_rap_default",
)
_LAKE = _arg(
    "--lake",
    help="The lake's root: an absolute path or a URI, such as s3://aws_default@bucket/rap (default: the"
    " Airflow Variable hkex_rap_lake)",
)
_CUSTOMER = _arg(
    "--customer",
    help="The DCASS customer code, such as CXYZ (default: that of the connection's account)",
)
_FOLDERS = _arg(
    "--folders",
    help="Folders of RAP: DCASS, DCASS_OTHERS, HKCC_SEOCH_CCMS_GLOB (default: all three)",
    nargs="+",
    metavar="FOLDER",
)
_KEY_SIZE = _arg(
    "--key-size", help="Bits of a new key: 2048 or 4096 (default: 4096)", type=int, choices=(2048, 4096)
)
_KEY_STORE = _arg(
    "--key-store",
    help="The key store of --account, as in the connection's 'key_store': variable"
    " (default), file:///directory, or the dotted path of a class",
)
_PASSPHRASE_FILE = _arg(
    "--passphrase-file",
    help="A file whose first line encrypts the private keys: the connection's 'private_key_passphrase'"
    " (default: none)",
    metavar="FILE",
)
_REPLACE = _arg(
    "--replace",
    help="Forget a key that was made before and waits for its registration, and make another",
    action="store_true",
)
_MAKING_KEYS = (_KEY_SIZE, _KEY_STORE, _PASSPHRASE_FILE, _REPLACE)

_COMMANDS = (
    ActionCommand(
        name="init",
        help="Make the missing pools of RAP tasks",
        func=lazy_load_command(f"{_ROOM}.init.init"),
        args=(ARG_VERBOSE,),
    ),
    ActionCommand(
        name="doctor",
        help="Check the setup of RAP tasks",
        description="Check the setup of RAP tasks, one line for each check, with advice. The connection to"
        " RAP ends after the host key; --login logs in, and ends a session of the account that is open"
        " elsewhere (guide, section 4.3). The lake is checked by a file that is removed. Exit status 1"
        " if a check failed.",
        func=lazy_load_command(f"{_ROOM}.doctor.doctor"),
        args=(
            _CONN_ID,
            _LAKE,
            _arg("--login", help="Log in too, and list the folders", action="store_true"),
            ARG_VERBOSE,
        ),
    ),
    ActionCommand(
        name="register",
        help="Make keys for accounts, and pack the kit for HKEX's registration form",
        description="Make a key pair for each account and pack the kit for HKEX's form TechS 8 (guide,"
        " section 5): the public keys, their fingerprints and the addresses of the workstations. The private"
        " keys go to the key store. An account's key that was made before and waits for its registration is"
        " packed again.",
        func=lazy_load_command(f"{_ROOM}.register.register"),
        args=(
            _arg(
                "--account",
                help="A RAP user account, such as DCXYZ001; repeatable",
                action="append",
                required=True,
            ),
            _arg(
                "--ip",
                help="The address of a RAP client workstation; repeatable, at most four in one subnet"
                " (guide, section 7)",
                action="append",
                required=True,
                metavar="ADDRESS",
            ),
            _arg("--output", help="The zip to make", required=True, metavar="ZIP"),
            *_MAKING_KEYS,
            ARG_VERBOSE,
        ),
    ),
    ActionCommand(
        name="keygen",
        help="Make a key for one account, for its registration with HKEX",
        description="Make a key pair for an account (guide, section 3.2). The private key goes to the key"
        " store, and becomes current by its first login; the public key is written to <ACCOUNT>.pub.",
        func=lazy_load_command(f"{_ROOM}.keygen.keygen"),
        args=(
            _arg("--account", help="A RAP user account, such as DCXYZ001", required=True),
            _arg(
                "--output",
                help="The directory of the public key (default: the current one)",
                default=".",
                metavar="DIRECTORY",
            ),
            *_MAKING_KEYS,
            ARG_VERBOSE,
        ),
    ),
    ActionCommand(
        name="status",
        help="Show the keys of the accounts: fingerprints, days left, warnings",
        description="Show what the key stores hold of the accounts' keys; it does not log in. Exit status 1"
        " if an account has no key that logs in, or a key store cannot be read.",
        func=lazy_load_command(f"{_ROOM}.status.status"),
        args=(
            _arg(
                "--conn-id",
                help="An Airflow connection of the type hkex_rap; repeatable (default: all of that type in"
                " Airflow's database and in the environment)",
                action="append",
            ),
            _arg(
                "--account",
                help="A RAP user account, such as DCXYZ001, with or without a connection; repeatable",
                action="append",
            ),
            _KEY_STORE,
            ARG_OUTPUT,
            ARG_VERBOSE,
        ),
    ),
    ActionCommand(
        name="renew",
        help="Renew an account's key if that is due; logs in",
        description="Renew an account's key as RapKeyRenewalOperator does, if it is due, or finish a"
        " renewal that was begun (guide, section 6). It logs in, which ends a session of the account that is"
        " open elsewhere (guide, section 4.3).",
        func=lazy_load_command(f"{_ROOM}.renew.renew"),
        args=(
            _CONN_ID,
            _arg("--force", help="Renew although it is not due", action="store_true"),
            _arg(
                "--replace-second-key",
                help="Upload within 14 days of another upload, too: RAP then forgets the newer of its two"
                " keys (guide, section 6.3)",
                action="store_true",
            ),
            ARG_YES,
            ARG_VERBOSE,
        ),
    ),
    ActionCommand(
        name="ls",
        help="List folders of RAP; logs in",
        description="List folders of RAP. It logs in, which ends a session of the account that is open"
        " elsewhere (guide, section 4.3): a running task loses its own and tries again later.",
        func=lazy_load_command(f"{_ROOM}.ls.ls"),
        args=(
            _arg(
                "folder",
                help="DCASS, DCASS_OTHERS or HKCC_SEOCH_CCMS_GLOB (default: all that RAP shows to the"
                " account)",
                nargs="*",
                metavar="FOLDER",
            ),
            _CONN_ID,
            ARG_YES,
            ARG_OUTPUT,
            ARG_VERBOSE,
        ),
    ),
    ActionCommand(
        name="gaps",
        help="Show the reports of the last ten days that have landed, and those that are missing",
        description="Show the landed and the missing reports of each folder, for each trading day that RAP"
        " still keeps (guide, section 4.1). It reads the lake only. Exit status 1 if a report is missing; a"
        " report is awaited until the latest time at which it came on the days before.",
        func=lazy_load_command(f"{_ROOM}.gaps.gaps"),
        args=(
            _LAKE,
            _CUSTOMER,
            _CONN_ID,
            _arg(
                "--expect",
                help="Patterns of file names; of each a file must have landed on every trading day"
                " (default: the usual reports, and a file in each folder)",
                nargs="+",
                metavar="GLOB",
            ),
            _FOLDERS,
            _arg(
                "--calendar",
                help="Whose trading days count: derivatives (default) or securities, for a participant"
                " without Derivatives Holiday Trading",
                choices=("derivatives", "securities"),
                default="derivatives",
            ),
            ARG_OUTPUT,
            ARG_VERBOSE,
        ),
    ),
    ActionCommand(
        name="verify",
        help="Prove the manifest against the bytes in the lake",
        description="Read every landed byte of a customer and compare it with the manifest. Exit status 1"
        " if they do not agree.",
        func=lazy_load_command(f"{_ROOM}.verify.verify"),
        args=(
            _LAKE,
            _CUSTOMER,
            _CONN_ID,
            _arg("--since", help="Leave out earlier business dates (YYYY-MM-DD)", metavar="DATE"),
            _FOLDERS,
            ARG_OUTPUT,
            ARG_VERBOSE,
        ),
    ),
    ActionCommand(
        name="manifest",
        help="Show the entries of the manifest, or the current reports",
        description="Show the entries of the manifest; it reads no report. A table shows some fields of each"
        " entry, json and yaml show all of them.",
        func=lazy_load_command(f"{_ROOM}.manifest.manifest"),
        args=(
            _arg(
                "--current",
                help="Only reports that have landed, each once, without superseded content",
                action="store_true",
            ),
            _LAKE,
            _CUSTOMER,
            _CONN_ID,
            _arg(
                "--folder",
                help="A folder of RAP: DCASS, DCASS_OTHERS or HKCC_SEOCH_CCMS_GLOB (default: all three)",
            ),
            _arg("--report", help="A report code, such as TP001 (default: all)", metavar="CODE"),
            _arg(
                "--business-date",
                help="A business date, or the first and the last one (YYYY-MM-DD; default: all, which reads"
                " the whole manifest)",
                nargs="+",
                metavar="DATE",
            ),
            ARG_OUTPUT,
            ARG_VERBOSE,
        ),
    ),
    ActionCommand(
        name="simulate",
        help="Run a RAP on this machine until interrupted, to try DAGs against",
        func=lazy_load_command(f"{_ROOM}.simulate.simulate"),
        args=(
            _arg("--account", help="A RAP user account; repeatable (default: DCXYZ001)", action="append"),
            _arg("--port", help="The port (default: a free one)"),
            _arg("--days", help="How many trading days to publish (default: 3)"),
            _arg(
                "--now",
                help="The time that it shows, in Hong Kong, such as 2026-11-21T01:30 (default: the real one)",
                metavar="TIME",
            ),
            _arg(
                "--missing",
                help="Leave a report out of the last trading day, such as TP001; repeatable",
                action="append",
                metavar="CODE",
            ),
            _arg(
                "--hours",
                help="Refuse logins outside the service hours (guide, section 4.1)",
                action="store_true",
            ),
            ARG_VERBOSE,
        ),
    ),
)


def get_cli_commands() -> list[CLICommand]:
    """Return the group ``airflow hkex-rap``."""
    return [
        GroupCommand(
            name="hkex-rap",
            help="Check and inspect HKEX's Report Access Platform (RAP), its keys and the lake",
            subcommands=_COMMANDS,
        )
    ]
