"""The events of a screen recording: when the pointer was where, what was pressed, scrolled and typed, in whatever words
and units its recorder wrote."""

from __future__ import annotations

import array
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tacit.data.formats.sidecar import lines, number
from tacit.data.video import Damaged

TIME = ("time_stamp", "timestamp", "time", "t")
UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
BUTTONS = ("left", "right", "middle")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz0123456789")
KEYS = (
    *LETTERS, "space", "enter", "tab", "escape", "backspace", "delete", "shift", "ctrl", "alt", "meta",
    "up", "down", "left", "right", "home", "end", "pageup", "pagedown", "minus", "equal", "comma", "period", "slash",
    "semicolon", "quote", "function", "other",
)  # fmt: skip
ALIASES = {
    " ": "space", "\n": "enter", "\r": "enter", "\t": "tab", "return": "enter", "esc": "escape", "del": "delete",
    "control": "ctrl", "option": "alt", "altgr": "alt", "cmd": "meta", "command": "meta", "win": "meta",
    "windows": "meta", "super": "meta", "pgup": "pageup", "pgdn": "pagedown", "-": "minus", "_": "minus",
    "=": "equal", "+": "equal", ",": "comma", "<": "comma", ".": "period", ">": "period", "/": "slash", "?": "slash",
    ";": "semicolon", ":": "semicolon", "'": "quote", '"': "quote", "!": "1", "@": "2", "#": "3", "$": "4",
    "%": "5", "^": "6", "&": "7", "*": "8", "(": "9", ")": "0",
}  # fmt: skip
MOVE, DOWN, UP, HIT, SCROLL, OTHER = range(6)  # HIT: down and up at once
CODES = {name: i for i, name in enumerate((*BUTTONS, *(f"key_{k}" for k in KEYS)))}
WORDS = {
    MOVE: ("move", "mousemove", "moveto", "drag", "mousedrag", "dragto", "motion", "pointermove"),
    DOWN: ("press", "mousedown", "mousepress", "buttondown", "keydown", "keypress", "down", "pointerdown"),
    UP: ("release", "mouseup", "mouserelease", "buttonup", "keyup", "keyrelease", "up", "pointerup"),
    HIT: (
        "click", "mouseclick", "leftclick", "rightclick", "middleclick", "doubleclick", "tripleclick", "tap", "type",
        "typewrite", "typetext", "text", "write", "hotkey", "key", "presskey", "keytap",
    ),
    SCROLL: ("scroll", "wheel", "mousewheel", "mousescroll", "vscroll", "hscroll"),
}  # fmt: skip
MEANS = {word: kind for kind, words in WORDS.items() for word in words}
NOTCH = 120  # what one notch of a wheel is, where its unit is so small


@dataclass(frozen=True)
class Log:
    """Events in order of time: seconds from the video's start, what happened, to which key or button, and where."""

    file: Path
    times: np.ndarray
    kinds: np.ndarray
    codes: np.ndarray  # of CODES; -1 for none
    where: np.ndarray  # (N, 2) x, y in [0, 1]; NaN where it is not told
    moved: np.ndarray  # (N, 2) how far, in screens; for a scroll its notches; NaN where it is not told
    lines: np.ndarray  # the row of the file that each comes from


def about(folder: Path) -> dict[str, Any]:
    """``metadata.json`` of a recording: its start, the size of the screen, the task."""
    file = folder / "metadata.json"
    if not file.is_file():
        return {}
    try:
        if file.stat().st_size > 2**24:
            raise ValueError("it is too long")
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{file} cannot be read ({str(error)[:200]}); mend it or take it away.") from error
    return value if isinstance(value, dict) else {}


def log(file: Path, told: dict[str, Any], *, seconds: float, shape: tuple[int, int]) -> Log:
    """An event log beside a video of so many seconds and such a shape."""
    columns = {k: array.array("d") for k in ("times", "kinds", "codes", "x", "y", "dx", "dy", "lines")}
    try:
        for at, row in enumerate(lines(file)):
            time = number(next((row[k] for k in TIME if row.get(k) not in (None, "")), None))
            if not math.isfinite(time):
                continue
            for kind, code in _meant(row):
                values = (time, kind, code, *_place(row), *_motion(row, kind), at)
                for column, value in zip(columns.values(), values, strict=True):
                    column.append(value)
        held = {k: np.array(v, np.float64) for k, v in columns.items()}
        times = _since(held["times"], told, seconds=seconds)
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(f"{file} cannot be used: {' '.join(str(error).split())[:300]}") from error
    order = np.argsort(times, kind="stable")
    screen = np.array(_screen(told) or (shape[1], shape[0]), np.float64)
    where, moved = np.stack([held["x"], held["y"]], 1), np.stack([held["dx"], held["dy"]], 1)
    pixels = bool((where[np.isfinite(where)] > 1).any())
    where = np.clip(where / screen if pixels else where, 0, 1)
    scrolls = held["kinds"] == SCROLL
    moved[~scrolls] /= screen if pixels or (np.abs(moved[~scrolls]) > 1).any() else 1
    fine = scrolls & (np.abs(np.nan_to_num(moved)).max(1) >= NOTCH)
    moved[fine] /= NOTCH
    kinds, codes, rows = (held[k].astype(np.int64)[order] for k in ("kinds", "codes", "lines"))
    return Log(file, times[order], kinds, codes, where[order], moved[order], rows)


