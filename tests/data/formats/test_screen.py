"""Screen recordings: what was done lands between the two frames that it lies between, whatever the log's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tacit.check.reader import check_reader
from tacit.data.formats.log import key
from tacit.data.formats.screen import NAMES, SPACE, Screen, read, recognises
from tacit.data.video import Damaged
from tacit.data.view import View

WIDTH, HEIGHT = 200, 100


def filmed(path: Path, *, count: int = 11) -> None:
    """A video of 10 frames a second, each a grey of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for k in range(count):
            picture = np.full((HEIGHT, WIDTH, 3), 5 * k, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def recorded(folder: Path, events: list[dict[str, Any]], *, count: int = 11, **told: Any) -> Path:
    filmed(folder / "video.mkv", count=count)
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    (folder / "metadata.json").write_text(json.dumps(told))
    return folder


def column(reader: Screen, name: str, number: int = 0) -> list[float]:
    actions = reader.episode(number).actions
    assert actions is not None
    return actions[:, NAMES.index(name)].round(5).tolist()


def opened(path: Path, **asked: Any) -> Screen:
    reader = read(path, view=View(**asked))
    assert isinstance(reader, Screen)
    return reader


EVENTS = [
    {"time_stamp": 0.05, "action": "move", "x": 20, "y": 50},
    {"time_stamp": 0.15, "action": "move", "x": 100, "y": 50},
    {"time_stamp": 0.18, "action": "move", "x": 120, "y": 100},
    {"time_stamp": 0.25, "action": "click", "x": 120, "y": 100, "button": "left", "pressed": True},
    {"time_stamp": 0.42, "action": "click", "x": 120, "y": 100, "button": "left", "pressed": False},
    {"time_stamp": 0.5, "action": "scroll", "x": 120, "y": 100, "dx": 0, "dy": 2},
    {"time_stamp": 0.55, "action": "scroll", "x": 120, "y": 100, "dx": 0, "dy": 1},
    {"time_stamp": 0.61, "action": "press", "name": "Key.ctrl_l"},
    {"time_stamp": 0.63, "action": "press", "name": "c"},
    {"time_stamp": 0.64, "action": "release", "name": "c"},
    {"time_stamp": 0.71, "action": "release", "name": "Key.ctrl_l"},
    {"time_stamp": 0.85, "action": "type", "text": "Hi"},
    {"time_stamp": 0.95, "action": "right_click", "x": 0, "y": 0},
]


def test_events_lie_between_the_frames_that_they_lie_between(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "one", EVENTS, task="copy it", screen_width=WIDTH, screen_height=HEIGHT)
    assert recognises(folder)
    assert recognises(tmp_path)
    reader = opened(folder)
    check_reader(reader)
    assert reader.spec.space == SPACE
    assert len(NAMES) == len(set(NAMES)) == 71
    assert reader.texts == ("copy it",)
    assert column(reader, "x") == pytest.approx([0.1, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0])
    assert column(reader, "y") == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 1, 1, 0])
    assert column(reader, "dx") == pytest.approx([0, 0.5, 0, 0, 0, 0, 0, 0, 0, -0.6])
    assert column(reader, "dy") == pytest.approx([0, 0.5, 0, 0, 0, 0, 0, 0, 0, -1])
    assert column(reader, "left") == [0, 0, 1, 1, 1, 0, 0, 0, 0, 0], "held from 0.25 to 0.42"
    assert column(reader, "right") == [0] * 9 + [1]
    assert column(reader, "scroll") == pytest.approx([0, 0, 0, 0, 0, 0.3, 0, 0, 0, 0]), (
        "an event at 0.5 is after frame 5"
    )
    assert column(reader, "key_ctrl") == [0] * 6 + [1, 1, 0, 0]
    assert column(reader, "key_c") == [0] * 6 + [1, 0, 0, 0]
    assert column(reader, "key_h") == column(reader, "key_i") == [0] * 8 + [1, 0]
    assert reader.stray == 0


