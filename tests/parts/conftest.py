"""Two processes for the tests of what must be the same on every one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
INTRODUCED = """
import json, torch
from tacit import spread
torch.set_num_threads(1)
with spread.processes() as (rank, world):
"""


@pytest.fixture(scope="session")
def pair() -> Callable[[str], list[Any]]:
    """Runs lines on two processes that know each other and their ``rank``: what each put into ``said``."""

    def run(lines: str) -> list[Any]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        shared |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        inside = "\n".join("    " + line for line in lines.strip().splitlines())
        command = [sys.executable, "-c", INTRODUCED + inside + "\nprint(json.dumps(said))"]
        ranks = [
            subprocess.Popen(command, cwd=ROOT, env={**shared, "RANK": str(n)}, stdout=subprocess.PIPE, text=True)
            for n in range(2)
        ]
        try:
            return [json.loads(rank.communicate(timeout=120)[0].splitlines()[-1]) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()

    return run
