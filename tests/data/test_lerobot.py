"""LeRobotDataset v3.0: what is written is read again, the layout is the format's, and no crash or cut passes unseen."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import tacit.data as data
from tacit.clip import Episode, Space
from tacit.data.lerobot import LeRobot
from tacit.data.meta import fill
from tacit.data.reader import Spec
from tacit.data.record import Writer
from tacit.data.video import Damaged

FIVE, VECTOR = Space("discrete", 5), Space("continuous", 3, -2.0, 2.0, ("x", "y", "z"))
KEY = "observation.images.main"
OUTWARD = ["../{video_key}", "/etc/{file_index}", "a/../../x", "{video_key.x}", "{0}", "{secret}", "a\\..\\b"]


def recorded(length: int, number: int, space: Space | None = FIVE, *, all_columns: bool = False) -> Episode:
    random = np.random.default_rng([number, length])
    actions = None
    if space is not None:
        count = length - 1
        actions = random.integers(0, 5, count) if space.discrete else random.uniform(-2, 2, (count, space.size))
    return Episode(
        frames=random.integers(0, 256, (length, 12, 16, 3), dtype=np.uint8),
        state=random.normal(size=(length, 2)).astype(np.float32),
        actions=None if actions is None or space is None else actions.astype(space.dtype),
        latents=random.normal(size=(length - 1, 4)).astype(np.float32) if all_columns else None,
        codes=random.integers(0, 8, (length - 1, 2)) if all_columns else None,
        rewards=random.normal(size=length - 1).astype(np.float32) if all_columns else None,
        text=["push", "pull", None][number % 3],
        source="expert" if number % 2 else "play",
        success=[None, True, False][number % 3],
    )


def spec(space: Space | None = FIVE, *, all_columns: bool = False) -> Spec:
    extra = {"latent": 4, "codes": 2, "rewards": True} if all_columns else {}
    return Spec(frame=(12, 16), state=2, space=space, fps=10, name="made", **extra)  # type: ignore[arg-type]


def equal(one: Episode, two: Episode) -> bool:
    columns = ("frames", "state", "actions", "latents", "codes", "rewards")
    for a, b in ((getattr(one, n), getattr(two, n)) for n in columns):
        if (a is None) != (b is None) or not (a is None or np.array_equal(a, b, equal_nan=a.dtype.kind == "f")):
            return False
    return (one.text, one.source, one.success) == (two.text, two.source, two.success)


def written(path: Path, lengths: list[int], **options: Any) -> list[Episode]:
    episodes = [recorded(n, i) for i, n in enumerate(lengths)]
    with Writer(path, spec(), **options) as writer:
        for episode in episodes:
            writer.add(episode)
    return episodes


# -- there and back -----------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    space=st.sampled_from([None, FIVE, VECTOR, Space("continuous", 1)]),
    all_columns=st.booleans(),
    group=st.sampled_from([1, 10, 1000]),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], space: Space | None, all_columns: bool, group: int
) -> None:
    path = tmp_path_factory.mktemp("d") / "set"
    episodes = [recorded(n, i, space, all_columns=all_columns) for i, n in enumerate(lengths)]
    with Writer(path, spec(space, all_columns=all_columns), group=group) as writer:
        for episode in episodes:
            writer.add(episode)
    held = data.open(path)
    assert held.spec == dataclasses.replace(spec(space, all_columns=all_columns), text=True)
    assert held.lengths.tolist() == lengths
    for i, episode in enumerate(episodes):
        empty = len(episode) == 1  # an array of no transitions is read as none
        bare = dict.fromkeys(("actions", "latents", "codes", "rewards") if empty else ())
        assert equal(held.episode(i), episode.replace(**bare))
    assert held.prints == tuple(data.content(e) for e in episodes)


def test_partly_labelled_episodes_keep_their_blanks(tmp_path: Path) -> None:
    made = data.Episodes.of([recorded(9, i, VECTOR) for i in range(6)], space=VECTOR, name="made").keep_labels(11)
    data.save(made, tmp_path / "d")
    held = data.open(tmp_path / "d")
    assert (held.labelled, held.mask.tolist()) == (11, made.mask.tolist())
    assert held.fingerprint == made.fingerprint
    assert held.spec.space == VECTOR


def test_states_alone_are_a_dataset(tmp_path: Path) -> None:
    made = data.Episodes.of([recorded(5, i).replace(frames=None) for i in range(3)], space=FIVE)
    data.save(made, tmp_path / "d")
    held = data.open(tmp_path / "d")
    assert all(equal(held.episode(i), made.episode(i)) for i in range(3))
    assert json.loads((tmp_path / "d" / "meta" / "info.json").read_text())["video_path"] is None
    assert len(held.clips(2).batch([0])) == 1


def test_clips_come_from_a_cache_in_the_folder(tmp_path: Path) -> None:
    episodes = written(tmp_path / "d", [5, 6, 7])
    held = data.open(tmp_path / "d")
    frames = held.clips(3).batch([0]).frames
    assert frames is not None
    assert episodes[0].frames is not None
    assert (frames[0].permute(0, 2, 3, 1).numpy() == episodes[0].frames[:3]).all()
    assert len(list((tmp_path / "d" / "cache").glob("12x16-*"))) == 1
    small = data.open(tmp_path / "d", size=8)
    assert (small.spec.frame, small.prints) == ((8, 8), held.prints)


# -- the layout, by hand ------------------------------------------------------------------------------------------


def test_the_layout_is_the_formats_own(tmp_path: Path) -> None:
    lengths = [5, 6, 7, 4]
    with Writer(tmp_path, spec(VECTOR, all_columns=True), group=10) as writer:
        for i, n in enumerate(lengths):
            writer.add(recorded(n, i, VECTOR, all_columns=True))
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    numbered = {f"{k}/chunk-000/file-00{i}.{e}" for k, e in KINDS.items() for i in range(2)}
    assert files == numbered | {"meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/tacit.json"}

    info = json.loads((tmp_path / "meta" / "info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["splits"]) == ("v3.0", 10, {"train": "0:4"})
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (4, 22, 3)
    assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    assert info["features"]["action"] == {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
    video = info["features"][KEY]
    assert (video["dtype"], video["shape"], video["info"]["video.fps"]) == ("video", [12, 16, 3], 10)

    rows = pq.ParquetFile(tmp_path / "data/chunk-000/file-000.parquet")
    assert rows.metadata.num_row_groups == 2, "one row group an episode"
    assert rows.metadata.row_group(0).column(0).compression == "SNAPPY"
    types = {f.name: str(f.type) for f in rows.schema_arrow}
    assert types["action"] == "fixed_size_list<element: float>[3]" or "[3]" in types["action"]
    assert types["timestamp"] == types["next.reward"] == "float"
    assert {types[n] for n in ("frame_index", "episode_index", "index", "task_index")} == {"int64"}
    assert KEY not in types, "pictures are in the video, not in the table"
    table = pa.concat_tables([pq.read_table(tmp_path / f"data/chunk-000/file-00{i}.parquet") for i in range(2)])
    assert table["index"].to_pylist() == list(range(22))
    assert table["episode_index"].to_pylist() == np.repeat(np.arange(4), lengths).tolist()
    assert table["frame_index"].to_pylist() == [t for n in lengths for t in range(n)]
    np.testing.assert_allclose(
        table["timestamp"].to_numpy(), np.concatenate([np.arange(n) / 10 for n in lengths]), 1e-6
    )
    last = np.cumsum(lengths) - 1
    for name in ("action", "latent_action", "latent_code", "next.reward"):
        blank = np.array(
            [bool(np.all(~(np.asarray(v, float) >= -9) | (np.asarray(v) == -1))) for v in table[name].to_pylist()]
        )
        assert np.flatnonzero(blank).tolist() == last.tolist(), "an episode's last row, and no other, is blank"

    about = pa.concat_tables(
        [pq.read_table(tmp_path / f"meta/episodes/chunk-000/file-00{i}.parquet") for i in range(2)]
    )
    assert about["dataset_from_index"].to_pylist() == [0, 5, 11, 18]
    assert about["dataset_to_index"].to_pylist() == [5, 11, 18, 22]
    assert about["data/file_index"].to_pylist() == about[f"videos/{KEY}/file_index"].to_pylist() == [0, 0, 1, 1]
    assert about[f"videos/{KEY}/from_timestamp"].to_pylist() == [0, 0.5, 0, 0.7]
    assert about[f"videos/{KEY}/to_timestamp"].to_pylist() == [0.5, 1.1, 0.7, 1.1]
    assert about["tasks"].to_pylist() == [["push"], ["pull"], [""], ["push"]]


KINDS = {"data": "parquet", "meta/episodes": "parquet", f"videos/{KEY}": "mp4"}


def test_tasks_are_indexed_as_pandas_would(tmp_path: Path) -> None:
    """Without this note LeRobot reads the task of every sample as the number 0, and says nothing."""
    written(tmp_path, [3, 3, 3, 3])
    tasks = pq.read_table(tmp_path / "meta" / "tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1, 2], "task": ["push", "pull", ""]}
    note = json.loads(tasks.schema.metadata[b"pandas"])
    assert note["index_columns"] == ["task"]
    assert [c["field_name"] for c in note["columns"]] == ["task_index", "task"]
    rows = pq.read_table(tmp_path / "data/chunk-000/file-000.parquet")
    assert rows["task_index"].to_pylist() == [0] * 3 + [1] * 3 + [2] * 3 + [0] * 3


def test_statistics_are_of_what_was_recorded(tmp_path: Path) -> None:
    episodes = [recorded(n, i, VECTOR, all_columns=True) for i, n in enumerate([9, 3, 14, 6])]
    with Writer(tmp_path, spec(VECTOR, all_columns=True), group=10) as writer:
        for episode in episodes:
            writer.add(episode)
    stats = json.loads((tmp_path / "meta" / "stats.json").read_text())
    actions = np.concatenate([e.actions for e in episodes if e.actions is not None])
    for name, want in {
        "min": actions.min(0),
        "max": actions.max(0),
        "mean": actions.mean(0),
        "std": actions.std(0),
    }.items():
        np.testing.assert_allclose(stats["action"][name], want, rtol=1e-5)
    assert stats["action"]["count"] == [len(actions)]
    for low, high in (("q01", "q10"), ("q10", "q50"), ("q90", "q99")):
        assert (np.array(stats["action"][low]) <= np.array(stats["action"][high])).all()
    pixels = np.concatenate([e.frames for e in episodes if e.frames is not None]) / 255
    assert np.shape(stats[KEY]["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(np.ravel(stats[KEY]["mean"]), pixels.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(np.ravel(stats[KEY]["std"]), pixels.std((0, 1, 2)), atol=1e-6)
    assert np.shape(stats["timestamp"]["mean"]) == (1,)
    about = pq.read_table(tmp_path / "meta/episodes/chunk-000/file-000.parquet")
    np.testing.assert_allclose(about["stats/action/mean"][0].as_py(), episodes[0].actions.mean(0), rtol=1e-5)  # type: ignore[union-attr]


def test_unlabelled_actions_count_in_no_statistic(tmp_path: Path) -> None:
    made = data.Episodes.of([recorded(9, i, VECTOR) for i in range(3)], space=VECTOR)
    data.save(made.unlabelled(), tmp_path)
    assert "action" not in json.loads((tmp_path / "meta" / "stats.json").read_text())
    assert data.open(tmp_path).spec.space == VECTOR


def test_the_action_of_a_last_frame_leads_nowhere(tmp_path: Path) -> None:
    """A stranger's recording has one; by the one time convention it is dropped, and no label is off by one for it."""
    episodes = written(tmp_path, [4, 5])
    file = tmp_path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    actions = pa.array([3 if a < 0 else a for a in table["action"].to_pylist()])
    pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", actions), file)
    held = data.open(tmp_path)
    assert held.labelled == 3 + 4
    assert held.stack()["actions"].min() >= 0
    assert np.flatnonzero(held.reader.flat("actions")[0] == -1).tolist() == [3, 8]
    assert all(equal(held.episode(i), episodes[i]) for i in range(2))


