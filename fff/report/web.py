"""The live view as a page in the browser: on loopback only, behind a token, from files alone.

The page is one file of ours beside this one, with no framework and nothing from the network. It asks for
the view once a second.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import time
from importlib import resources
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fff.base.errors import PortError
from fff.report.view import View

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fff.data.run_directory import RunDirectory

__all__ = ["HOST", "WatchPage", "serve"]

HOST = "127.0.0.1"

FRESH_S = 0.5
"""A view of this age (s) is given again: ten open pages cost no more than one."""

_NAMES = {HOST, "localhost", "[::1]"}
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class WatchPage:
    """The page of one campaign and what it asks for.

    Args:
        run: The run directory; only read.
        token: What a visitor must know; drawn at random if not given.

    Attributes:
        token: Stands in the address of everything that is served.
    """

    def __init__(self, run: RunDirectory, token: str | None = None) -> None:
        self.token = secrets.token_urlsafe(24) if token is None else token
        self._view = View(run)
        self._lock = asyncio.Lock()
        self._looked = -FRESH_S
        self._seen: dict[str, Any] = {}
        self._html = resources.files("fff.report").joinpath("watch.html").read_text(encoding="utf-8")

    def application(self) -> web.Application:
        """Return the application that serves it."""
        application = web.Application(middlewares=[self._guard], client_max_size=1024)
        application.router.add_get("/{token}/", self._page)
        application.router.add_get("/{token}/view.json", self._data)
        return application

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Let through who came by a loopback name and knows the token; others learn nothing."""
        response: web.StreamResponse
        if not self._is_known(request):
            text = "This address is not valid. Use the one that `fff watch` printed.\n"
            response = web.Response(status=403, text=text)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=f"{error.reason}\n")
        response.headers.update(_HEADERS)
        response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        return response

    def _is_known(self, request: web.Request) -> bool:
        # Another name in the header means that some page in the browser had its own name lead here.
        name = request.host.lower()
        if not name.endswith("]"):
            name = name.rpartition(":")[0] or name
        given = request.path.removeprefix("/").partition("/")[0]
        return name in _NAMES and secrets.compare_digest(given.encode(), self.token.encode())

    async def _page(self, _: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        response = web.Response(text=self._html.replace("{{nonce}}", nonce), content_type="text/html")
        response.headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce)
        return response

    async def _data(self, _: web.Request) -> web.Response:
        async with self._lock:
            if time.monotonic() - self._looked >= FRESH_S:
                # A log of many events is read for a second; others are answered meanwhile.
                self._seen = await asyncio.to_thread(self._view.look)
                self._looked = time.monotonic()
        return web.json_response(self._seen, dumps=_dumps)


def _dumps(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def serve(run: RunDirectory, *, port: int, announce: Callable[[str], None]) -> None:
    """Serve the page of a campaign until SIGINT or SIGTERM.

    Args:
        run: The run directory; only read.
        port: Of 127.0.0.1; 0 for any that is free.
        announce: Told the address, token included, once it can be opened.

    Raises:
        PortError: If the port is taken or not allowed.
    """
    asyncio.run(_serve(run, port, announce))


async def _serve(run: RunDirectory, port: int, announce: Callable[[str], None]) -> None:
    page = WatchPage(run)
    # Without its log: the addresses in it hold the token.
    runner = web.AppRunner(page.application(), access_log=None, handle_signals=False, shutdown_timeout=1.0)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port, reuse_address=True)
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            msg = f"The page cannot be served on port {port} of {HOST}: {why}."
            raise PortError(msg, hint="Choose another with --port, or leave it out.", port=port) from error
        announce(f"http://{HOST}:{runner.addresses[0][1]}/{page.token}/")
        await ended.wait()
    finally:
        await runner.cleanup()
