"""Repairing what crashes leave: every episode that verifies is kept, and the source stays as it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tacit.data as data
from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.repair import repair


def written(path: Path) -> Episodes:
    random = np.random.default_rng(0)
    episodes = [
        Episode(
            frames=random.integers(0, 256, (8 + i, 16, 16, 3), dtype=np.uint8),
            actions=random.integers(0, 4, 7 + i),
            state=random.normal(size=(8 + i, 2)).astype(np.float32),
            text=f"task {i % 2}",
        )
        for i in range(6)
    ]
    data.save(Episodes.of(episodes, space=Space("discrete", 4), fps=5), path, group=18)  # three, two and one in a file
    return Episodes.of(episodes, space=Space("discrete", 4), fps=5)


def cut(file: Path, share: float = 0.6) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def prints(folder: Path) -> dict[str, str]:
    return {
        str(f.relative_to(folder)): hashlib.md5(f.read_bytes()).hexdigest() for f in folder.rglob("*") if f.is_file()
    }


def only(folder: Path, pattern: str, number: int = 0) -> Path:
    return sorted(folder.glob(pattern))[number]


DAMAGE: dict[str, tuple[Callable[[Path], Any], list[int]]] = {  # what is done to it, and which episodes must survive
    "no info.json": (lambda d: (d / "meta" / "info.json").unlink(), [0, 1, 2, 3, 4, 5]),
    "info.json cut": (lambda d: cut(d / "meta" / "info.json"), [0, 1, 2, 3, 4, 5]),
    "no side file and no info": (
        lambda d: [(d / "meta" / n).unlink() for n in ("info.json", "tacit.json", "stats.json")],
        [0, 1, 2, 3, 4, 5],
    ),
    "an episode table without its footer": (
        lambda d: cut(only(d, "meta/episodes/**/*.parquet", 1)),
        [0, 1, 2, 3, 4, 5],
    ),
    "no tasks": (lambda d: (d / "meta" / "tasks.parquet").unlink(), [0, 1, 2, 3, 4, 5]),
    "rows without their footer": (lambda d: cut(only(d, "data/**/*.parquet", 2)), [0, 1, 2, 3, 4]),
    "a video that cannot be opened": (lambda d: cut(only(d, "videos/**/*.mp4", 1), 0.02), [0, 1, 2, 5]),
    "no table and rows without their footer": (
        lambda d: (cut(only(d, "data/**/*.parquet", 2)), (d / "meta" / "info.json").unlink()),
        [0, 1, 2, 3, 4],
    ),
}


@pytest.mark.parametrize(("damage", "survivors"), DAMAGE.values(), ids=DAMAGE)
def test_what_verifies_is_kept_and_the_source_is_not_touched(
    damage: Callable[[Path], Any], survivors: list[int], tmp_path: Path
) -> None:
    whole = written(tmp_path / "d")
    damage(tmp_path / "d")
    before = prints(tmp_path / "d")
    made = repair(tmp_path / "d", tmp_path / "out", progress=False)
    assert prints(tmp_path / "d") == before
    assert len(made.data) == len(survivors)
    for i, number in enumerate(survivors):
        got, given = made.data.episode(i), whole.episode(number)
        assert np.array_equal(got.frames, given.frames) and np.array_equal(got.actions, given.actions)  # type: ignore[arg-type]
        assert np.array_equal(got.state, given.state)  # type: ignore[arg-type]
    assert len(survivors) == 6 or made.left
    assert not list(tmp_path.glob("*.rebuilt"))


def test_an_episode_that_breaks_off_is_kept_as_far_as_it_goes(tmp_path: Path) -> None:
    import av

    whole, video = written(tmp_path / "d"), tmp_path / "d" / "videos" / "observation.images.main" / "chunk-000"
    with av.open(str(video / "file-001.mp4")) as source:  # one that a recorder never finished: 13 of its 23 frames
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)][:13]
    from tacit.data.video import Encoder

    with Encoder(video / "file-001.mp4", fps=5, frame=(16, 16)) as encoder:
        encoder.add(frames)
    made = repair(tmp_path / "d", tmp_path / "out", progress=False)
    assert made.data.lengths.tolist() == [8, 9, 10, 11, 2, 13] and list(made.cut) == ["episode 4"]
    assert np.array_equal(made.data.episode(4).frames, whole.episode(4).frames[:2])  # type: ignore[index]
    assert np.array_equal(made.data.episode(4).actions, whole.episode(4).actions[:1])  # type: ignore[index]


def test_nothing_to_save_is_an_error(tmp_path: Path) -> None:
    written(tmp_path / "d")
    for file in (tmp_path / "d" / "data").rglob("*.parquet"):
        cut(file, 0.1)
    with pytest.raises(ValueError, match="could be read|Nothing of"):
        repair(tmp_path / "d", tmp_path / "out", progress=False)


def test_it_never_writes_into_what_it_repairs(tmp_path: Path) -> None:
    written(tmp_path / "d")
    with pytest.raises(ValueError, match="never touched"):
        repair(tmp_path / "d", tmp_path / "d" / "fixed")


def test_rates_that_are_not_whole_and_older_layouts_are_mended_too(tmp_path: Path) -> None:
    from tacit.data.formats import FORMATS

    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (9, 16, 16, 3), dtype=np.uint8) for _ in range(2)]
    FORMATS["arrays"].write(Episodes.of([Episode(frames=f) for f in frames], fps=29.97), tmp_path / "n")
    made = repair(tmp_path / "n", tmp_path / "a", progress=False).data
    assert made.spec.fps == 30 and np.array_equal(made.episode(1).frames, frames[1])  # type: ignore[arg-type]
    old = tmp_path / "old"
    (old / "meta").mkdir(parents=True)
    for k in range(2):
        rows = {
            "action": pa.array([0.0, 0.5, 1.0], pa.float32()),
            "observation.state": pa.array([1.0, 2, 3], pa.float32()),
        }
        rows |= {"frame_index": pa.array(range(3)), "episode_index": pa.array([k] * 3)}
        (old / "data").mkdir(exist_ok=True)
        pq.write_table(pa.table(rows), old / "data" / f"{k}.parquet")
    features = {n: {"dtype": "float32", "shape": [1]} for n in ("action", "observation.state")}
    info = {"codebase_version": "v2.1", "fps": 10, "total_episodes": 2, "features": features}
    (old / "meta" / "info.json").write_text(json.dumps(info | {"data_path": "data/{episode_index}.parquet"}))
    told = "".join(json.dumps({"episode_index": k, "length": 3, "tasks": ["x"]}) + "\n" for k in range(2))
    (old / "meta" / "episodes.jsonl").write_text(told)
    whole = repair(old, tmp_path / "b", progress=False).data
    assert whole.lengths.tolist() == [3, 3] and whole.episode(0).actions[1, 0] == 0.5  # type: ignore[index]


def test_of_several_cameras_one_is_named(tmp_path: Path) -> None:
    written(tmp_path / "d")
    file = tmp_path / "d" / "meta" / "info.json"
    info = json.loads(file.read_text())
    info["features"]["observation.images.wrist"] = info["features"]["observation.images.main"]
    file.write_text(json.dumps(info))
    with pytest.raises(ValueError, match="--camera"):
        repair(tmp_path / "d", tmp_path / "out", progress=False)
    assert len(repair(tmp_path / "d", tmp_path / "out", camera="main", progress=False).data) == 6


def tableless(path: Path) -> Path:
    """A dataset whose episode tables are gone, as a crash or a copy that was broken off leaves it."""
    shutil.rmtree(path / "meta" / "episodes")
    return path


def spoiled(file: Path, how: str) -> None:
    """A video file that is gone, that cannot be opened, or that ends early behind a whole header."""
    if how == "missing":
        file.unlink()
    else:
        cut(file, {"unopened": 0.02, "short": 0.7}[how])


def same(got: Episode, given: Episode) -> bool:
    return all(np.array_equal(getattr(got, k), getattr(given, k)) for k in ("frames", "actions", "state"))


@pytest.mark.parametrize("how", ["missing", "unopened", "short"])
@pytest.mark.parametrize("broken", [0, 1, 2])
def test_without_tables_no_episode_is_shown_with_the_video_of_another(how: str, broken: int, tmp_path: Path) -> None:
    whole = written(tmp_path / "d")
    spoiled(only(tableless(tmp_path / "d"), "videos/**/*.mp4", broken), how)
    made = repair(tmp_path / "d", tmp_path / "out", progress=False)
    mine = [[0, 1, 2], [3, 4], [5]][broken]
    names = {int(name.removeprefix("episode ")): i for i, name in enumerate(made.data.names)}
    assert set(names) | {int(name.removeprefix("episode ")) for name in made.left} == set(range(6))
    assert set(range(6)) - set(mine) <= set(names)
    assert how == "short" or set(names) == set(range(6)) - set(mine)
    for number, i in names.items():
        got, given = made.data.episode(i), whole.episode(number)
        assert np.array_equal(got.frames, given.frames[: len(got)])  # type: ignore[index]
        assert np.array_equal(got.actions, given.actions[: len(got) - 1])  # type: ignore[index]
        assert (len(got) == len(given)) == (f"episode {number}" not in made.cut)
    assert "meta" in made.broken and not [name for name in made.left if "/" in name]


@pytest.mark.parametrize("marks", ["pictures", "elsewhere"])
def test_episodes_of_one_length_are_not_taken_for_one_another(marks: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shown = [Episode(frames=random.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)) for _ in range(8)]
    with data.Writer(tmp_path / "d", Episodes.of(shown, fps=5).spec, group=12) as writer:
        for k, episode in enumerate(shown):
            writer.add(episode, mark=None if marks == "pictures" else f"{k:032x}")
    tableless(tmp_path / "d")
    for file in sorted((tmp_path / "d").glob("data/**/*.parquet"))[1:]:  # another writer's: its rows in one file
        rest = pq.read_table(file)
        first = only(tmp_path / "d", "data/**/*.parquet")
        pq.write_table(pa.concat_tables([pq.read_table(first), rest]), first)
        file.unlink()
    only(tmp_path / "d", "videos/**/*.mp4", 1).unlink()
    made = repair(tmp_path / "d", tmp_path / "out", progress=False)
    assert list(made.data.names) == ["episode 0", "episode 1"] and len(made.left) == 6
    assert all(same(made.data.episode(i), shown[i]) for i in range(2))


def test_pictures_that_are_not_what_their_print_says_are_left_out(tmp_path: Path) -> None:
    whole = written(tmp_path / "d")
    files = sorted(tableless(tmp_path / "d").glob("data/**/*.parquet"))
    table = pq.read_table(files[0])  # the rows tell other lengths than the video has: 8, 10 and 9 frames for 8, 9, 10
    lengths = (8, 10, 9)
    owner, moment = np.repeat(np.arange(3), lengths), np.concatenate([np.arange(n) for n in lengths])
    for name, value in (("episode_index", owner), ("frame_index", moment)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(value))
    pq.write_table(table, files[0])
    made = repair(tmp_path / "d", tmp_path / "out", progress=False)
    shown = {name: made.data.episode(i) for i, name in enumerate(made.data.names)}
    assert list(made.left) == ["episode 1", "episode 2"] and "tacit.json" in made.left["episode 1"]
    assert all(same(shown[f"episode {i}"], whole.episode(i)) for i in (0, 3, 4, 5))


def test_what_it_says_names_the_files_that_are_there(tmp_path: Path) -> None:
    written(tmp_path / "d")
    spoiled(only(tableless(tmp_path / "d"), "videos/**/*.mp4", 1), "short")
    made = repair(tmp_path / "d", tmp_path / "out", progress=False)
    told = " ".join([*made.left.values(), *made.cut.values()])
    assert ".rebuilt" not in told and str(tmp_path / "d" / "videos") in told
    assert ".rebuilt" not in (tmp_path / "out" / "meta" / "transfer.json").read_text()
