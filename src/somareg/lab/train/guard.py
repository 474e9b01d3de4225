"""Safety of a run: atomic checkpoints, and signals that end it in good order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from somareg.errors import OutputError
from somareg.io.atomic import atomic_path
from somareg.lab.train._lightning import TorchCheckpointIO

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all, and that run no code when loaded."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside `path`, flush to the disk and rename.

        Raises:
            OutputError: the folder or disk refuses; an earlier checkpoint is unchanged.
        """
        final = Path(path)
        with atomic_path(final, overwrite=True) as part:
            try:
                with part.open("wb") as file:
                    torch.save(checkpoint, file)
            except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
                raise OutputError(f"checkpoint {final} cannot be written ({error}); make room and resume") from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read onto the CPU."""
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content


class StopSignals:
    """Turns the first SIGINT or SIGTERM into a request to stop after the current step; the second interrupts."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Listen inside the block and restore the handlers afterwards. Only a main thread can listen."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def listen(self) -> None:
        """Replace the handlers that Lightning sets when it starts."""
        with contextlib.suppress(ValueError):  # not the main thread
            for number in _SIGNALS:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
