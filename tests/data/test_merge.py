"""Putting datasets together: nothing is decoded, nothing is lost, and a kill costs nothing that was counted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tacit.data as data
from tacit.check import check_reader
from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.merge import merge


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
    with pytest.raises(FileExistsError, match="new or an empty folder"):
        merge([tmp_path / "a"], tmp_path / "a")


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
