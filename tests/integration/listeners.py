"""Servers on localhost that keep what a task sends: e-mails, and metrics in the form of StatsD."""

from __future__ import annotations

import email
import json
import queue
import re
import socket
from email.message import Message
from email.policy import default
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiosmtpd.controller import Controller

from ..ports import free_port

NOTIFIER = {
    "notifier": "airflow.providers.smtp.notifications.smtp.SmtpNotifier",
    "kwargs": {
        "to": "desk@example.com",
        "subject": "[RAP] {{ alert.severity }}: {{ alert.what | truncate(60) }}",
        # As text, so that a test can read the record.
        "html_content": "<pre>{{ alert.to_dict() | tojson }}</pre>",
    },
}
"""A value of the Variable ``hkex_rap_notifier``."""

_METRIC = re.compile(r"airflow\.(hkex_rap\.[a-z_.]+)((?:,[^:]*)?):([-0-9.e]+)\|(\w+)")


class MailServer:
    """An SMTP server; use it in a ``with`` block."""

    def __init__(self) -> None:
        self._mails: queue.Queue[Message] = queue.Queue()
        self._controller = Controller(self, hostname="127.0.0.1", port=free_port())

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802
        self._mails.put(email.message_from_bytes(envelope.content, policy=default))
        return "250 OK"

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()

    @property
    def connection(self) -> str:
        """The Airflow connection to this server, as JSON."""
        extra = {"from_email": "rap@example.com", "disable_ssl": True, "disable_tls": True}
        return json.dumps(
            {"conn_type": "smtp", "host": "127.0.0.1", "port": self._controller.port, "extra": extra}
        )

    def alerts(self) -> list[dict[str, str]]:
        """Return the records of all mails that have come since the last call."""
        found = []
        while not self._mails.empty():
            mail = self._mails.get()
            (part,) = [part for part in mail.walk() if part.get_content_type() == "text/html"]
            text = part.get_content()  # type: ignore[attr-defined]
            found.append(json.loads(text[text.index("{") : text.rindex("}") + 1]))
        return found


class Metric(NamedTuple):
    """A metric of ours, with the tags of InfluxDB's form of StatsD."""

    name: str
    kind: str
    value: float
    tags: dict[str, str]


class StatsdServer:
    """A UDP socket; use it in a ``with`` block."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    @property
    def environment(self) -> dict[str, str]:
        """Airflow's settings with which it sends its metrics to this socket."""
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(self._socket.getsockname()[1]),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        }

    def metrics(self) -> list[Metric]:
        """Return the metrics of the provider that have come since the last call."""
        found = []
        while True:
            try:
                text = self._socket.recv(65536).decode()
            except BlockingIOError:
                return found
            for name, tags, value, kind in _METRIC.findall(text):
                pairs = (tag.partition("=") for tag in tags.split(",") if tag)
                found.append(Metric(name, kind, float(value), {key: val for key, _, val in pairs}))
