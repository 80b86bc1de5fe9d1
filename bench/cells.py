"""What studies of many trainings share: what is finished is not made again, and numbers are means over seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tacit.evaluate.interval import Interval, mean
from tacit.part import write

Rows = list[dict[str, Any]]


def kept(path: Path, settings: Any, make: Callable[[], Rows]) -> tuple[Rows, bool]:
    """The rows of a cell, from the disk if it was finished with the same settings, else made, and whether so."""
    asked = json.loads(json.dumps(settings))
    if path.exists() and (told := json.loads(path.read_text())).get("settings") == asked:
        return list(told["rows"]), False
    rows = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, lambda file: Path(file).write_text(json.dumps({"settings": asked, "rows": rows})))
    return rows, True


def begun(out: Path | None, settings: Any) -> Rows:
    """The rows that a file of results holds of the same settings, so that a study goes on where its file stops."""
    if out is None or not out.exists():
        return []
    told, asked = json.loads(out.read_text()), json.loads(json.dumps(settings))
    return list(told["rows"]) if told.get("settings") == asked else []


def over(rows: Sequence[Mapping[str, Any]], column: str, **where: Any) -> Interval:
    """The mean of a column over the rows that match and have one; for its interval each seed's mean is one sample."""
    some = [row for row in rows if row.get(column) is not None and all(row[k] == v for k, v in where.items())]
    seeds = sorted({row["seed"] for row in some})
    return mean([float(np.mean([row[column] for row in some if row["seed"] == seed])) for seed in seeds])
