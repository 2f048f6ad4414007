"""Open the key store that a connection names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

from airflow_provider_hkex_rap.keystore.directory import DirectoryKeyStore
from airflow_provider_hkex_rap.keystore.store import KeyStore
from airflow_provider_hkex_rap.keystore.variable import VariableKeyStore
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError


def open_key_store(text: str | None) -> KeyStore:
    """Return the key store that a connection names.

    :param text: ``variable`` or blank for Airflow Variables; ``file:///directory``; or the dotted path of a
        class with the methods of :class:`KeyStore`.
    :raises RapConfigurationError: if *text* is none of these, or the class cannot be imported.
    """
    name = (text or "").strip() or "variable"
    if name == "variable":
        return VariableKeyStore()
    if name.startswith("file:"):
        return DirectoryKeyStore(_directory(name))
    return _class_at(name)()


def _directory(uri: str) -> Path:
    parts = urlsplit(uri)
    path = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or len(path.parts) < 2:
        raise _unknown(uri, "Write a directory as file:///directory, with three slashes.")
    return path


def _class_at(path: str) -> Callable[[], KeyStore]:
    module, _, name = path.rpartition(".")
    if not module:
        raise _unknown(path, "There is no key store with that name.")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise _unknown(path, f"It cannot be imported: {error}.") from None
    if not (isinstance(found, type) and issubclass(found, KeyStore)):
        raise _unknown(path, "It is not a class with the methods 'read' and 'write'.")
    return found


def _unknown(text: str, why: str) -> RapConfigurationError:
    return RapConfigurationError(
        f"{text!r} in 'key_store' is not a key store.",
        why=why,
        todo="Set it to 'variable', 'file:///directory' or the dotted path of your own class.",
        key_store=text,
    )
