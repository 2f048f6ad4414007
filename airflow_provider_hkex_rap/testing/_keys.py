"""Keys of the simulated RAP and its accounts, generated at first use: the package contains no keys."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncssh import SSHKey


@cache
def rsa_key(owner: str) -> SSHKey:
    """Return the RSA key of *owner* (2048 bits), the same one as long as the process runs.

    :param owner: the name of an account or of a server.
    """
    from asyncssh import generate_private_key

    return generate_private_key("ssh-rsa", comment=owner, key_size=2048)


@cache
def private_pem(owner: str) -> str:
    """Return the same key in OpenSSH's PEM form, always with the same text.

    asyncssh writes another text each time it exports a key.

    :param owner: the name of an account or of a server.
    """
    return rsa_key(owner).export_private_key("openssh").decode()
