"""A server for one reader on this machine."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from types import TracebackType

import uvicorn

from somareg.errors import UnsupportedError
from somareg.view.app import make_app
from somareg.view.scene import Scene

ADDRESS = "127.0.0.1"


class Server:
    """A scene behind an address that only this machine reaches and only who knows the token may use.

    It listens from the moment it is made; `run` answers until Ctrl-C.

    Args:
        scene: to show; stays the caller's to close.
        port: 0 for any that is free.

    Raises:
        UnsupportedError: the port is taken or not allowed.
    """

    def __init__(self, scene: Scene, port: int = 0) -> None:
        self._scene = scene
        self._socket = _listen(port)
        self.port: int = self._socket.getsockname()[1]
        self.token = secrets.token_urlsafe(24)
        app = make_app(scene, self.token, self.port)
        # No access log: its lines would hold the token. No header that names software.
        config = uvicorn.Config(
            app,
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="off",
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)

    @property
    def url(self) -> str:
        """The page."""
        return f"http://{ADDRESS}:{self.port}/{self.token}/"

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def run(self, when_ready: Callable[[], object] | None = None) -> None:
        """Answer until Ctrl-C or `stop`.

        Args:
            when_ready: called on a thread of its own once the address answers, to open a browser.
        """
        for task in (self._scene.warm_up, when_ready):
            if task is not None:
                Thread(target=task, daemon=True).start()
        with suppress(KeyboardInterrupt):  # how a reader ends it; uvicorn has closed by now
            self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """End `run`, from another thread."""
        self._server.should_exit = True


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two programs share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise UnsupportedError(f"cannot listen on {ADDRESS}:{port} ({reason}); give another --port, or 0") from error
    return listener
