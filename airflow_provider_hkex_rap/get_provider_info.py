"""The provider's own description, for Airflow's providers manager."""

from typing import Any


def _field(label: str, description: str, **schema: object) -> dict[str, object]:
    return {
        "label": label,
        "description": description,
        "schema": {"type": [schema.pop("kind", "string"), "null"], **schema},
    }


_CONNECTION_FIELDS = {
    "site": _field(
        "Site",
        "The site that HKEX says is active (§2.2).",
        enum=["primary", "secondary"],
        default="primary",
    ),
    "secondary_hosts": _field(
        "Hosts of the secondary site",
        "host[:port], several separated by commas; blank for the guide's addresses (§7.1).",
    ),
    "host_key": _field(
        "Host keys",
        "RAP's public host keys, as 'ssh-rsa AAAA…', one a line. A server with another key is refused.",
        format="multiline",
    ),
    "no_host_key_check": _field(
        "Do not check host keys",
        "For trials only: whoever answers is believed.",
        kind="boolean",
        default=False,
    ),
    "key_file": _field(
        "Private key file", "Path on the workers of the RSA key registered for the account (§3.2)."
    ),
    "private_key": _field(
        "Private key", "The RSA key registered for the account, as PEM, instead of a file.", format="password"
    ),
    "private_key_passphrase": _field("Passphrase", "Where the private key is encrypted.", format="password"),
    "key_expires": _field(
        "Last day of the key",
        "YYYY-MM-DD, where it is known: the key is renewed in time. Else RAP's warning tells (§6.2).",
        format="date",
    ),
    "key_store": _field(
        "Key store",
        "Where renewed keys are kept: variable, file:///directory, or the dotted path of a class.",
        default="variable",
    ),
    "connect_timeout": _field(
        "Connect timeout", "Seconds for one address, login included.", kind="number", default=30
    ),
    "idle_timeout": _field(
        "Idle timeout",
        "Seconds without an answer after which a session is given up.",
        kind="number",
        default=60,
    ),
}


def get_provider_info() -> dict[str, Any]:
    """Return what Airflow may know of this provider."""
    return {
        "package-name": "airflow-provider-hkex-rap",
        "name": "HKEX RAP",
        "description": "Reports and keys of HKEX's Report Access Platform (RAP).",
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
                        "host": "blank for the guide's addresses (§7.1)",
                        "port": "18801",
                    },
                },
            }
        ],
        "cli": ["airflow_provider_hkex_rap.cli.definition.get_cli_commands"],
        "config": {
            "hkex_rap": {
                "description": "Settings of the HKEX RAP provider.",
                "options": {
                    "clock_offset": {
                        "description": "Seconds by which the clock is shifted, for trials against a simulator"
                        " set to another date. Refused where a connection leaves this machine.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "-86400",
                        "default": "0",
                    },
                    "superseded_wait": {
                        "description": "Seconds for which all tasks of a host leave an account in peace after"
                        " another login has thrown one out; a download then goes on, at most three times.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "600",
                        "default": "300",
                    },
                    "pools": {
                        "description": "Pools to make, with one slot each, beside hkex_rap; comma-separated."
                        " One for each account that is to work in parallel.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "hkex_rap_1,hkex_rap_2",
                        "default": "",
                    },
                },
            }
        },
    }
