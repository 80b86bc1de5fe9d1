"""What lies beside a recording's pictures: its actions, states, rewards and times, in an .npz, .jsonl or .csv file."""

from __future__ import annotations

import array
import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tacit.clip import Episode, Space
from tacit.data.formats.archive import Archive
from tacit.data.reader import Spec
from tacit.data.video import Damaged

SUFFIXES = (".npz", ".jsonl", ".csv")  # the first that is there is read
TEXT = 2**27  # bytes of a table written as text
CELLS = 2**26  # numbers in one column of a sidecar
NAMES = {
    "action": "actions",
    "reward": "rewards",
    "states": "state",
    "timestamp": "times",
    "timestamps": "times",
    "time": "times",
}
COLUMNS = ("actions", "state", "rewards", "times")


@dataclass(frozen=True)
class Notes:
    """What is known of one recording beside its pictures; one row a frame, or one a transition."""

    actions: np.ndarray | None = None
    state: np.ndarray | None = None
    rewards: np.ndarray | None = None
    times: np.ndarray | None = None  # seconds
    text: str | None = None
    source: str | None = None
    success: bool | None = None
    split: str = ""
    fps: float | None = None
    space: Space | None = None


def beside(stem: Path) -> Path | None:
    """The sidecar of a recording, ``stem`` being its path without a suffix."""
    return next((f for s in SUFFIXES if (f := stem.with_name(stem.name + s)).is_file()), None)