# -- strangers' datasets ------------------------------------------------------------------------------------------


def edit(path: Path, **changes: Any) -> dict[str, Any]:
    file = path / "meta" / "info.json"
    info: dict[str, Any] = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(info))
    return info


@pytest.mark.parametrize("space", [FIVE, VECTOR])
def test_a_dataset_without_our_side_file_is_read_as_well(tmp_path: Path, space: Space) -> None:
    made = data.Episodes.of([recorded(9, i, space) for i in range(5)], space=space)
    data.save(made, tmp_path)
    (tmp_path / "meta" / "tacit.json").unlink()
    held = data.open(tmp_path)
    assert held.spec.space is not None
    assert (held.spec.space.kind, held.spec.space.size) == (space.kind, space.size)
    assert held.sources == ("",) * 5
    assert len(set(held.prints)) == 5
    assert data.open(tmp_path).prints == held.prints
    np.testing.assert_array_equal(held.episode(2).frames, made.episode(2).frames)
    np.testing.assert_array_equal(held.episode(2).actions, made.episode(2).actions)


def test_the_camera_is_chosen_by_name(tmp_path: Path) -> None:
    episodes = written(tmp_path, [4, 5])
    info = edit(tmp_path)
    other = "observation.images.wrist"
    info["features"][other] = info["features"][KEY]
    edit(tmp_path, features=info["features"])
    shutil.copytree(tmp_path / "videos" / KEY, tmp_path / "videos" / other)
    table = pq.read_table(tmp_path / "meta/episodes/chunk-000/file-000.parquet")
    for name in ("chunk_index", "file_index", "from_timestamp", "to_timestamp"):
        table = table.append_column(f"videos/{other}/{name}", table[f"videos/{KEY}/{name}"])
    pq.write_table(table, tmp_path / "meta/episodes/chunk-000/file-000.parquet")
    with pytest.raises(ValueError, match=r"camera=\.\.\."):
        data.open(tmp_path)
    with pytest.raises(ValueError, match="'top' was asked for"):
        data.open(tmp_path, camera="top")
    for camera in ("wrist", other, "main"):
        assert equal(data.open(tmp_path, camera=camera).episode(1), episodes[1])


