"""Files: what is missing, cut off, counted wrongly or mixed is named, and nothing is decoded twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tacit.data as data
from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.inspect import FAIL, WARN, inspect
from tacit.data.inspect.films import films
from tacit.data.reader import Reader, Spec
from tacit.data.record import Writer
from tacit.data.video import Damaged
from tests.data.inspect.planted import KEY, LENGTH, changed, clean, fired, metadata


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset with one file an episode, so that one can be damaged alone."""
    whole = clean(6)
    with Writer(tmp_path / "data", whole.spec, group=1) as writer:
        for i in range(6):
            writer.add(whole.episode(i), origin=f"film-{i}.mp4")
    return tmp_path / "data"


def videos(folder: Path) -> list[Path]:
    return sorted((folder / "videos").rglob("*.mp4"))


def test_a_whole_dataset_on_disk_passes(folder: Path) -> None:
    assert fired(inspect(data.open(folder))) == {}
    assert fired(inspect(data.open(folder), decode=False)) == {}


def test_a_truncated_video_is_named_with_its_last_good_frame(folder: Path) -> None:
    film = videos(folder)[3]
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 6 // 10])
    found = inspect(data.open(folder))
    assert fired(found) == {"unreadable": (3,)} and found.code == 2
    assert "film-3.mp4" in found["unreadable"].words
    good = found["unreadable"].facts["good"]["3"]
    assert 1 < good < LENGTH
    assert good - 1 <= found.films[3].seen <= good  # what is whole was looked at


def test_a_missing_video_is_named_even_without_decoding(folder: Path) -> None:
    videos(folder)[5].unlink()
    for decode in (True, False):
        assert fired(inspect(data.open(folder), decode=decode)) == {"unreadable": (5,)}


def edited(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(file)), file)


@pytest.mark.parametrize("decode", [True, False])
def test_rows_that_lack_are_a_wrong_length_and_not_two_faults(folder: Path, decode: bool) -> None:
    edited(sorted((folder / "data").rglob("*.parquet"))[2], lambda t: t.slice(0, LENGTH - 5))
    found = inspect(data.open(folder), decode=decode)
    assert fired(found) == {"lengths": (2,)} and found["lengths"].grade == FAIL


@pytest.mark.parametrize("decode", [True, False])
def test_uneven_times_are_found(folder: Path, decode: bool) -> None:
    def late(table: pa.Table) -> pa.Table:
        times = table["timestamp"].to_numpy().copy()
        times[20:] += 0.3
        return table.set_column(table.schema.get_field_index("timestamp"), "timestamp", pa.array(times))

    edited(sorted((folder / "data").rglob("*.parquet"))[1], late)
    found = inspect(data.open(folder), decode=decode)
    assert fired(found) == {"lengths": (1,)} and found["lengths"].grade == WARN
    assert "off by up to 3.0 frames, from frame 20" in found["lengths"].words


def test_tables_that_contradict_each_other_are_found(folder: Path) -> None:
    def shifted(table: pa.Table) -> pa.Table:
        name = f"videos/{KEY}/to_timestamp"
        return table.set_column(table.schema.get_field_index(name), name, pa.array(table[name].to_numpy() + 2))

    edited(sorted((folder / "meta" / "episodes").rglob("*.parquet"))[4], shifted)
    assert fired(inspect(data.open(folder), decode=False)) == {"lengths": (4,)}


@pytest.mark.slow
def test_several_processes_and_a_cluster_see_what_one_sees(folder: Path) -> None:
    pytest.importorskip("ray")
    script = (
        "import json, sys, tacit.data as d\nfrom tacit.data.inspect import inspect\n"
        "if __name__ == '__main__':\n"
        "    ways = [(1, 'local'), (2, 'local'), (2, 'ray')]\n"
        "    print(json.dumps([inspect(d.open(sys.argv[1]), workers=n, engine=e).plain() for n, e in ways]))\n"
    )
    file = folder.parent / "both.py"
    file.write_text(script)
    said = subprocess.run([sys.executable, str(file), str(folder)], capture_output=True, text=True, check=True).stdout
    one, two, ray = json.loads(said)
    assert one == two == ray and one["decoded"] == one["episodes"]