def lines(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a .jsonl or .csv table one by one, or an error that names the file and the line."""
    if file.stat().st_size > TEXT:
        raise Damaged(f"{file} has {file.stat().st_size / 1e6:.0f} MB; a table of text may have {TEXT / 1e6:.0f} MB.")
    at = 0
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            if file.suffix == ".csv":
                for row in csv.DictReader(text):
                    at += 1
                    yield {k.strip(): v for k, v in row.items() if k}
                return
            for line in text:
                at += 1
                if not line.strip():
                    continue
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise ValueError(f"it holds a {type(value).__name__}; wanted an object")
                yield value
    except (ValueError, csv.Error, RecursionError, OSError) as error:
        if isinstance(error, Damaged):
            raise
        reason = " ".join(str(error).split())[:200]
        raise Damaged(f"{file} cannot be read near line {at} ({reason}); mend it or take it away.") from error


def number(value: Any) -> float:
    """A cell as a number; an empty one is one that nobody recorded."""
    if value is None or value == "":
        return math.nan
    if not isinstance(value, int | float | str):
        raise ValueError(f"a cell holds a {type(value).__name__}; wanted a number")
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"a cell holds {str(value)[:40]!r}; wanted a number") from error


def notes(file: Path, count: int) -> Notes:
    """A sidecar, held to the number of frames that it lies beside."""
    try:
        readers = {".npz": _packed, ".npy": _packed, ".jsonl": _table, ".csv": _table}
        values = readers.get(file.suffix, _stamps)(file, count)
        known = {k: v for k, v in values.items() if k not in COLUMNS}
        columns: dict[str, Any] = {k: _column(k, values[k], count) for k in COLUMNS if k in values}
        told = Notes(**columns, **known)
        if told.space is not None and told.actions is not None:
            told.space.check(told.actions, count - 1)
        return told
    except (ValueError, TypeError, OSError, EOFError, RuntimeError) as error:
        if isinstance(error, Damaged):
            raise
        reason = " ".join(str(error).split())[:200]
        raise Damaged(f"{file} cannot be used ({reason}); mend it or take it away.") from error


def _column(name: str, value: np.ndarray, count: int) -> np.ndarray:
    """One column as an episode holds it: a last action that leads nowhere is dropped."""
    if value.dtype.kind not in "iufb":
        raise ValueError(f"{name} are {value.dtype}; wanted numbers")
    allowed = (count, count - 1) if name in ("actions", "rewards") else (count,)
    if value.ndim < 1 or len(value) not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise ValueError(f"{name} have {len(value) if value.ndim else 0} rows beside {count} frames; wanted {wanted}")
    if name in ("actions", "rewards"):
        value = value[: count - 1]
    if name == "times":
        value = value.reshape(count).astype(np.float64)
        if not np.isfinite(value).all() or (np.diff(value) <= 0).any():
            raise ValueError("its timestamps are missing or do not run forward")
        return value
    if name == "rewards":
        return value.reshape(count - 1).astype(np.float32)
    if name == "actions" and value.ndim == 1 and value.dtype.kind in "iub":
        return value.astype(np.int64)
    return value.reshape(len(value), math.prod(value.shape[1:])).astype(np.float32)


def _packed(file: Path, count: int) -> dict[str, Any]:
    """The arrays of an .npz file, or the one that an .npy file is called after, looked at before they are read."""
    values: dict[str, Any] = {}
    held = Archive(file)
    for own in held.names:
        called = own or file.stem
        name = NAMES.get(called, called)
        if name not in Notes.__dataclass_fields__:
            continue
        shape, dtype = held.head(own)[:2]
        if dtype.hasobject or math.prod(shape) > CELLS or dtype.itemsize > 2**20:
            raise ValueError(f"{name} is {dtype} {shape}; wanted at most {CELLS} numbers")
        if name in COLUMNS and (not shape or not count - 1 <= shape[0] <= count):
            raise ValueError(f"{name} is {shape} beside {count} frames; wanted a row each")
        value = held.rows(own)
        values[name] = value if name in COLUMNS else _plain(name, value.item())
    return values


def _stamps(file: Path, count: int) -> dict[str, Any]:
    """Timestamps in plain text, one a line."""
    if file.stat().st_size > 64 * count + 1024:
        raise ValueError(f"it is too long for {count} timestamps")
    return {"times": np.array([number(line) for line in file.read_text().split()])}


def _plain(name: str, value: Any) -> Any:
    if name == "space":
        return Space(**json.loads(str(value)))
    if name == "fps":
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"fps is {value}; wanted frames a second, above 0")
        return float(value)
    return bool(value) if name == "success" else str(value)


def _table(file: Path, count: int) -> dict[str, Any]:
    """The columns of a table of text: ``action`` as a list or a number, or ``action_0`` and so on; also ``state``."""
    flat: dict[str, array.array[float]] = {}
    widths: dict[str, int] = {}
    whole, rows = True, 0
    for rows, row in enumerate(lines(file), 1):
        if rows > count:
            raise ValueError(f"it has more rows than the {count} frames it lies beside")
        found = _cells(row)
        if rows == 1:
            widths = {k: len(v) for k, v in found.items()}
            flat = {k: array.array("d") for k in found}
        for name, width in widths.items():
            cells = found.get(name) or [None] * width
            if len(cells) != width and set(cells) == {None}:
                cells = [None] * width
            if len(cells) != width:
                raise ValueError(f"row {rows} has {len(cells)} numbers of {name}; the first had {width}")
            flat[name].extend(number(c) for c in cells)
            whole &= name != "actions" or all(_counts(c) for c in cells)
        if set(found) - set(widths):
            raise ValueError(f"row {rows} has {sorted(set(found) - set(widths))}, which the first had not")
    values = {k: np.array(v).reshape(rows, widths[k]) for k, v in flat.items()}
    if "actions" in values and widths["actions"] == 1 and whole and not _listed(file):
        choices = np.nan_to_num(values["actions"][:, 0], nan=-1.0)
        if np.abs(choices).max(initial=0) > 2**31:
            raise ValueError("an action is above 2**31, and no choice among so many")
        values["actions"] = choices.astype(np.int64)
    return values


def _listed(file: Path) -> bool:
    """Whether a single number of an action is one of a vector: written as a list, or as the column action_0."""
    first = next(lines(file), {})
    return "action_0" in first or isinstance(first.get("action", first.get("actions")), list)


def _counts(cell: Any) -> bool:
    """Whether a cell could be one of so many choices."""
    if isinstance(cell, str):
        return not cell or bool(re.fullmatch(r"-?\d+", cell.strip()))
    return cell is None or (isinstance(cell, int) and not isinstance(cell, bool))


def _cells(row: dict[str, Any]) -> dict[str, list[Any]]:
    """The known columns of one row, numbered ones gathered in order."""
    found: dict[str, list[Any]] = {}
    numbered: dict[str, list[tuple[int, Any]]] = {}
    for key, value in row.items():
        match = re.fullmatch(r"(actions?|states?)_(\d{1,5})", key)
        own = match[1] if match else key
        name = NAMES.get(own, own)
        if name not in COLUMNS:
            continue
        if match:
            numbered.setdefault(name, []).append((int(match[2]), value))
        else:
            found[name] = value if isinstance(value, list) else [value]
    return found | {k: [v for _, v in sorted(cells, key=lambda c: c[0])] for k, cells in numbered.items()}


def write_notes(file: Path, episode: Episode, *, spec: Spec) -> None:
    """All of an episode but its pictures, so that ``notes`` gives it back bit for bit."""
    values: dict[str, Any] = {"source": episode.source, "fps": float(spec.fps)}
    for name in ("actions", "state", "rewards", "text", "success"):
        if (value := getattr(episode, name)) is not None:
            values[name] = value
    if episode.split:
        values["split"] = episode.split
    if spec.space is not None:
        values["space"] = json.dumps(asdict(spec.space))
    np.savez_compressed(file, **values)


def home(source: str) -> PurePosixPath:
    """The folder of a source: its own name where that is a plain path, else one as like it as a path may be."""
    plain = (re.sub(r"[^\w .+-]", "_", part).encode()[:200].decode(errors="ignore") for part in source.split("/"))
    parts = [part.strip(" .") or "_" for part in plain]
    return PurePosixPath(*parts) if source else PurePosixPath()


def agreed(found: Sequence[Notes]) -> Space | None:
    """The space of the actions of several recordings: the one that is told, or what their values span."""
    told = next((n.space for n in found if n.space is not None), None)
    held = [n.actions for n in found if n.actions is not None]
    if told is not None or not held:
        return told
    if held[0].ndim == 1:
        return Space("discrete", max(2, max(int(a.max(initial=0)) for a in held) + 1))
    spans = [(float(np.nanmin(a)), float(np.nanmax(a))) for a in held if np.isfinite(a).any()]
    low, high = min((s[0] for s in spans), default=-1.0), max((s[1] for s in spans), default=1.0)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        low, high = -1.0, 1.0
    return Space("continuous", held[0].shape[1], low, high)
