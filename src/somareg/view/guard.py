"""Who may ask: only who knows the token and speaks to this machine by its own address; and what a browser may do."""

from __future__ import annotations

import secrets
from typing import Any

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""On every answer. The token is part of the address, so no address leaves in a referrer."""


class Guard:
    """An ASGI application in front of another one.

    Args:
        app: what answers, below the token.
        token: first part of every path.
        port: of the server; a page of another site that has its name point here sends another Host and is refused.
    """

    def __init__(self, app: Any, token: str, port: int) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = {f"127.0.0.1:{port}".encode(), f"localhost:{port}".encode()}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        inner = self._inner(scope)
        if inner is None:
            await _refuse(send_with_headers)
        else:
            await self._app(inner, receive, send_with_headers)

    def _inner(self, scope: dict[str, Any]) -> dict[str, Any] | None:
        """The scope below the token, or None for a stranger; all strangers get the same answer."""
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        _, _, rest = scope["path"].partition("/")
        token, slash, path = rest.partition("/")
        known = secrets.compare_digest(token.encode("utf-8", "replace"), self._token)
        if not (known and slash and len(hosts) == 1 and hosts[0] in self._hosts):
            return None
        if scope["method"] not in ("GET", "HEAD"):
            return None
        return {**scope, "path": "/" + path, "raw_path": None, "root_path": ""}


async def _refuse(send: Any) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": b"not found\n"})
