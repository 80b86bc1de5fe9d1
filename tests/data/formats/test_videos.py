"""Folders of videos: one rate and size for all, what lies beside them, nothing lost between pieces."""

from __future__ import annotations

import io
import json
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tacit.check.reader import check_reader
from tacit.clip import Episode, Space
from tacit.data import Episodes
from tacit.data.formats import reels
from tacit.data.formats.videos import Videos, read, recognises, write
from tacit.data.video import Damaged
from tacit.data.view import Unmet, View


def test_irregular_times_are_followed(studio: Any, tmp_path: Path) -> None:
    times = np.cumsum([0, *([0.1] * 9), 1.0, *([0.1] * 9), 0.05, 0.15, *([0.1] * 8)]).tolist()
    studio.encoded(tmp_path / "clip.mkv", range(30), times=times)
    reader = read(tmp_path)
    assert reader.spec.fps == pytest.approx(10, abs=0.2)
    frames = read(tmp_path, view=View(fps=5)).episode(0).frames
    assert frames is not None
    # to 0.8 every second frame; then 9 (0.9 s) stays until 10 comes at 1.9 s; 20 lies at 2.85 s
    assert studio.shown(frames) == [0, 2, 4, 6, 8, 9, 9, 9, 9, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29]


def test_a_lower_rate_a_part_of_the_picture_and_a_size(studio: Any, tmp_path: Path) -> None:
    studio.encoded(tmp_path / "a.mkv")
    reader = read(tmp_path, view=View(fps=5, crop=(8, 0, 16, 128), size=(8, 64)))
    check_reader(reader)
    frames = reader.episode(0).frames
    assert frames is not None and frames.shape == (20, 8, 64, 3)
    assert studio.shown(frames) == list(range(0, 40, 2))
    with pytest.raises(Unmet, match="nothing that was asked for: 1 slower than 20 a second: 10"):
        read(tmp_path, view=View(fps=20))
    with pytest.raises(Unmet, match="1 not as large as the 128 wide 36 high that the crop takes: 128 wide 32 high"):
        read(tmp_path, view=View(crop=(20, 0, 16, 128)))


def test_mixed_rates_and_sizes_come_to_the_lowest_and_the_commonest(studio: Any, tmp_path: Path) -> None:
    studio.encoded(tmp_path / "a.mkv", range(20))
    studio.encoded(tmp_path / "b.mkv", range(40), fps=20)
    studio.encoded(tmp_path / "c.mkv", range(10), size=(64, 64))
    studio.encoded(tmp_path / "d.webm", range(20), fps=15)
    reader = read(tmp_path, view=View(fit="stretch"))
    check_reader(reader)
    assert (reader.spec.fps, reader.spec.frame) == (10, (32, 128))
    assert reader.lengths.tolist() == [20, 20, 10, 13]
    b, c = reader.episode(1).frames, reader.episode(2).frames
    assert b is not None and studio.shown(b) == list(range(0, 40, 2))
    assert c is not None and studio.shown(c) == list(range(10))
    assert read(tmp_path, view=View(fps=12)).names == ("b.mkv", "d.webm")
    assert "slower than 12 a second (10)" in read(tmp_path, view=View(fps=12)).faults["a.mkv"]


def test_long_video_comes_in_pieces_that_share_a_frame_and_lose_no_step(studio: Any, tmp_path: Path) -> None:
    path = studio.encoded(tmp_path / "nested" / "clip.mkv", range(50))
    np.savez(path.with_suffix(".npz"), actions=np.arange(50), rewards=np.arange(50, dtype=np.float32))
    reader = read(tmp_path, view=View(longest=2))
    check_reader(reader)
    assert reader.lengths.tolist() == [21, 21, 10]
    assert reader.names == tuple(f"nested/clip.mkv {s} s" for s in ("0-2", "2-4", "4-4.9"))
    assert reader.sources == ("nested",) * 3
    episodes = [reader.episode(i) for i in range(3)]
    assert [studio.shown(e.frames) for e in episodes] == [list(range(21)), list(range(20, 41)), list(range(40, 50))]  # type: ignore[arg-type]
    assert np.concatenate([e.actions for e in episodes]).tolist() == list(range(49))  # type: ignore[misc]
    assert len(set(reader.prints)) == 3


