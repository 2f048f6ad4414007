"""Describe the provider to Airflow's providers manager."""

from typing import Any

_INTEGRATION = "HKEX Report Access Platform (RAP)"


def _field(label: str, description: str, **schema: object) -> dict[str, object]:
    return {
        "label": label,
        "description": description,
        "schema": {"type": [schema.pop("kind", "string"), "null"], **schema},
    }


_CONNECTION_FIELDS = {
    "site": _field(
        "Site",
        "The site that HKEX has announced as active (§2.2).",
        enum=["primary", "secondary"],
        default="primary",
    ),
    "secondary_hosts": _field(
        "Hosts of the secondary site",
        "host[:port], separated by commas. Leave it blank to use the guide's addresses (§7.1).",
    ),
    "registered_addresses": _field(
        "Registered addresses",
        "The IPv4 addresses that HKEX has registered for you (§7), at most four, separated by commas."
        " 'airflow hkex-rap doctor' compares this machine's address with them.",
    ),
    "host_key": _field(
        "Host keys",
        "RAP's public host keys, one per line, as 'ssh-rsa AAAA…'. A server with another key is refused.",
        format="multiline",
    ),
    "no_host_key_check": _field(
        "Do not check host keys",
        "For trials only. If it is set, the connection can be intercepted.",
        kind="boolean",
        default=False,
    ),
    "key_file": _field(
        "Private key file", "Path on the workers of the RSA private key registered for the account (§3.2)."
    ),
    "private_key": _field(
        "Private key",
        "The RSA private key registered for the account, in PEM form, instead of a file.",
        format="password",
    ),
    "private_key_passphrase": _field(
        "Passphrase", "The passphrase of the private key, if it is encrypted.", format="password"
    ),
    "key_expires": _field(
        "Last day of the key",
        "YYYY-MM-DD, if you know it. If it is blank, RAP's warning decides when the key is renewed (§6.2).",
        format="date",
    ),
    "key_store": _field(
        "Key store",
        "The store of renewed keys: variable, file:///directory, or the dotted path of a class.",
        default="variable",
    ),
    "connect_timeout": _field(
        "Connect timeout", "Seconds to wait for one address, including the login.", kind="number", default=30
    ),
    "idle_timeout": _field(
        "Idle timeout",
        "Seconds without an answer before a session is closed.",
        kind="number",
        default=60,
    ),
}


def _modules(*names: str) -> list[dict[str, object]]:
    return [{"integration-name": _INTEGRATION, "python-modules": list(names)}]


def get_provider_info() -> dict[str, Any]:
    """Return the description of this provider, as ``provider_info.schema.json`` of Airflow defines it."""
    return {
        "package-name": "airflow-provider-hkex-rap",
        "name": "HKEX RAP",
        "description": "Download reports from HKEX's Report Access Platform (RAP), and renew its keys.",
        "integrations": [{"integration-name": _INTEGRATION, "tags": ["protocol"]}],
        "hooks": _modules("airflow_provider_hkex_rap.hooks.rap"),
        "operators": _modules(
            "airflow_provider_hkex_rap.operators.download",
            "airflow_provider_hkex_rap.operators.key_renewal",
        ),
        "sensors": _modules(
            "airflow_provider_hkex_rap.sensors.report",
            "airflow_provider_hkex_rap.sensors.key_expiry",
        ),
        "connection-types": [
            {
                "connection-type": "hkex_rap",
                "hook-class-name": "airflow_provider_hkex_rap.hooks.rap.RapHook",
                "hook-name": "HKEX RAP",
                "conn-fields": _CONNECTION_FIELDS,
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "password"],
                    "relabeling": {"login": "RAP user account", "host": "Hosts of the primary site"},
                    "placeholders": {
                        "login": "DCXYZ001",
                        "host": "leave blank to use the guide's addresses (§7.1)",
                        "port": "18801",
                    },
                },
            }
        ],
        "extra-links": [
            "airflow_provider_hkex_rap.operators.links.BoardLink",
            "airflow_provider_hkex_rap.operators.links.ManifestLink",
        ],
        "asset-uris": [
            {"schemes": ["hkex-rap"], "handler": "airflow_provider_hkex_rap.assets.uris.normalize"}
        ],
        "cli": ["airflow_provider_hkex_rap.cli.definition.get_cli_commands"],
        "config": {
            "hkex_rap": {
                "description": "Settings of the HKEX RAP provider.",
                "options": {
                    "clock_offset": {
                        "description": "Seconds to add to the clock, for trials against a simulator that is"
                        " set to another date. Refused if an address of the connection is not on this"
                        " machine.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "-86400",
                        "default": "0",
                    },
                    "superseded_wait": {
                        "description": "Seconds to wait before the tasks of a host log in again with an"
                        " account after another login has ended the session of one of them. A download"
                        " waits at most three times.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "600",
                        "default": "300",
                    },
                    "lock_dir": {
                        "description": "Directory of the lock files that keep two processes of this host from"
                        " logging in with one account at the same time. Default: a fixed directory for each"
                        " user, which does not depend on TMPDIR.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/run/hkex-rap",
                        "default": "",
                    },
                    "board_lakes": {
                        "description": "URIs of the lakes that the RAP board shows, separated by commas or"
                        " line breaks. Default: the lake of the Airflow Variable hkex_rap_lake.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "file:///data/rap, s3://aws_default@bucket/rap",
                        "default": "",
                    },
                    "pools": {
                        "description": "Pools to create besides hkex_rap, with one slot each, separated by"
                        " commas. List one for each account that should work in parallel.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "hkex_rap_1,hkex_rap_2",
                        "default": "",
                    },
                },
            }
        },
    }
