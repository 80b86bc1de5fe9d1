"""``Claim``: one file of ``results/``: a sentence, the number behind it, its bar, and how to get it again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tacit.evaluate.report import strict
from tacit.part import write
from tacit.state import versions


@dataclass(frozen=True)
class Claim:
    """A number that may be quoted, because anybody can make it again."""

    claim: str
    command: str
    value: Any
    interval: Any
    n: int
    seeds: tuple[int, ...]
    bar: str  # what was asked
    passed: bool
    rows: list[dict[str, Any]]
    extra: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path, *, draw: Callable[[Any], None]) -> None:
        """Write ``path`` and, under the same name, the SVG that ``draw`` puts on a matplotlib axes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {k: v for k, v in asdict(self).items() if k != "extra"} | self.extra
        told = strict(told, path.stem) | {"versions": versions(), "commit": _commit(), "machine": machine()}
        write(path, lambda name: Path(name).write_text(json.dumps(told, indent=1, allow_nan=False) + "\n"))
        write(path.with_suffix(".svg"), lambda name: _draw(name, draw))


def _draw(name: str, draw: Callable[[Any], None]) -> None:
    from matplotlib.figure import Figure

    canvas = Figure((7.2, 4.0), layout="constrained")
    draw(canvas.add_subplot())
    canvas.savefig(name, format="svg", facecolor="white", metadata={"Date": None})


def machine() -> dict[str, Any]:
    """What a speed depends on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cores": os.cpu_count(), "processor": platform.machine(), "gpu": gpu}


def _commit() -> str:
    """The commit of the working copy that this runs from, where it is one."""
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"