def test_pieces_are_bounded_in_bytes_too(studio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.encoded(tmp_path / "clip.mkv", range(30))
    monkeypatch.setattr(reels, "PIECE", 32 * 128 * 3 * 11)
    reader = read(tmp_path, view=View(longest=math.inf))
    assert reader.lengths.tolist() == [11, 11, 10]
    blocks = list(reader.blocks(1, count=4))
    assert [len(b) for b in blocks] == [4, 4, 3]
    assert studio.shown(np.concatenate(blocks)) == list(range(10, 21))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "clip.csv",
            "timestamp,action_0,action_1,reward\n" + "".join(f"{k / 10},{k},{-k},{k % 3}\n" for k in range(12)),
        ),
        ("clip.jsonl", "".join(json.dumps({"action": [k, -k], "reward": k % 3}) + "\n" for k in range(12))),
    ],
)  # fmt: skip
def test_actions_lie_beside_the_video(studio: Any, tmp_path: Path, name: str, text: str) -> None:
    studio.encoded(tmp_path / "clip.mkv", range(12))
    (tmp_path / name).write_text(text)
    reader = read(tmp_path)
    check_reader(reader)
    assert reader.spec.space == Space("continuous", 2, -10, 10)
    episode = reader.episode(0)
    assert episode.actions is not None and episode.actions.tolist() == [[k, -k] for k in range(11)]
    assert episode.rewards is not None and episode.rewards.tolist() == [k % 3 for k in range(11)]
    half = read(tmp_path, view=View(fps=5)).episode(0)
    assert half.actions is not None and half.actions.tolist() == [[2 * k + 0.5, -2 * k - 0.5] for k in range(5)]
    assert half.rewards is not None and half.rewards.tolist() == [1, 2, 3, 1, 2]


@pytest.mark.parametrize("rows", [11, 12])
def test_choices_are_whole_numbers_and_an_empty_cell_is_no_label(studio: Any, tmp_path: Path, rows: int) -> None:
    studio.encoded(tmp_path / "clip.mkv", range(12))
    (tmp_path / "clip.csv").write_text("action\n" + "".join("\n" if k == 4 else f"{k % 3}\n" for k in range(rows)))
    text = (tmp_path / "clip.csv").read_text().replace("\n\n", '\n""\n')  # an empty line is no row
    (tmp_path / "clip.csv").write_text(text)
    reader = read(tmp_path)
    assert reader.spec.space == Space("discrete", 3)
    actions = reader.episode(0).actions
    assert actions is not None and actions.tolist() == [-1 if k == 4 else k % 3 for k in range(11)]


def test_times_beside_the_video_go_before_its_own(studio: Any, tmp_path: Path) -> None:
    studio.encoded(tmp_path / "clip.mkv", range(12))
    np.savez(tmp_path / "clip.npz", timestamps=np.arange(12) / 4, state=np.arange(24).reshape(12, 2))
    reader = read(tmp_path, view=View(fps=2))
    assert reader.lengths.tolist() == [6]
    episode = reader.episode(0)
    assert episode.state is not None and episode.state[:, 0].tolist() == [0, 4, 8, 12, 16, 20]
    assert read(tmp_path).spec.fps == 4


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("clip.csv", "action\n1\n2\n", "actions have 2 rows beside 12 frames; wanted 12 or 11"),
        ("clip.csv", "action\n" + "north\n" * 12, "'north'"),
        ("clip.jsonl", '{"action": 1}\n{"action": [1, 2]}\n', "2 numbers of actions"),
        ("clip.jsonl", "[" * 100000, "line 1"),
        ("clip.jsonl", '{"timestamp": 1}\n' * 12, "do not run forward"),
        ("clip.npz", b"PK\x03\x04 and no more", "is not a zip file"),
    ],
)
def test_a_sidecar_that_cannot_be_used_is_named(studio: Any, tmp_path: Path, name: str, content: Any, why: str) -> None:
    studio.encoded(tmp_path / "clip.mkv", range(12))
    studio.encoded(tmp_path / "fine.mkv", range(12))
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    reader = read(tmp_path)
    assert reader.names == ("fine.mkv",)
    assert why in reader.faults["clip.mkv"]
    assert "\n" not in reader.faults["clip.mkv"]


def test_arrays_that_claim_too_much_are_refused_by_their_header(studio: Any, tmp_path: Path) -> None:
    studio.encoded(tmp_path / "clip.mkv", range(12))
    header = {"descr": "<f8", "fortran_order": False, "shape": (12, 10**9)}
    data = io.BytesIO()
    np.lib.format.write_array_header_1_0(data, header)
    with zipfile.ZipFile(tmp_path / "clip.npz", "w") as packed:
        packed.writestr("actions.npy", data.getvalue())
    with pytest.raises(Damaged, match="it says it holds 12x1000000000"):
        read(tmp_path)


def recordings(space: Space | None) -> list[Episode]:
    random, out = np.random.default_rng(0), []
    for k, (length, source) in enumerate([(9, "expert"), (1, "play/kitchen"), (7, ""), (5, "a:b/../c")]):
        actions = None if space is None else np.stack([space.sample(random) for _ in range(length)])[: length - 1]
        if actions is not None and k == 2:
            actions[1:3] = space.blank(2) if space is not None else 0
        out.append(
            Episode(
                frames=random.integers(0, 256, (length, 20, 30, 3), dtype=np.uint8),
                state=random.normal(size=(length, 2)).astype(np.float32),
                actions=actions if length > 1 else None,
                rewards=random.normal(size=length - 1).astype(np.float32) if length > 1 else None,
                text=None if k == 1 else f"put {k} away",
                source=source,
                success=[True, False, None, True][k],
                split=["train", "valid", "", ""][k],
            )
        )
    return out