def _since(times: np.ndarray, told: dict[str, Any], *, seconds: float) -> np.ndarray:
    """Times as seconds from the video's start; their unit is told, or known by their size."""
    if not len(times):
        return times
    start, (low, middle, high) = told.get("video_start_timestamp"), np.percentile(times, (5, 50, 95)).tolist()
    begun = number(start)
    if start is not None and not math.isfinite(begun):
        raise ValueError(f"metadata.json gives video_start_timestamp as {str(start)[:40]!r}; wanted a number")
    own, day = UNITS.get(str(told.get("time_unit"))), None if start is None else _dated(begun)
    date = _dated(middle) if low > 0.99 * high else None  # dates lie close together, times since a start do not
    if date is not None and day is None:
        raise ValueError("its times are dates, and metadata.json gives no video_start_timestamp to reckon from")
    if date is not None and day is not None:
        return times / (own or date) - begun / day
    times = times - (begun if start is not None and day is None else 0.0)
    # The coarsest unit in which they lie within the video.
    unit = own or next((u for u in UNITS.values() if np.median(times) / u <= seconds + 1), 1.0)
    return times / unit


def _dated(value: float) -> float | None:
    """The unit in which a number is a date from 2001 on, if it is one."""
    return next((u for u in UNITS.values() if 1e9 <= value / u < 1e10), None)


def _screen(told: dict[str, Any]) -> tuple[float, float] | None:
    """The (width, height) of the screen, as any of the usual names tells it."""
    for key in ("screen", "screen_size", "resolution", "screen_resolution"):
        value = told.get(key)
        if isinstance(value, dict):
            value = [value.get("width"), value.get("height")]
        if isinstance(value, str):
            value = re.findall(r"\d+", value)
        if isinstance(value, list) and len(value) == 2:
            width, height = map(number, value)
            if width >= 1 and height >= 1:
                return width, height
    width, height = number(told.get("screen_width")), number(told.get("screen_height"))
    return (width, height) if width >= 1 and height >= 1 else None


def _meant(row: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """What a row says happened, and to which button or key; a row may hold several keys."""
    word = next((str(row[k]) for k in ("action", "type", "event") if row.get(k)), "")
    plain = re.sub(r"[^a-z]", "", word.lower())
    kind = MEANS.get(plain, OTHER)
    pressed = row.get("pressed")
    if kind == HIT and pressed is not None:
        kind = DOWN if str(pressed).lower() in ("true", "1") else UP
    if kind in (MOVE, SCROLL, OTHER):
        yield kind, -1
        return
    keys = _keys(row)
    button = row.get("button")
    if button not in (None, "") or not keys:
        clicked = "click" in plain or "mouse" in plain or "tap" in plain or "button" in plain
        yield (kind, CODES[_button(button, plain)]) if clicked or button not in (None, "") else (OTHER, -1)
        return
    for key in keys:
        yield kind, CODES[f"key_{key}"]


def _button(told: Any, word: str) -> str:
    """Which button: by name, by X11's number (1 left, 2 middle, 3 right; 0 is left), or by the event's own name."""
    name = str(told).lower() if told not in (None, "") else word
    numbered = {"0": "left", "1": "left", "2": "middle", "3": "right"}.get(name)
    return numbered or next((b for b in BUTTONS if b in name), "left")


def _keys(row: dict[str, Any]) -> list[str]:
    """The keys that a row names, each one of KEYS; typed text is the keys of its letters."""
    told = next((row[k] for k in ("key", "keys", "key_name", "name") if row.get(k) not in (None, "")), None)
    if told is None:
        text = row.get("text")
        return [key(c) for c in dict.fromkeys(text[:10000])] if isinstance(text, str) else []
    if isinstance(told, list):
        return [key(str(k)) for k in told[:20]]
    told = str(told)
    return [key(k) for k in told.split("+")[:20]] if len(told) > 1 and "+" in told.strip("+") else [key(told)]


def key(name: str) -> str:
    """One of KEYS for a key of any recorder's name: "Key.shift_l", "KeyA", "<13>" and "A" among them."""
    plain = name.lower() if len(name) == 1 else re.sub(r"^key[._]?|[<>'\"]", "", name.strip().lower())
    plain = re.sub(r"^(arrow|digit)_?", "", plain)
    plain = re.sub(r"^(shift|ctrl|control|alt|meta|cmd|win|option|super)_?(l|r|left|right|gr)$", r"\1", plain)
    plain = ALIASES.get(plain, plain).replace("_", "")
    if re.fullmatch(r"f\d{1,2}", plain):
        return "function"
    return plain if plain in KEYS else "other"


def _place(row: dict[str, Any]) -> tuple[float, float]:
    at = row.get("coordinate") or row.get("position")
    x, y = at if isinstance(at, list) and len(at) == 2 else (row.get("x"), row.get("y"))
    x, y = number(x), number(y)
    return (x, y) if math.isfinite(x) and math.isfinite(y) else (math.nan, math.nan)


def _motion(row: dict[str, Any], kind: int) -> tuple[float, float]:
    """How far the pointer moved, or the wheel turned, where the row tells it."""
    if kind == SCROLL:
        names = ("dy", "scroll", "delta", "amount", "clicks", "wheel")
        return number(row.get("dx")), number(next((row[k] for k in names if row.get(k) not in (None, "")), None))
    if kind != MOVE:
        return math.nan, math.nan
    return number(row.get("dx")), number(row.get("dy"))
