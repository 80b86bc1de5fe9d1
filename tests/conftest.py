"""What every test stands on: few threads, fixed seeds, no display, no network."""

from __future__ import annotations

import os

# Before torch or a renderer is imported. One thread a process: xdist runs a process a core, and some tests start more.
for name, value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "MUJOCO_GL": "egl",
    "SDL_VIDEODRIVER": "dummy",
    "SDL_AUDIODRIVER": "dummy",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "offline",
}.items():
    os.environ.setdefault(name, value)

import random
import socket
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# The same examples on every machine and every run: a failure here is a failure there.
hypothesis.settings.register_profile("tacit", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("tacit")

# Minutes each, the longest first: begun last, one would keep one worker busy while the others have nothing left.
LONGEST = ("test_recipes.py", "test_demo.py", "test_phenomena.py", "test_labels.py", "test_models.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    last = len(LONGEST)
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else last)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Each test starts from the same random state, whatever ran before it and on whichever worker."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (simulators still draw from the global generator)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def determinism() -> Any:
    """A test may ask torch for deterministic algorithms or another number type; the next one does not inherit it."""
    strict, kind = torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype()
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(strict)
    torch.set_default_dtype(kind)
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command works with no network: a test that reaches past this machine fails and says where it went."""
    connect = socket.socket.connect

    def local(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if host and host != "localhost" and not host.startswith("127.") and host not in ("::1", "0.0.0.0"):
            raise ConnectionRefusedError(f"A test reached for {address}; tests use this machine only.")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)
