"""What the files of a dataset's ``meta`` folder say, or an error that names the file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tacit.data.video import Damaged

TOLD = {
    "source": str,
    "print": str,
    "split": str,
    "origin": str,
    "success": bool | None,
}  # of each episode, by our writer


def information(path: Path) -> dict[str, Any]:
    """``meta/info.json``, once it is sure to describe a dataset of a kind we read."""
    file = path / "meta" / "info.json"
    if not file.exists():
        raise FileNotFoundError(
            f"{path} holds no dataset: {file.name} is missing from its meta folder. Wanted a LeRobotDataset v3.0."
        )
    info = document(file)
    version, storage = str(info.get("codebase_version")), info.get("storage_format") or "parquet"
    if not version.startswith("v3."):
        raise ValueError(
            f"{path} is a LeRobotDataset {version}; wanted v3.0. Convert it with LeRobot's convert_dataset_v21_to_v30."
        )
    if storage != "parquet":
        raise ValueError(
            f"{path} is stored as {storage!r}; wanted parquet and video files. Convert it with lerobot-edit-dataset."
        )
    missing = [k for k in ("features", "fps", "total_episodes", "data_path") if k not in info]
    if missing:
        raise Damaged(f"{file} lacks {', '.join(missing)}; write the dataset again.")
    return info


def side(path: Path) -> dict[str, Any]:
    """What the format has no room for and our writer put beside it; empty for a stranger's dataset."""
    file = path / "meta" / "tacit.json"
    told = document(file) if file.exists() else {}
    episodes = told.get("episodes", [])
    if not isinstance(told.get("spec", {}), dict) or not isinstance(episodes, list):
        raise Damaged(f"{file} does not hold a spec and a list of episodes; delete it, and what it told is lost alone.")
    for number, about in enumerate(episodes):
        wrong = (
            [k for k, v in about.items() if not isinstance(v, TOLD.get(k, object))]
            if isinstance(about, dict)
            else "all"
        )
        if wrong:
            raise Damaged(
                f"{file} says of episode {number} what cannot be ({wrong}); delete it, and only that is lost."
            )
    return told


def episode_table(path: Path, total: int) -> dict[str, list[Any]]:
    """What ``meta/episodes`` says of the first ``total`` episodes; later ones were never finished."""
    columns: dict[str, list[Any]] = {}
    for file in sorted((path / "meta" / "episodes").glob("**/*.parquet")):
        try:
            wanted = [n for n in pq.read_schema(file).names if not n.startswith("stats/")]
        except (pa.ArrowException, OSError) as error:
            raise _broken(file, error) from error
        table = parquet(file, columns=wanted).to_pydict()
        if columns and set(columns) != set(table):
            raise Damaged(f"{file} has other columns than the files before it: {sorted(set(columns) ^ set(table))}.")
        for name, values in table.items():
            columns.setdefault(name, []).extend(values)
    numbers = columns.get("episode_index", [])
    order = sorted(range(len(numbers)), key=numbers.__getitem__)[:total]
    if [numbers[i] for i in order] != list(range(total)):
        lost = next(i for i in range(total) if i >= len(order) or numbers[order[i]] != i)
        raise Damaged(f"{path} promises {total} episodes; meta/episodes lacks episode {lost}. Copy the folder again.")
    return {name: [values[i] for i in order] for name, values in columns.items()}


def instructions(path: Path) -> dict[str, int]:
    """Every instruction of a dataset and its number."""
    held = parquet(path / "meta" / "tasks.parquet").to_pydict()
    numbers = held.pop("task_index", None)
    if numbers is None or len(held) != 1:
        raise Damaged(f"{path}/meta/tasks.parquet has columns {sorted(held)}; wanted task_index and the task.")
    return dict(zip(next(iter(held.values())), numbers, strict=True))  # pandas may not have named its index


def stretched(told: Any, total: int) -> tuple[int, int]:
    """The first and last (exclusive) episode of a split that is written "first:last"."""
    found = re.fullmatch(r"(\d+):(\d+)", str(told))
    if not found or not int(found[1]) <= int(found[2]) <= total:
        raise Damaged(f"A split is given as {told!r}; wanted 'first:last' within the {total} episodes.")
    return int(found[1]), int(found[2])


def parquet(path: Path, *, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
    """Some columns of a parquet file, or an error that names it."""
    try:
        return pq.read_table(
            path, columns=None if columns is None else list(columns), filters=filters, partitioning=None
        )
    except (pa.ArrowException, OSError, KeyError) as error:
        raise _broken(path, error) from error


def fill(template: str, **values: Any) -> str:
    """A path template of info.json filled in; only known fields, and no way out of the dataset's folder."""

    if not isinstance(template, str):
        raise Damaged(f"A path template of info.json is {template!r}; wanted text such as 'data/file-{{file_index}}'.")

    def field(match: re.Match[str]) -> str:
        name, width = match[1], match[2]
        if name not in values:
            raise Damaged(f"The path template {template!r} asks for {name!r}; known are {sorted(values)}.")
        return str(values[name]) if width is None else f"{int(values[name]):{width}d}"

    path = re.sub(r"\{(\w+)(?::(0?\d+)d)?\}", field, template)
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or any(c in path for c in "{}\\\0"):
        raise Damaged(f"The path template {template!r} leads out of the dataset's folder or is malformed; refused.")
    return path


def document(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds."""
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(file, error) from error
    if not isinstance(value, dict):
        raise Damaged(f"{file} holds a {type(value).__name__}; wanted an object.")
    return value


def _broken(file: Path, error: Exception) -> Damaged:
    reason = " ".join(str(error).split())[:200]
    return Damaged(
        f"{file} cannot be read ({reason}); it is missing or truncated. Copy it again or repair the dataset."
    )