class Films(Reader):
    """Long films of another reader's kind: frames in blocks, counted, one of them breaking off."""

    def __init__(self, count: int, *, length: int, breaks: int | None = None) -> None:
        self.lengths = np.full(count, length)
        self.spec = Spec(frame=(96, 128), fps=10.0)
        self.breaks, self.asked = breaks, [0] * count
        self.faults = MappingProxyType({"notes.mov": "it has no picture"} if breaks is not None else {})
        self.mixed = {"rates": {30.0: 3, 24.0: 1}, "sizes": {(96, 128): 4}} if breaks is not None else {}

    def episode(self, number: int) -> Episode:
        raise AssertionError("the pictures come in blocks; nobody asks for an hour at once")

    def blocks(self, number: int, *, count: int = 256) -> Iterator[np.ndarray]:
        self.asked[number] += 1
        random = np.random.default_rng(number)
        picture = random.integers(0, 200, (96, 128, 3), dtype=np.uint8)
        for start in range(0, int(self.lengths[number]), count):
            if number == self.breaks and start + count > 100:
                raise Damaged("film breaks off", good=100)
            block = np.repeat(picture[None], min(count, int(self.lengths[number]) - start), 0)
            for t, frame in enumerate(block, start):
                x, y = (7 * t * (number + 1)) % 96, (5 * t) % 64
                frame[y : y + 24, x : x + 24] = 255
            yield block


def test_faults_breaks_and_mixtures_of_a_reader_of_films_are_told() -> None:
    found = inspect(Episodes(Films(4, length=200, breaks=2)))
    assert fired(found) == {"unreadable": (2,), "mixtures": ()}
    assert found["unreadable"].facts["good"] == {"2": 100} and found.films[2].seen in (99, 100)
    assert "100 of 200 frames are whole" in found["unreadable"].words and "notes.mov" in found["unreadable"].words
    assert "30 a second: 3" in found["mixtures"].words


def test_each_is_decoded_once_and_at_most_so_many() -> None:
    reader = Films(30, length=600)
    told: list[tuple[int, int]] = []
    found = inspect(Episodes(reader), most=5, progress=lambda done, total: told.append((done, total)))
    assert sum(reader.asked) == 5 and max(reader.asked) == 1
    assert [f.number for f in found.films] == [0, 7, 14, 22, 29]
    assert told == [(i, 5) for i in range(1, 6)]
    assert "the 5 episodes looked at (of 30)" in found["cuts"].words


def test_memory_does_not_grow_with_the_length_of_films() -> None:
    def most(length: int) -> int:
        reader = Films(2, length=length)
        tracemalloc.start()
        try:
            films_ = list(films(Episodes(reader), np.arange(2)))
            assert all(film.seen == length for film in films_)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    frame = 96 * 128 * 3
    assert most(2048) - most(512) < 0.1 * (2048 - 512) * frame  # a few numbers a frame are kept, and small pictures


def test_ten_thousand_episodes_of_tables_take_under_a_second(tmp_path: Path) -> None:
    path = metadata(tmp_path / "many", episodes=10_000)
    began = time.perf_counter()
    found = inspect(data.open(path), decode=False)
    assert time.perf_counter() - began < 1.0
    assert fired(found) == {} and found.counts["episodes"] == 10_000
    assert found["labels"].facts["n"] == 200


def test_short_episodes_are_counted_in_seconds() -> None:
    def brief(episode: Episode) -> Episode:
        return episode.replace(frames=episode.frames[:4], state=episode.state[:4], actions=episode.actions[:3])

    whole = changed(clean(), _8=brief)
    assert fired(inspect(whole)) == {"short": (8,)}
    assert fired(inspect(whole, horizon=0.3)) == {}
    assert inspect(whole, horizon=60.0)["short"].grade == FAIL


def test_an_episode_of_one_frame_is_short_and_not_broken(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for space in (Space("continuous", 2), Space("discrete", 3)):
        episodes = [
            Episode(frames=random.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8), actions=space.blank(n - 1))
            for n in (1, 2, 9, 9)
        ]
        data.save(Episodes.of(episodes, space=space, fps=10), tmp_path / space.kind)
        for decode in (True, False):
            found = inspect(data.open(tmp_path / space.kind), decode=decode)
            assert found["unreadable"].grade == "PASS" and found["short"].episodes == (0, 1)
