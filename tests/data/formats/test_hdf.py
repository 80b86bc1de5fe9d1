"""Writing HDF5 where there is no room: one error, nothing left behind, and the process lives on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from tacit.clip import Episode
from tacit.data.episodes import Episodes
from tacit.data.formats import FORMATS
kind, out, most = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
random = np.random.default_rng(0)
frames = [random.integers(0, 256, (9, 64, 64, 3), dtype=np.uint8) for _ in range(8)]
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
try:
    FORMATS[kind].write(Episodes.of([Episode(frames=f) for f in frames], fps=10), out)
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["robomimic", "minari"])
@pytest.mark.parametrize("most", [100, 300_000])  # bytes: not even its header fits, and a few episodes
def test_a_full_disk_is_one_error_and_leaves_nothing(kind: str, most: int, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    out = tmp_path / "out.hdf5"
    ran = subprocess.run([sys.executable, "-c", PROGRAM, kind, out, str(most)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert str(out) in ran.stdout and "File too large" in ran.stdout and not ran.stderr
    assert not list(tmp_path.iterdir())
