"""Open the key store that a connection names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
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
        raise _unknown("Write a directory as file:///directory, with three slashes.")
    return path


def _class_at(path: str) -> Callable[[], KeyStore]:
    module, _, name = path.rpartition(".")
    if not module or not _is_package(module.partition(".")[0]):
        raise _unknown("There is no key store and no Python package with that name.")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise _unknown(f"{path} cannot be imported: {error}.") from None
    if not (isinstance(found, type) and issubclass(found, KeyStore)):
        raise _unknown(f"{path} is not a class with the methods 'read' and 'write'.")
    return found


def _is_package(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _unknown(why: str) -> RapConfigurationError:
    # The value is not shown unless it is a package: it may be a passphrase typed into the wrong field.
    return RapConfigurationError(
        "The value of 'key_store' is not a key store.",
        why=why,
        todo="Set it to 'variable', 'file:///directory' or the dotted path of your own class.",
    )
