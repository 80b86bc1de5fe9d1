"""Putting datasets together: nothing is decoded, nothing is lost, and a kill costs nothing that was counted."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import tacit.data as data
from tacit.check import check_reader
from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.merge import merge
from tacit.data.partition import partition
from tacit.data.transfer import transfer


def some(count: int, *, seed: int, width: int = 2, text: str = "push", size: int = 16) -> Episodes:
    random = np.random.default_rng(seed)
    episodes = [
        Episode(
            frames=random.integers(0, 256, (6 + i, size, size, 3), dtype=np.uint8),
            actions=random.uniform(-1, 1, (5 + i, width)).astype(np.float32),
            text=f"{text} {i % 2}",
            source="expert" if i % 2 else "",
            success=bool(i % 3),
            split="train" if i < count - 1 else "valid",
        )
        for i in range(count)
    ]
    return Episodes.of(episodes, space=Space("continuous", width), fps=7)


def same(one: Episode, two: Episode) -> bool:
    columns = all(np.array_equal(getattr(one, k), getattr(two, k), equal_nan=True) for k in ("frames", "actions"))
    return columns and (one.text, one.success, one.split) == (two.text, two.success, two.split)


def test_two_datasets_become_one_frame_for_frame(tmp_path: Path) -> None:
    first, second = some(5, seed=0), some(4, seed=1, text="pull")
    data.save(first, tmp_path / "a", group=10)  # several files each
    data.save(second, tmp_path / "b", group=12)
    made = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    whole = data.open(tmp_path / "out")
    assert list(made) == ["out"] and len(whole) == 9
    assert all(same(whole.episode(i), first.episode(i)) for i in range(5))
    assert all(same(whole.episode(5 + i), second.episode(i)) for i in range(4))
    assert whole.sources == ("a", "a/expert", "a", "a/expert", "a", "b", "b/expert", "b", "b/expert")
    assert whole.names[5] == "b: episode 0"
    check_reader(whole)
    stats = json.loads((tmp_path / "out" / "meta" / "stats.json").read_text())
    rows = np.concatenate([e.episode(i).actions for e in (first, second) for i in range(len(e))])  # type: ignore[misc]
    assert stats["action"]["mean"] == pytest.approx(rows.mean(0), abs=1e-5)
    assert stats["action"]["count"] == [len(rows)]


def test_what_was_merged_can_be_gone_on_with(tmp_path: Path) -> None:
    data.save(some(2, seed=0), tmp_path / "a")
    data.save(some(2, seed=1), tmp_path / "b")
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    data.save(some(2, seed=2), tmp_path / "out", append=True)
    whole = data.open(tmp_path / "out")
    assert len(whole) == 6 and same(whole.episode(5), some(2, seed=2).episode(1))


def test_what_cannot_share_a_dataset_is_kept_apart(tmp_path: Path) -> None:
    data.save(some(2, seed=0), tmp_path / "arm")
    data.save(some(3, seed=1, width=5), tmp_path / "hand")
    data.save(some(2, seed=2), tmp_path / "arm2")
    made = merge([tmp_path / "arm", tmp_path / "hand", tmp_path / "arm2"], tmp_path / "out")
    assert {name: len(episodes) for name, episodes in made.items()} == {"arm": 4, "hand": 3}
    assert data.open(tmp_path / "out" / "hand").spec.space == Space("continuous", 5)


def test_sources_of_one_name_or_a_folder_in_use_are_refused(tmp_path: Path) -> None:
    data.save(some(2, seed=0), tmp_path / "a")
    data.save(some(2, seed=0), tmp_path / "other" / "a")
    with pytest.raises(ValueError, match="different names"):
        merge([tmp_path / "a", tmp_path / "other" / "a"], tmp_path / "out")
    data.save(some(2, seed=1), tmp_path / "used")
    with pytest.raises(FileExistsError, match="new or an empty folder"):
        merge([tmp_path / "a"], tmp_path / "used")
    for out in (tmp_path / "a", tmp_path / "a" / "merged", tmp_path / "other"):
        with pytest.raises(ValueError, match="never touched"):
            merge([tmp_path / "other" / "a", tmp_path / "a"], out)
    assert not (tmp_path / "a" / "merged").exists()


def test_killed_at_any_moment_it_opens_and_goes_on(tmp_path: Path) -> None:
    for k in range(4):
        data.save(some(3, seed=k), tmp_path / f"d{k}", group=8)
    script = (
        "import sys; from pathlib import Path; from tacit.data.merge import merge; "
        f"p = Path({str(tmp_path)!r}); "
        "merge([p / f'd{k}' for k in range(4)], p / 'out', report=lambda n: print(n, flush=True))"
    )
    for wait in (0.0, 0.01, 0.03):  # after the first dataset that it tells of
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        said = 1 + len(process.communicate()[0].split())
        assert len(data.open(tmp_path / "out")) >= 3 * said
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    whole = data.open(tmp_path / "out")
    assert all(same(whole.episode(3 * k + i), some(3, seed=k).episode(i)) for k in range(4) for i in range(3))


def strange(path: Path, *, cameras: int = 1) -> None:
    """As a stranger writes it: no side file, parts as ranges, no quantiles, and maybe a second camera."""
    (path / "meta" / "tacit.json").unlink()
    info, stats = (json.loads((path / "meta" / f"{n}.json").read_text()) for n in ("info", "stats"))
    count = info["total_episodes"]
    info["splits"] = {"train": f"0:{count - 1}", "val": f"{count - 1}:{count}"}
    stats = {k: {n: v for n, v in told.items() if not n.startswith("q")} for k, told in stats.items()}
    if cameras > 1:
        one, two = (f"observation.images.{n}" for n in ("main", "wrist"))
        info["features"][two] = info["features"][one]
        shutil.copytree(path / "videos" / one, path / "videos" / two)
        for file in (path / "meta" / "episodes").rglob("*.parquet"):
            table = pq.read_table(file)
            for name in [n for n in table.column_names if n.startswith(f"videos/{one}")]:
                table = table.append_column(name.replace(one, two), table[name])
            pq.write_table(table, file)
    for name, value in (("info", info), ("stats", stats)):
        (path / "meta" / f"{name}.json").write_text(json.dumps(value))


@pytest.mark.parametrize("cameras", [1, 2])
def test_strangers_datasets_keep_their_parts_and_cameras_and_share_a_space(tmp_path: Path, cameras: int) -> None:
    for k, name in enumerate("ab"):  # the ranges of their actions differ, and nobody told a space
        data.save(some(4, seed=k), tmp_path / name)
        strange(tmp_path / name, cameras=cameras)
    assert list(merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")) == ["out"]
    wrist = data.open(tmp_path / "out", camera="wrist" if cameras > 1 else None)
    assert wrist.splits == ("train", "train", "train", "val") * 2
    assert np.array_equal(wrist.episode(5).frames, some(4, seed=1).episode(1).frames)  # type: ignore[arg-type]
    assert partition(tmp_path / "out", again=True).splits != wrist.splits


def test_what_was_kept_apart_opens_as_one(tmp_path: Path) -> None:
    data.save(some(2, seed=0), tmp_path / "arm")
    hand = [e.replace(state=np.zeros((len(e), 3), np.float32)) for e in map(some(3, seed=1, width=5).episode, range(3))]
    data.save(Episodes.of(hand, space=Space("continuous", 5), fps=7), tmp_path / "hand")
    merge([tmp_path / "arm", tmp_path / "hand"], tmp_path / "out")
    whole = data.open(tmp_path / "out")
    check_reader(whole)
    assert whole.spec.space == Space("continuous", 2) and whole.spec.state == 0
    assert whole.names[:3] == ("arm: episode 0", "arm: episode 1", "hand: episode 0")
    assert same(whole.episode(1), some(2, seed=0).episode(1)) and whole.episode(2).actions is None
    assert whole.labelled == some(2, seed=0).labelled
    assert np.array_equal(whole.episode(4).frames, hand[2].frames)  # type: ignore[arg-type]
    made = data.cache(whole, size=8).reader
    assert Path(made.path).is_relative_to(tmp_path / "out" / "cache")  # type: ignore[attr-defined]
    seen = transfer(data.open(tmp_path / "out", view=data.View(size=(8, 8))), tmp_path / "one").data
    assert len(seen) == 5 and seen.spec.frame == (8, 8)


def test_members_of_several_rates_or_sizes_want_a_view_and_a_collection_leads_nowhere_else(tmp_path: Path) -> None:
    data.save(some(2, seed=0), tmp_path / "a")
    data.save(some(2, seed=1, size=12), tmp_path / "b")
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    with pytest.raises(ValueError, match=r"a: 16x16 at 7 a second; b: 12x12 at 7 a second.*--size"):
        data.open(tmp_path / "out")
    assert len(data.open(tmp_path / "out", view=data.View(size=(8, 8)))) == 4
    for members in (["../a"], ["/etc"], ["a", 3], [], "a", ["gone"]):
        (tmp_path / "out" / "collection.json").write_text(json.dumps({"members": members}))
        with pytest.raises(ValueError, match="names|no dataset"):
            data.open(tmp_path / "out")


def test_what_is_half_merged_is_no_folder_of_videos(tmp_path: Path) -> None:
    data.save(some(2, seed=0), tmp_path / "a")
    data.save(some(2, seed=1, size=12), tmp_path / "b")
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    (tmp_path / "out" / "collection.json").unlink()
    (tmp_path / "a" / "meta" / "info.json").unlink()
    for name in ("out", "a"):
        with pytest.raises(ValueError, match=r"lacks meta/info.json"):
            data.open(tmp_path / name)