def test_at_a_lower_rate_and_in_pieces_nothing_is_lost(tmp_path: Path) -> None:
    recorded(tmp_path, EVENTS, screen="200x100")
    half = opened(tmp_path, fps=5)
    assert column(half, "left") == [0, 1, 1, 0, 0]
    assert column(half, "scroll") == pytest.approx([0, 0, 0.3, 0, 0])
    assert column(half, "dx") == pytest.approx([0.5, 0, 0, 0, -0.6])
    whole, parts = opened(tmp_path), opened(tmp_path, longest=0.4)
    check_reader(parts)
    assert parts.lengths.tolist() == [5, 5, 3]
    together = np.concatenate([parts.episode(i).actions for i in range(3)])  # type: ignore[misc]
    assert np.array_equal(together, whole.episode(0).actions)  # type: ignore[arg-type]
    said = [e for i in range(3) for e in parts.events(i)]
    assert [e["row"] for e in said] == EVENTS
    assert [e["step"] for e in parts.events(1)] == [0, 1, 1, 2, 2, 2, 3]
    assert [e["text"] for e in said if e["text"]] == ["Hi"]
    assert (said[1]["time"], said[1]["x"], said[1]["y"]) == (0.15, 0.5, 0.5)


@pytest.mark.parametrize(
    ("scale", "start", "told"),
    [
        (1, 0, {}),
        (1e3, 0, {}),
        (1e9, 0, {}),
        (1, 1.7e9, {"video_start_timestamp": 1.7e9}),
        (1e3, 1.7e9, {"video_start_timestamp": 1.7e9}),
        (1e3, 1.7e9, {"video_start_timestamp": 1.7e12}),
        (1e9, 1.7e9, {"video_start_timestamp": 1.7e9}),
        (1, 0, {"video_start_timestamp": 1.7e9}),
        (1, 300, {"video_start_timestamp": 300}),
        (1e3, 0, {"time_unit": "ms"}),
    ],
)
def test_times_are_known_in_any_unit_from_any_start(
    tmp_path: Path, scale: float, start: float, told: dict[str, Any]
) -> None:
    moments = [(start + e["time_stamp"]) * scale for e in EVENTS]
    if scale == 1e9 and start:  # as integers, exactly
        moments = [int(start) * 10**9 + round(e["time_stamp"] * 1e9) for e in EVENTS]
    moved = [{"timestamp" if k == "time_stamp" else k: v for k, v in e.items()} for e in EVENTS]
    recorded(tmp_path, [e | {"timestamp": t} for e, t in zip(moved, moments, strict=True)], **told)
    reader = opened(tmp_path)
    assert column(reader, "left") == [0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    assert column(reader, "key_ctrl") == [0] * 6 + [1, 1, 0, 0]
    assert reader.stray == 0


def test_dates_without_a_start_are_refused(tmp_path: Path) -> None:
    recorded(tmp_path, [e | {"time_stamp": e["time_stamp"] + 1.7e9} for e in EVENTS])
    with pytest.raises(Damaged, match="gives no video_start_timestamp"):
        read(tmp_path)


def test_what_lies_outside_the_video_is_counted(tmp_path: Path) -> None:
    outside = [{"t": -1, "type": "click", "x": 1, "y": 1}, {"t": 1.0, "type": "click"}, {"t": 1.5, "type": "move"}]
    recorded(tmp_path, [{"t": 0.5, "type": "click", "x": 0.25, "y": 0.5}, *outside])
    reader = opened(tmp_path)
    assert reader.stray == 3
    assert column(reader, "left") == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert len(reader.events(0)) == 1


def test_a_table_of_relative_places_and_raw_motion(tmp_path: Path) -> None:
    filmed(tmp_path / "screen.mkv")
    rows = ["time,event,x,y,dx,dy,button,key,text", "0.12,mouse_move,,,20,10,,,", "0.14,mouse_move,,,20,-50,,,"]
    rows += ["0.32,mousedown,,,,,3,,", "0.51,mouseup,,,,,3,,", "0.61,keydown,,,,,,ArrowLeft,", "0.62,wheel,,,0,-240,,,"]
    (tmp_path / "events.csv").write_text("\n".join(rows) + "\n")
    reader = opened(tmp_path)
    assert column(reader, "dx") == pytest.approx([0, 0.2, 0, 0, 0, 0, 0, 0, 0, 0])
    assert column(reader, "dy") == pytest.approx([0, -0.4, 0, 0, 0, 0, 0, 0, 0, 0])
    assert column(reader, "x") == [0.5] * 10, "nothing is known of where it was"
    assert column(reader, "right") == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0]
    assert column(reader, "key_left") == [0] * 6 + [1, 0, 0, 0], "never released: not held for ever"
    assert column(reader, "scroll") == pytest.approx([0] * 6 + [-0.2, 0, 0, 0])


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("Key.shift_l", "shift"), ("KeyA", "a"), ("A", "a"), ("ArrowLeft", "left"), ("Key.left", "left"),
        ("ctrl_r", "ctrl"), ("ControlLeft", "ctrl"), ("F5", "function"), ("Digit3", "3"), ("#", "3"),
        ("Key.page_up", "pageup"), ("alt_gr", "alt"), ("<13>", "other"), ("", "other"), (" ", "space"),
        ("Meta", "meta"),
    ],
)  # fmt: skip
def test_keys_of_any_recorders_name(told: str, meant: str) -> None:
    assert key(told) == meant


