"""Networks this small are quicker on one thread, and their sums are the same in every run."""

from __future__ import annotations

from typing import Any

import pytest
import torch


@pytest.fixture
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