def test_pictures_kept_in_the_table_are_read(tmp_path: Path) -> None:
    episodes = written(tmp_path, [4, 5])
    features = edit(tmp_path)["features"]
    features[KEY] = {"dtype": "image", "shape": [3, 12, 16], "names": ["channels", "height", "width"]}
    edit(tmp_path, features=features, video_path=None)
    shutil.rmtree(tmp_path / "videos")
    file = tmp_path / "data/chunk-000/file-000.parquet"
    stored = []
    for picture in (p for e in episodes if e.frames is not None for p in e.frames):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        stored.append({"bytes": buffer.getvalue(), "path": None})
    pq.write_table(pq.read_table(file).append_column(KEY, pa.array(stored)), file)
    held = data.open(tmp_path)
    assert held.spec.frame == (12, 16)
    assert all(equal(held.episode(i), episodes[i]) for i in range(2))


def test_lists_of_any_arrow_kind_are_read(tmp_path: Path) -> None:
    episodes = written(tmp_path, [4, 5])
    file = tmp_path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    states = pa.array(table["observation.state"].to_pylist(), pa.list_(pa.float32()))
    table = table.set_column(table.schema.get_field_index("observation.state"), "observation.state", states)
    pq.write_table(table.take(list(range(8, -1, -1))), file)  # and the rows in no particular order
    held = data.open(tmp_path)
    assert all(equal(held.episode(i), episodes[i]) for i in range(2))


