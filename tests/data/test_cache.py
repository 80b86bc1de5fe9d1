"""The cache: equal to decoding bit for bit, made once, whole or not there, whatever kills its builder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tacit.data as data
from tacit.clip import Episode, Space
from tacit.data.cache import Cached, cache
from tacit.data.episodes import Episodes
from tacit.data.reader import Reader
from tacit.data.video import Damaged, resize

module = sys.modules["tacit.data.cache"]
FIVE = Space("discrete", 5)


def recorded(length: int, number: int) -> Episode:
    random = np.random.default_rng(number)
    return Episode(
        frames=random.integers(0, 256, (length, 16, 12, 3), dtype=np.uint8),
        state=random.normal(size=(length, 3)).astype(np.float32),
        actions=random.integers(0, 5, length - 1) if number % 4 else None,
        rewards=random.normal(size=length - 1).astype(np.float32),
        source="expert" if number % 2 else "play",
        text=None if number % 3 else "go",
        success=[None, True, False][number % 3],
    )


def several(count: int = 12, length: int = 9) -> Episodes:
    return Episodes.of([recorded(length + i % 3, i) for i in range(count)], space=FIVE, name="made")


class Disk(Reader):
    """Episodes that count how often they are decoded, and may run out of patience."""

    def __init__(self, path: Path, *, limit: int = 10**9, count: int = 12, length: int = 9) -> None:
        self.inner, self.path, self.limit, self.reads = several(count, length), path, limit, 0
        self.spec, self.lengths, self.prints = self.inner.spec, self.inner.lengths, self.inner.prints
        self.sources, self.texts, self.successes = self.inner.sources, self.inner.texts, self.inner.successes
        self.splits = self.inner.splits

    def episode(self, number: int) -> Episode:
        if self.reads >= self.limit:
            raise KeyboardInterrupt
        self.reads += 1
        return self.inner.episode(number)

    def flat(self, column: str) -> tuple[np.ndarray, ...]:
        assert column != "frames", "the cache must not ask for all frames at once"
        return self.inner.reader.flat(column)


def equal(one: Episode, two: Episode) -> bool:
    columns = ("frames", "state", "actions", "latents", "codes", "rewards")
    for a, b in ((getattr(one, n), getattr(two, n)) for n in columns):
        if (a is None) != (b is None) or not (a is None or np.array_equal(a, b, equal_nan=a.dtype.kind == "f")):
            return False
    return (one.text, one.source, one.success, one.split) == (two.text, two.source, two.success, two.split)


def alike(one: Episodes, two: Episodes) -> bool:
    return len(one) == len(two) and all(equal(one.episode(i), two.episode(i)) for i in range(len(one)))


def test_the_cache_equals_decoding_bit_for_bit(tmp_path: Path) -> None:
    made = several()
    held = cache(made, path=tmp_path / "c")
    assert isinstance(held.reader, Cached)
    assert alike(held, made)
    assert (held.spec, held.prints, held.fingerprint) == (made.spec, made.prints, made.fingerprint)
    for name in ("frames", "state", "actions", "rewards"):
        np.testing.assert_array_equal(held.column(name), made.column(name))
    assert alike(data.open(tmp_path / "c"), made)
    np.testing.assert_array_equal(held.clips(3).batch([5, 0]).frames, made.clips(3).batch([5, 0]).frames)
    assert isinstance(held.reader.flat("frames")[0], np.memmap)


@pytest.mark.parametrize("size", [8, (8, 6), (5, 7)])
def test_frames_are_held_at_training_size(tmp_path: Path, size: int | tuple[int, int]) -> None:
    made, frame = several(), (size, size) if isinstance(size, int) else size
    held = cache(made, size=size, path=tmp_path / "c")
    assert held.spec.frame == frame
    for i in range(len(made)):
        frames = made.episode(i).frames
        assert frames is not None
        np.testing.assert_array_equal(held.episode(i).frames, resize(frames, frame))
    assert held.prints == made.prints, "a recording keeps its identity at every size"


def test_states_alone_can_be_cached(tmp_path: Path) -> None:
    made = Episodes.of([recorded(6, i).replace(frames=None) for i in range(4)], space=FIVE)
    assert alike(cache(made, size=64, path=tmp_path / "c"), made)


def test_a_second_call_decodes_nothing(tmp_path: Path) -> None:
    reader = Disk(tmp_path)
    first = cache(Episodes(reader), size=8)
    reads = reader.reads
    assert reads == 12
    again = cache(Episodes(reader), size=8)
    assert reader.reads == reads
    assert alike(first, again)
    assert Path(first.reader.path).parent == tmp_path / "cache"  # type: ignore[attr-defined]
    cache(Episodes(reader), size=6)
    assert reader.reads == 2 * reads
    assert cache(again) is again
    assert len(list((tmp_path / "cache").glob("[0-9]*"))) == 2


def test_hidden_labels_and_latents_stay_views_on_one_cache(tmp_path: Path) -> None:
    reader = Disk(tmp_path)
    whole = Episodes(reader)
    for budget in (4, 16):
        kept = whole.keep_labels(budget)
        held = cache(kept, size=8)
        assert (held.labelled, held.mask.tolist()) == (budget, kept.mask.tolist())
    latents = [np.full((n - 1, 2), i, np.float32) for i, n in enumerate(whole.lengths)]
    np.testing.assert_array_equal(cache(whole.with_latents(latents), size=8).episode(3).latents, latents[3])
    assert reader.reads == 12
    part = cache(whole.select([5, 2]), size=8)
    assert part.prints == (reader.prints[5], reader.prints[2])
    assert alike(part.select([1]), cache(whole, size=8).select([2]))


def test_changed_actions_are_another_cache(tmp_path: Path) -> None:
    made = several()
    other = Episodes.of([made.episode(i).replace(actions=None) for i in range(12)], space=FIVE, name="made")
    cache(made, path=tmp_path / "c")
    with pytest.raises(FileExistsError, match="other episodes"):
        cache(other, path=tmp_path / "c")


# -- killed, cut, full --------------------------------------------------------------------------------------------


def test_a_build_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD", 20)
    reader = Disk(tmp_path, limit=7)
    with pytest.raises(KeyboardInterrupt):
        cache(Episodes(reader), size=8)
    (partial,) = (tmp_path / "cache").glob(".*.partial")
    with pytest.raises((FileNotFoundError, Damaged)):
        data.open(partial)
    assert not list((tmp_path / "cache").glob("[0-9]*"))
    done = len(list((partial / "done").iterdir()))
    assert done == 3
    reader.reads, reader.limit = 0, 10**9
    held = cache(Episodes(reader), size=8)
    assert reader.reads == 12 - 2 * done
    assert alike(held, cache(several(), size=8, path=tmp_path / "other"))
    assert not list((tmp_path / "cache").glob(".*.partial"))


def dataset(path: Path) -> Episodes:
    data.save(several(60, 30), path, group=600)
    return data.open(path)


BUILD = """
import sys, tacit.data as data
sys.modules["tacit.data.cache"].STARTING = float(sys.argv[2])
sys.modules["tacit.data.cache"].SHARD = 40
data.cache(data.open(sys.argv[1]), size=8)
"""


@pytest.mark.parametrize("patience", ["99", "0"])
def test_killed_builders_leave_nothing_half_and_lose_little(tmp_path: Path, patience: str) -> None:
    made = dataset(tmp_path / "d")
    command = [sys.executable, "-c", BUILD, str(tmp_path / "d"), patience]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    kills = 0
    for wait in (1, 20) if patience == "99" else (1,):
        builder = subprocess.Popen(command, env=env)
        while builder.poll() is None and len(list((tmp_path / "d").glob("cache/.*/done/*"))) < wait:
            time.sleep(0.001)
        builder.send_signal(signal.SIGKILL)
        kills += builder.wait() == -signal.SIGKILL
        for folder in (tmp_path / "d" / "cache").glob("[0-9]*"):
            assert alike(data.open(folder), data.open(tmp_path / "d", size=8))
    assert kills
    held = data.open(tmp_path / "d", size=8)
    frames = [resize(made.episode(i).frames, (8, 8)) for i in range(60)]  # type: ignore[arg-type]
    np.testing.assert_array_equal(held.column("frames"), np.concatenate(frames))


def test_many_processes_build_what_one_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = dataset(tmp_path / "d")
    monkeypatch.setattr(module, "SHARD", 100)
    monkeypatch.setattr(module, "STARTING", 0.0)
    many = cache(made, size=8, path=tmp_path / "many", workers=2)
    one = cache(made, size=8, path=tmp_path / "one", workers=1)
    assert alike(many, one)


@pytest.mark.parametrize("patience", [0.0, 99.0])
def test_a_damaged_episode_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    made = dataset(tmp_path / "d")
    (last,) = (tmp_path / "d").glob("videos/**/file-002.mp4")
    last.write_bytes(last.read_bytes()[:5000])
    monkeypatch.setattr(module, "STARTING", patience)
    with pytest.raises(Damaged, match=r"Episode \d+ of .*file-002\.mp4") as caught:
        cache(made, size=8)
    assert "\n" not in str(caught.value)
    lost = made.damaged()
    assert lost
    assert min(lost) >= 30
    rest = made.select([i for i in range(60) if i not in lost])
    assert len(cache(rest, size=8)) == 60 - len(lost)


def test_ranks_that_build_together_build_once(tmp_path: Path) -> None:
    reader = Disk(tmp_path)
    held: list[Episodes] = []
    ranks = [threading.Thread(target=lambda: held.append(cache(Episodes(reader), size=8))) for _ in range(4)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert (len(held), reader.reads) == (4, 12)


@pytest.mark.parametrize("harm", ["no index", "half an index", "short frames", "no states"])
def test_a_damaged_cache_is_not_opened_and_is_made_anew(tmp_path: Path, harm: str) -> None:
    made, home = several(), tmp_path / "c"
    cache(made, path=home)
    if harm == "no index":
        (home / "index.json").unlink()
    elif harm == "half an index":
        (home / "index.json").write_text((home / "index.json").read_text()[:-40])
    elif harm == "short frames":
        os.truncate(home / "frames.npy", 5000)
    else:
        (home / "state.npy").unlink()
    with pytest.raises((Damaged, FileNotFoundError)) as caught:
        data.open(home)
    assert "\n" not in str(caught.value)
    assert alike(cache(made, path=home), made)


def test_a_full_disk_is_seen_before_the_work_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2000))
    reader = Disk(tmp_path)
    with pytest.raises(OSError, match=r"A cache of 120 frames at 8x8 needs .* GB; .* GB are free"):
        cache(Episodes(reader), size=8)
    assert reader.reads == 0


def test_nothing_that_is_not_ours_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="is no cache"):
        cache(several(), path=tmp_path / "c")
    assert (tmp_path / "c" / "thesis.tex").exists()
    with pytest.raises(ValueError, match="path=..."):
        cache(several())


def test_a_reader_that_promises_more_than_it_gives_is_named(tmp_path: Path) -> None:
    reader = Disk(tmp_path)
    reader.lengths = reader.lengths + 1
    plan = module._Plan(reader, np.arange(12), reader.lengths, (8, 8), tmp_path, 9)
    with pytest.raises(Damaged, match="Episode 0 has 9 frames; its dataset promised 10"):
        list(plan._resized(0))


def test_the_index_is_plain_json(tmp_path: Path) -> None:
    cache(several(), path=tmp_path / "c")
    index = json.loads((tmp_path / "c" / "index.json").read_text())
    assert index["lengths"] == several().lengths.tolist()
    assert set(index["files"]) == {"frames.npy", "state.npy", "actions.npy", "rewards.npy"}


def test_a_whole_cache_wants_no_place_to_write(tmp_path: Path) -> None:
    first = cache(Episodes(Disk(tmp_path)), size=8)
    home = Path(first.reader.path)  # type: ignore[attr-defined]
    lock = home.with_name(f".{home.name}.lock")
    lock.unlink()
    lock.mkdir()  # as where it lies on a disk that is only read: nothing can be opened to be written
    assert alike(cache(Episodes(Disk(tmp_path)), size=8), first)


def test_to_assign_parts_decodes_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tacit.data.partition import assign

    made = dataset(tmp_path / "d").select(range(4))
    data.save(made, tmp_path / "few")
    cache(data.open(tmp_path / "few"), size=8)
    monkeypatch.setattr(module, "_build", lambda *given: pytest.fail("it is there already"))
    for splits in (["train"] * 3 + ["valid"], ["valid"] * 2 + ["train"] * 2):
        assign(tmp_path / "few", splits)
        assert cache(data.open(tmp_path / "few"), size=8).splits == tuple(splits)
