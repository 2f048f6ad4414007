"""Keys of the simulated RAP and its accounts, made when first asked for: none is shipped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncssh import SSHKey


@cache
def rsa_key(owner: str) -> SSHKey:
    """Return the RSA 2048-bit key of *owner*, the same one for the life of the process.

    :param owner: the name of an account or of a server.
    """
    from asyncssh import generate_private_key

    return generate_private_key("ssh-rsa", comment=owner, key_size=2048)


@cache
def private_pem(owner: str) -> str:
    """Return the same key in OpenSSH's PEM form, of which every export is another."""
    return rsa_key(owner).export_private_key("openssh").decode()
