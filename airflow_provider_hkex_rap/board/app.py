"""The web application of the board, which the plugin mounts at ``/hkex-rap``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException

from airflow_provider_hkex_rap.board import accounts as board_accounts
from airflow_provider_hkex_rap.board import files as board_files
from airflow_provider_hkex_rap.board import grid as board_grid
from airflow_provider_hkex_rap.board.security import READS_REPORTS, ViewerDep
from airflow_provider_hkex_rap.hooks.clock import clock_offset
from airflow_provider_hkex_rap.rap.clock import system_clock
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapError

if TYPE_CHECKING:
    import pendulum
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STATIC = Path(__file__).with_name("static")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LOG_IN = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>RAP board</title>"
    '<p>Log in to Airflow first, then open this address again. <a href="../">Open Airflow</a></p>'
)


class WithHeaders:
    """Add the security headers to every answer, errors included.

    :param app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, send_with_headers)


def now_in_hong_kong() -> pendulum.DateTime:
    """Return the time in Hong Kong, shifted by ``[hkex_rap] clock_offset``."""
    return system_clock(clock_offset())()


@cache
def board_app() -> ASGIApp:
    """Return the application; every address of it needs a login that may read assets."""
    # The pages of the API's description would be open to everybody.
    app = FastAPI(
        title="RAP board",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # A redirect would go to the host that the request names.
        redirect_slashes=False,
        dependencies=[READS_REPORTS],
    )
    app.add_api_route("/", _page, methods=["GET"])
    app.add_api_route("/static/{name}", _static, methods=["GET"])
    app.add_api_route("/api/board", _board, methods=["GET"])
    app.add_api_route("/api/files", _files, methods=["GET"])
    app.add_api_route("/api/accounts", _accounts, methods=["GET"])
    app.add_exception_handler(RapError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_refusal)
    return WithHeaders(app)


# Airflow and the lake block, so these functions are not coroutines: FastAPI calls each in a thread.


def _page() -> FileResponse:
    return FileResponse(_STATIC / "index.html")


def _static(name: Literal["board.css", "board.js", "icon.svg"]) -> FileResponse:
    return FileResponse(_STATIC / name)


def _board(customer: str | None = None) -> JSONResponse:
    return JSONResponse(board_grid.board(now_in_hong_kong(), customer))


def _files(viewer: ViewerDep, customer: str, folder: str, day: str, lake: str | None = None) -> JSONResponse:
    accounts = viewer.visible_accounts() or ()
    return JSONResponse(
        board_files.files(customer, folder, day, lake=lake, dags=viewer.dags, accounts=accounts)
    )


def _accounts(viewer: ViewerDep, customer: str | None = None) -> JSONResponse:
    visible = viewer.visible_accounts()
    if visible is None:
        raise HTTPException(403, "Accounts and keys are shown to users who may read connections in Airflow.")
    return JSONResponse(board_accounts.accounts(now_in_hong_kong(), visible, customer))


async def _answer_error(request: Request, error: Any) -> Response:
    status = 400 if isinstance(error, RapConfigurationError) else 503
    return JSONResponse({"detail": str(error)}, status_code=status)


async def _answer_refusal(request: Request, error: Any) -> Response:
    if error.status_code == 401 and "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(_LOG_IN, status_code=401)
    return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)
