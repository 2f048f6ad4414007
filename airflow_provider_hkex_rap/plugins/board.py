"""Mount the board in Airflow's API server, and put it into the navigation.

Every part of Airflow loads the plugins, and only the API server calls the board: so it is imported at its
first request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class LazyBoard:
    """The board as an ASGI application, imported at the first request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        # In a thread, since the import takes a second, in which the API server must answer others.
        board = await asyncio.to_thread(_import_board)
        await board(scope, receive, send)


def _import_board() -> ASGIApp:
    from airflow_provider_hkex_rap.board.app import board_app

    return board_app()


FASTAPI_APPS: list[dict[str, Any]] = [
    {"app": LazyBoard(), "url_prefix": "/hkex-rap", "name": "RAP board of the HKEX RAP provider"}
]
# Without a leading slash, a path also works below the prefix of a reverse proxy. A tab for tasks is left out:
# Airflow would show it on every task of every DAG, and does not allow scripts in it.
EXTERNAL_VIEWS: list[dict[str, Any]] = [
    {
        "name": "RAP board",
        "href": "hkex-rap/",
        "destination": "nav",
        "category": "browse",
        "url_route": "hkex_rap",
        "icon": "hkex-rap/static/icon.svg",
    }
]