@pytest.mark.parametrize("fps", [10.0, 29.97, 0.5])
@pytest.mark.parametrize("space", [None, Space("discrete", 6, names=tuple("abcdef")), Space("continuous", 3, -2, 2)])
def test_what_is_written_comes_back_bit_for_bit(tmp_path: Path, space: Space | None, fps: float) -> None:
    given = Episodes.of(recordings(space), space=space, fps=fps)
    write(given, tmp_path / "out")
    reader = read(tmp_path / "out", view=View(longest=math.inf))
    check_reader(reader)
    assert reader.spec == type(reader.spec)(
        frame=(20, 30), state=2, space=space, fps=fps, rewards=True, text=True, name="out"
    )
    by_source = {e.source: e for e in (reader.episode(i) for i in range(4))}
    assert (tmp_path / "out" / "play" / "kitchen").is_dir()
    for wanted in recordings(space):
        got = by_source[wanted.source]
        for name in ("frames", "state", "actions", "rewards", "text", "success", "split"):
            a, b = getattr(wanted, name), getattr(got, name)
            assert (a is None) == (b is None)
            if isinstance(a, np.ndarray):
                assert a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
            else:
                assert a == b
    with pytest.raises(FileExistsError):
        write(given, tmp_path / "out")


def test_a_single_video_is_opened_by_its_own_path_and_again_from_what_it_tells(studio: Any, tmp_path: Path) -> None:
    path = studio.encoded(tmp_path / "clip.mkv", range(12))
    view = View(fps=5)
    reader = read(path, view=view)
    assert (reader.names, reader.sources, reader.spec.name) == (("clip.mkv",), ("",), "clip")
    opening = json.loads(json.dumps(reader.opening))
    again = Videos(Path(opening["path"]), view=View.of(opening["view"]))
    assert again.prints == reader.prints
    assert again.lengths.tolist() == [6]
    copy = tmp_path / "other" / "renamed.mkv"
    copy.parent.mkdir()
    shutil.copy(path, copy)
    assert read(copy, view=view).prints == reader.prints
    assert read(copy).prints != reader.prints
    assert read(copy, view=View(fps=5, crop=(0, 0, 8, 8))).prints != reader.prints


def test_a_piece_is_known_again_in_a_copy_that_was_cut(studio: Any, tmp_path: Path) -> None:
    whole = studio.encoded(tmp_path / "whole.mp4", range(100))
    data = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * 0.8)])
    reader = read(tmp_path, view=View(longest=2))
    mine = [[p for p, n in zip(reader.prints, reader.names, strict=True) if f in n] for f in ("whole", "cut")]
    assert len(set(mine[0])) == 5
    assert mine[0][:2] == mine[1][:2]
    assert set(mine[0]) - set(mine[1])


def test_names_are_in_the_order_that_people_number(studio: Any, tmp_path: Path) -> None:
    for k in (10, 9, 1):
        studio.encoded(tmp_path / f"clip{k}.mkv", range(3))
    assert read(tmp_path).names == ("clip1.mkv", "clip9.mkv", "clip10.mkv")
    with pytest.raises(ValueError, match="The camera 'front' was asked for"):
        read(tmp_path, camera="front")


def test_nothing_is_recognised_where_nothing_lies(tmp_path: Path) -> None:
    assert not recognises(tmp_path / "none")
    assert not recognises(tmp_path)
    assert not recognises(Path("bad\0name"))
    with pytest.raises(Damaged, match="No file of a known kind"):
        read(tmp_path)


def test_what_lies_beside_goes_with_a_video_as_far_as_it_is_whole(studio: Any, tmp_path: Path) -> None:
    file = studio.encoded(tmp_path / "a.mp4", range(40))
    np.savez(tmp_path / "a.npz", state=np.arange(40.0)[:, None], actions=np.arange(39.0)[:, None])
    data, half = bytearray(file.read_bytes()), 0
    half = data.find(b"mdat") + (len(data) - data.find(b"mdat")) * 2 // 3
    data[half : half + 400] = bytes(400)
    file.write_bytes(data)
    reader = read(tmp_path)
    with pytest.raises(Damaged) as error:
        reader.episode(0)
    good = error.value.good
    assert good is not None and 2 <= good < 40
    found = reader.prefix(0, good)
    assert found.state is not None and found.actions is not None
    assert found.state[-1] == good - 1 and found.actions[-1] == good - 2


def test_a_source_too_long_for_a_file_system_is_cut(tmp_path: Path) -> None:
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    given = Episodes.of([Episode(frames=frames, source="機" * 150)])
    write(given, tmp_path / "v")
    assert read(tmp_path / "v").sources == given.sources
