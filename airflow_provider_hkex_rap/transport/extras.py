"""Read the extra fields of a connection, each in its type."""

from __future__ import annotations

import re
from collections.abc import Mapping

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

NAMES = (
    "site",
    "secondary_hosts",
    "registered_addresses",
    "host_key",
    "no_host_key_check",
    "key_file",
    "private_key",
    "private_key_passphrase",
    "key_expires",
    "key_store",
    "connect_timeout",
    "idle_timeout",
)
"""The extra fields that a connection may have."""

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")


class Extras:
    """The extra fields of a connection; blank ones count as left out.

    No error shows a value, or a name that is no identifier: it may be a secret in the wrong place.

    :param fields: the fields by name, as Airflow decodes them from JSON.
    :raises RapConfigurationError: if it is no mapping, or has an unknown field.
    """

    def __init__(self, fields: object) -> None:
        if not isinstance(fields, Mapping):
            kind = (
                "a text: it was probably encoded twice" if isinstance(fields, str) else "a list or a number"
            )
            raise RapConfigurationError(
                f"The extra of the connection is {kind}.",
                why='It must be a JSON object, such as {"host_key": "ssh-rsa AAAA…"}.',
                todo="Write it as an object, encoded once.",
            )
        if unknown := sorted(map(_shown_name, fields.keys() - set(NAMES))):
            raise RapConfigurationError(
                f"The connection has unknown extra fields: {', '.join(unknown)}.",
                why=f"The extra fields are {', '.join(NAMES)}.",
                todo="Correct the spelling, or remove them.",
                unknown=tuple(unknown),
            )
        self._fields = {name: value for name, value in fields.items() if value not in (None, "")}

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def text(self, name: str) -> str:
        """Return a text without surrounding white space; empty if it is left out.

        :param name: the field.
        :raises RapConfigurationError: if it is no text.
        """
        return self.secret(name).strip()

    def secret(self, name: str) -> str:
        """Return a text as it is; empty if it is left out.

        :param name: the field.
        :raises RapConfigurationError: if it is no text.
        """
        value = self._fields.get(name, "")
        if not isinstance(value, str):
            raise _invalid(name, value, "a text in quotes")
        return value

    def lines(self, name: str) -> list[str]:
        """Return the lines of a text, or of a list of texts; none if it is left out.

        A form with one line keeps line ends as backslash and n; these end a line too.

        :param name: the field.
        :raises RapConfigurationError: if it is neither.
        """
        value = self._fields.get(name, "")
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(value)
        if not isinstance(value, str):
            raise _invalid(name, value, "a text, or a list of texts")
        return value.replace("\\r", "\r").replace("\\n", "\n").splitlines()

    def flag(self, name: str) -> bool:
        """Return a flag; false if it is left out.

        :param name: the field.
        :raises RapConfigurationError: if it is neither true nor false.
        """
        value = self._fields.get(name, False)
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        raise _invalid(name, value, "true or false")

    def seconds(self, name: str, default: float) -> float:
        """Return a number of seconds.

        :param name: the field.
        :param default: the number if the field is left out.
        :raises RapConfigurationError: if it is no number above zero.
        """
        value = self._fields.get(name, default)
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                seconds = float(value)
            except (ValueError, OverflowError):
                seconds = 0.0
            if 0 < seconds < float("inf"):
                return seconds
        raise _invalid(name, value, f"a number of seconds above zero, such as {default:g}")


def _shown_name(name: object) -> str:
    return repr(name) if _IDENTIFIER.fullmatch(str(name)) else "one whose name is no identifier"


def _invalid(name: str, value: object, form: str) -> RapConfigurationError:
    return RapConfigurationError(
        f"The extra {name!r} of the connection is not valid (it is a JSON {_json_type(value)}).",
        why=f"It must be {form}.",
        todo="Correct it, or leave it blank.",
        field=name,
    )


def _json_type(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"
