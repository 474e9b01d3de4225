"""A headless Chromium, spoken to by its own protocol over two pipes: nothing to install but the browser."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_EXEC = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def find_chromium() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page; what its console says and what it fetches is kept."""

    def __init__(self, program: str, size: tuple[int, int] = (1280, 800), dark: bool = False) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._number, self._buffer, self._answers = 0, b"", {}
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        down, up = os.pipe(), os.pipe()
        # Away from 3 and 4, which the child's ends become.
        child = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (down[0], up[1])]
        flags = ["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--mute-audio"]
        flags += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
        flags += [f"--user-data-dir={self._home.name}", "--disable-dev-shm-usage"]
        if os.geteuid() == 0:  # in a container; the sandbox wants an ordinary user
            flags.append("--no-sandbox")
        command = [sys.executable, "-c", _EXEC, str(child[0]), str(child[1]), program, *flags, "about:blank"]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the browser
        self._process = subprocess.Popen(command, pass_fds=child, stdout=self._log, stderr=self._log)
        for end in (down[0], up[1], *child):
            os.close(end)
        self._write, self._read = down[1], up[0]
        targets = self.send("Target.getTargets", session=None)["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.send("Target.attachToTarget", {"targetId": page, "flatten": True}, session=None)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", {"features": [scheme]})

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._log.close()
        self._home.cleanup()

    def send(
        self, method: str, parameters: dict[str, Any] | None = None, session: str | None = "page"
    ) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 60
        while self._number not in self._answers:
            self._pump(deadline)
        answer = self._answers.pop(self._number)
        assert "error" not in answer, answer
        return dict(answer["result"])

    def open(self, url: str) -> None:
        self.send("Page.navigate", {"url": url})
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        parameters = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self.send("Runtime.evaluate", parameters)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"never true: {condition}; console: {self.complaints}"
            time.sleep(0.05)

    def settle(self, act: Callable[[], object]) -> None:
        """Do something, then wait until the map is drawn with all that it needs."""
        before = self.run("Number(document.getElementById('stage').dataset.drawn || 0)")
        act()
        self.wait(f"Number(document.getElementById('stage').dataset.drawn || 0) > {before}")

    def picture(self) -> NDArray[np.uint8]:
        """(h, w, 3) BGR of what is on the screen."""
        data = base64.b64decode(self.send("Page.captureScreenshot", {"format": "png"})["data"])
        return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), dtype=np.uint8)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        parameters = {"type": kind, "x": x, "y": y, "button": "none", **more}
        self.send("Input.dispatchMouseEvent", parameters)

    def click(self, x: float, y: float) -> None:
        self.mouse("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1, buttons=int(kind == "mousePressed"))

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.mouse("mouseMoved", *start)
        self.mouse("mousePressed", *start, button="left", buttons=1, clickCount=1)
        for share in (0.25, 0.5, 0.75, 1.0):
            x, y = (a + share * (b - a) for a, b in zip(start, end, strict=True))
            self.mouse("mouseMoved", x, y, button="left", buttons=1)
        self.mouse("mouseReleased", *end, button="left", clickCount=1)

    def key(self, key: str) -> None:
        text: dict[str, Any] = {"text": key} if len(key) == 1 else {}
        if key == "Escape":
            text = {"windowsVirtualKeyCode": 27}  # without it a dialog stays open
        self.send("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, **text})
        self.send("Input.dispatchKeyEvent", {"type": "keyUp", "key": key})

    def _pump(self, deadline: float) -> None:
        ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
        part = os.read(self._read, 1 << 20) if ready else b""
        if not part:
            self._log.seek(0)
            raise AssertionError(f"the browser does not answer: {self._log.read()[-2000:]!r}")
        *messages, self._buffer = (self._buffer + part).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._note(message.get("method", ""), message.get("params", {}))

    def _note(self, method: str, said: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(said["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(said["args"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(str(said["entry"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