def test_several_recordings_become_one_set_and_a_bad_one_a_fault(tmp_path: Path) -> None:
    recorded(tmp_path / "ann" / "r1", EVENTS)
    recorded(tmp_path / "bob" / "r2", EVENTS[:3], instruction="move")
    recorded(tmp_path / "bob" / "r10", EVENTS[:3])
    (recorded(tmp_path / "bad", EVENTS) / "events.jsonl").write_text('{"time": 1')
    recorded(tmp_path / "two", EVENTS)
    filmed(tmp_path / "two" / "other.mkv")
    (recorded(tmp_path / "meta", EVENTS) / "metadata.json").write_text("[" * 10**5)
    reader = opened(tmp_path)
    check_reader(reader)
    assert reader.names == ("ann/r1", "bob/r2", "bob/r10")
    assert reader.sources == ("ann", "bob", "bob")
    assert reader.texts == (None, "move", None)
    assert set(reader.faults) == {"bad", "two", "meta"}
    assert "holds 2 videos" in reader.faults["two"]


@pytest.mark.parametrize(
    "row",
    [
        {"time": 0.1, "action": "click", "x": "left"}, {"time": "soon", "action": "move"},
        {"time": {}, "action": "move"},
        {"time": 0.1, "action": "click", "x": [1], "y": {}}, {"time": 10**400, "action": "move"},
    ],
)  # fmt: skip
def test_rows_that_make_no_sense_end_in_one_line(tmp_path: Path, row: dict[str, Any]) -> None:
    recorded(tmp_path, [row])
    with pytest.raises(Damaged, match=r"events\.jsonl") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row",
    [{"action": "dance"}, {}, {"time": None}, {"time": 0.2, "action": ["move"]}, {"time": 0.2, "keys": [None, 1]}],
)
def test_rows_that_say_nothing_known_do_nothing(tmp_path: Path, row: dict[str, Any]) -> None:
    recorded(tmp_path, [row, EVENTS[3]])
    assert column(opened(tmp_path), "left") == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_a_folder_without_a_log_is_no_screen_recording(tmp_path: Path) -> None:
    filmed(tmp_path / "video.mkv")
    assert not recognises(tmp_path)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "events.jsonl").touch()
    assert not recognises(tmp_path)
    with pytest.raises(Damaged, match="holds 0 videos"):
        read(tmp_path)
