"""Judge what a server says of algorithms, of a login and of its end, whatever ends the connection."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from airflow_provider_hkex_rap.rap import algorithms
from airflow_provider_hkex_rap.rap.printable import printable
from airflow_provider_hkex_rap.transport.undocumented import (
    DISCONNECT,
    KEXINIT,
    disconnect_text,
    kexinit_lists,
    methods_left,
)

_NO_COMPRESSION = ("none",)
_MARKERS = ("ext-info-", "kex-strict-")
"""The beginnings of names in the list of key exchanges that announce extensions, and are no algorithms."""
_MOST_NAMES = 400
"""The most characters of a list of names in an error."""


class Mismatch(NamedTuple):
    """A kind of algorithm of which the server offers none of ours."""

    kind: str
    """The kind in words, such as ``key exchange``."""
    offered: str
    """What the server offers, made printable and short."""

    def __str__(self) -> str:
        return f"{self.kind}: it offers {self.offered}"


class Negotiation:
    """What the server of one connection has said; takes messages as `undocumented.observe` gives them."""

    def __init__(self) -> None:
        self.mismatches: Sequence[Mismatch] = ()
        """The kinds of algorithms that the server does not share with us; none if it has offered nothing."""
        self.second_factor: str | None = None
        """The methods of a second factor that the server asks for after the key; None if for none."""
        self.other_methods: str | None = None
        """The methods of a login that the server offers if a key is not one of them; None if it is."""
        self.disconnect: str | None = None
        """The text of the server's disconnect message, printable and short; None if it has sent none."""

    def received(self, kind: int, payload: bytes) -> None:
        """Record a message; asyncssh itself reports one that is not well formed.

        :param kind: the message's number.
        :param payload: its payload.
        """
        with suppress(ValueError):
            if kind == KEXINIT:
                self.mismatches = mismatches(kexinit_lists(payload))
            elif kind == DISCONNECT:
                # A message that cannot be read is one all the same.
                self.disconnect = ""
                self.disconnect = printable(disconnect_text(payload))
            else:
                methods, is_partial = methods_left(payload)
                if is_partial:
                    self.second_factor = _names(methods)
                self.other_methods = None if "publickey" in methods else _names(methods)


def mismatches(lists: Sequence[tuple[str, ...]]) -> list[Mismatch]:
    """Return the kinds of algorithms that the server and this client do not share (§2.1).

    :param lists: the first eight lists of the server's KEXINIT, in its order.
    """
    key_exchange, host_key, cipher_up, cipher_down, mac_up, mac_down, packed_up, packed_down = lists
    judged = [
        ("key exchange", algorithms.KEY_EXCHANGE, [it for it in key_exchange if not it.startswith(_MARKERS)]),
        ("host key", algorithms.PUBLIC_KEY, host_key),
        ("cipher (client to server)", algorithms.CIPHERS, cipher_up),
        ("cipher (server to client)", algorithms.CIPHERS, cipher_down),
        ("MAC (client to server)", algorithms.MACS, mac_up if _needs_mac(cipher_up) else algorithms.MACS),
        ("MAC (server to client)", algorithms.MACS, mac_down if _needs_mac(cipher_down) else algorithms.MACS),
        ("compression (client to server)", _NO_COMPRESSION, packed_up),
        ("compression (server to client)", _NO_COMPRESSION, packed_down),
    ]
    return [
        Mismatch(kind, _names(offered)) for kind, ours, offered in judged if set(ours).isdisjoint(offered)
    ]


def _needs_mac(offered: Sequence[str]) -> bool:
    """Return whether the cipher that both sides choose, the first of ours that is offered, needs a MAC."""
    chosen = [cipher for cipher in algorithms.CIPHERS if cipher in offered][:1]
    return any("-gcm@" not in cipher for cipher in chosen)


def _names(names: Sequence[str]) -> str:
    return printable(", ".join(names), limit=_MOST_NAMES) or "none"
