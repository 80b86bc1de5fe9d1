"""Every format that recordings come in, one file each: what recognises it, what reads it and what writes it.

A format's module gives ``WHAT`` it is, the ``EXTRA`` that it needs, ``recognises(path)`` (cheap, never an error),
``read(path, camera=...)`` and, where it can be written, ``write(episodes, path)``, which leaves a whole file or none.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from tacit.data.formats import arrays, frames, lerobot21, minari, ogbench, robomimic, screen, videos, zarr

# The most particular first: a folder of videos with an event log is a screen recording, and a dataset of either
# LeRobot version is a folder with videos in it.
FORMATS: dict[str, ModuleType] = {
    "lerobot21": lerobot21,
    "minari": minari,
    "robomimic": robomimic,
    "zarr": zarr,
    "ogbench": ogbench,
    "arrays": arrays,
    "screen": screen,
    "frames": frames,
    "videos": videos,
}
SEEN = ("screen", "frames", "videos")  # read through a ``View``: their recordings differ in rate and size
WRITABLE = tuple(name for name, module in FORMATS.items() if hasattr(module, "write"))


def recognised(path: Path) -> str | None:
    """The name of the format that lies at ``path``, or nothing."""
    return next((name for name, module in FORMATS.items() if module.recognises(path)), None)