@pytest.mark.parametrize("template", OUTWARD)
def test_no_path_template_leads_out_of_the_folder(tmp_path: Path, template: str) -> None:
    written(tmp_path / "d", [4])
    edit(tmp_path / "d", video_path=template)
    with pytest.raises(Damaged, match="template"):
        data.open(tmp_path / "d").episode(0)
    edit(tmp_path / "d", data_path=template)
    with pytest.raises(Damaged, match="template"):
        data.open(tmp_path / "d").column("state")


def test_a_camera_named_to_escape_is_refused_too() -> None:
    with pytest.raises(Damaged, match="leads out"):
        fill("videos/{video_key}/a.mp4", video_key="../../x")
    assert fill("a-{chunk_index:03d}/{file_index}", chunk_index=7, file_index=12) == "a-007/12"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"codebase_version": "v1.6"}, "convert_dataset"),
        ({"storage_format": "lance"}, "'lance'"),
        ({"total_episodes": 3}, "lacks episode 2"),
    ],
)
def test_other_versions_and_broken_promises_are_named(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    written(tmp_path, [4, 5])
    edit(tmp_path, **changes)
    with pytest.raises(ValueError, match=says):
        data.open(tmp_path)


def test_a_path_that_holds_no_dataset_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("a")
    for name, says in (
        ("none", "does not exist"),
        ("empty", "is empty"),
        ("other", "1 .txt.*Known are"),
        ("other/a.txt", "Known are"),
    ):
        with pytest.raises((OSError, ValueError), match=says) as caught:
            data.open(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_missing_row_names_its_episode(tmp_path: Path) -> None:
    written(tmp_path, [4, 5])
    file = tmp_path / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).slice(0, 8), file)
    with pytest.raises(Damaged, match=r"Episode 1 has 4 rows in .*file-000\.parquet"):
        data.open(tmp_path).episode(1)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 6), share=st.floats(0, 0.999))
def test_a_file_cut_anywhere_is_named_in_one_line_or_not_needed(tmp_path: Path, which: int, share: float) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    episodes = [recorded(n, i) for i, n in enumerate([4, 6])]
    if not whole.exists():
        written(whole, [4, 6])
    shutil.rmtree(cut, ignore_errors=True)
    shutil.copytree(whole, cut)
    file = sorted(p for p in cut.rglob("*") if p.is_file())[which]
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    try:
        held = data.open(cut)
        read = [held.episode(i) for i in range(2)]
    except (Damaged, OSError) as error:
        assert file.name in str(error)
        assert "\n" not in str(error)
    else:
        assert file.name in ("stats.json", "tasks.parquet"), "only what reading does not need may be cut unseen"
        assert all(equal(a, b) for a, b in zip(read, episodes, strict=True))


def test_readers_are_opened_again_elsewhere_by_what_they_say(tmp_path: Path) -> None:
    written(tmp_path, [4, 5])
    reader = LeRobot(tmp_path)
    assert reader.opening is not None
    assert data.open(**json.loads(json.dumps(reader.opening))).prints == reader.prints
