"""No registration: the baseline of every table."""

from __future__ import annotations

import numpy as np

from somareg.lab.evaluate.peers.base import SAR_OPTICAL, ByteImage, Known, Prediction


class Identity:
    """Predicts that the pair is already aligned."""

    name = "identity"

    def __call__(
        self, moving: ByteImage, reference: ByteImage, *, level: str, seed: int, known: Known = SAR_OPTICAL
    ) -> Prediction:
        return Prediction(np.zeros((2, *reference.shape[-2:]), np.float32))
