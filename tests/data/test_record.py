"""Writing: no crash costs more than the last group, nothing is written over, nothing unfit gets in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tacit.data as data
from tacit.clip import Episode, Space
from tacit.data.reader import Spec
from tacit.data.record import Writer
from tacit.data.video import Encoder, Video

FIVE, VECTOR = Space("discrete", 5), Space("continuous", 3)


def recorded(length: int, number: int) -> Episode:
    random = np.random.default_rng([number, length])
    return Episode(
        frames=random.integers(0, 256, (length, 12, 16, 3), dtype=np.uint8),
        state=random.normal(size=(length, 2)).astype(np.float32),
        actions=random.integers(0, 5, length - 1),
        text="push",
    )


def spec(space: Space | None = FIVE) -> Spec:
    return Spec(frame=(12, 16), state=2, space=space, fps=10, name="made")


def equal(one: Episode, two: Episode) -> bool:
    return all(np.array_equal(getattr(one, n), getattr(two, n)) for n in ("frames", "state", "actions"))


def written(path: Path, lengths: list[int], **options: Any) -> list[Episode]:
    episodes = [recorded(n, i) for i, n in enumerate(lengths)]
    with Writer(path, spec(), **options) as writer:
        for episode in episodes:
            writer.add(episode)
    return episodes


RECORD = """
import os, signal, sys
import numpy as np, tacit.data as data
from tacit.clip import Episode
with data.Writer(sys.argv[1], data.Spec(frame=(8, 8)), group=20) as writer:
    for i in range(7):
        writer.add(Episode(frames=np.full((10, 8, 8, 3), i, np.uint8)))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_recording_loses_its_last_group_only_and_goes_on(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    code = subprocess.run([sys.executable, "-c", RECORD, str(tmp_path / "d")], env=env, check=False).returncode
    assert code == -signal.SIGKILL
    held = data.open(tmp_path / "d")
    assert [int(held.episode(i).frames[0, 0, 0, 0]) for i in range(len(held))] == list(range(6))  # type: ignore[index]
    with Writer(tmp_path / "d", Spec(frame=(8, 8)), append=True) as writer:
        writer.add(Episode(frames=np.full((4, 8, 8, 3), 99, np.uint8)))
    held = data.open(tmp_path / "d")
    assert [int(held.episode(i).frames[-1, 0, 0, 0]) for i in range(len(held))] == [*range(6), 99]  # type: ignore[index]
    assert not (tmp_path / "d" / ".partial").exists()


def numbered(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.rglob("file-*") if p.is_file()}


def counted(path: Path) -> int:
    """How many rows the statistics say they are of."""
    return int(json.loads((path / "meta" / "stats.json").read_text())["index"]["count"][0])


@pytest.mark.parametrize("step", range(10))
def test_a_crash_between_any_two_renames_leaves_a_whole_dataset(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each finished file is renamed to its place; whichever rename never happens, what was whole before stays so."""
    written(tmp_path, [5, 6], group=1)
    before = numbered(tmp_path)
    renames, replace = 0, os.replace

    def crashing(source: Any, target: Any) -> None:
        nonlocal renames
        renames += 1
        if renames > step:
            raise KeyboardInterrupt
        replace(source, target)

    writer = Writer(tmp_path, spec(), append=True)
    monkeypatch.setattr(os, "replace", crashing)
    writer.add(recorded(4, 7))
    if step < 8:
        with pytest.raises(KeyboardInterrupt):
            writer.commit()
    else:
        writer.commit()
    monkeypatch.undo()
    held = data.open(tmp_path)
    assert len(held) == (2 if step < 8 else 3)
    assert equal(held.episode(1), recorded(6, 1))
    Writer(tmp_path, spec(), append=True).close()
    assert step >= 8 or numbered(tmp_path) == before, "leavings are swept even if nothing follows"
    assert counted(tmp_path) == held.lengths.sum(), "statistics are of what is counted, and of that once"
    with Writer(tmp_path, spec(), append=True) as again:
        again.add(recorded(9, 8))
    held = data.open(tmp_path)
    assert equal(held.episode(len(held) - 1), recorded(9, 8))
    tables = sorted(tmp_path.glob("data/**/*.parquet"))
    rows = pa.concat_tables([pq.read_table(t) for t in tables])["index"].to_pylist()
    assert counted(tmp_path) == len(rows)
    assert rows == list(range(len(rows))), "no leavings of the crash are in the folder for others to read"


@contextlib.contextmanager
def stopped(at: float, error: type[BaseException]) -> Iterator[list[int]]:
    """Raise ``error`` once, before the ``at``-th instruction of the writer or the encoder; counts those that ran."""
    ran, before = [0], sys.gettrace()

    def trace(frame: Any, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith(("record.py", "video.py")):
            return None
        frame.f_trace_opcodes = True
        ran[0] += event == "opcode"
        if event == "opcode" and ran[0] == at:
            raise error
        return trace

    sys.settrace(trace)
    try:
        yield ran
    finally:
        sys.settrace(before)


def groups(path: Path, *, append: bool = False, stop: float = np.inf, error: type[BaseException] = OSError) -> int:
    """Two groups of two small episodes, as ``with`` writes them, and how many instructions that took."""
    with stopped(stop, error) as ran, Writer(path, spec(), group=8, append=append) as writer:
        for number in range(len(writer), 4):
            writer.add(recorded(4, number))
    return ran[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_stopped_anywhere_it_leaves_what_it_counts_and_goes_on(tmp_path: Path, error: type[BaseException]) -> None:
    """Ctrl-C or a full disk, and then the ``with`` that is left: no video deleted, no episode or statistic twice."""
    total, counts = groups(tmp_path / "whole"), set()
    for stop in np.linspace(1, total, 29).astype(int).tolist():
        path = tmp_path / str(stop)
        with contextlib.suppress(error):
            groups(path, stop=stop, error=error)
        if (path / "meta" / "info.json").exists():
            held = data.open(path)
            counts.add(len(held))
            assert all(equal(held.episode(i), recorded(4, i)) for i in range(len(held))), f"stopped before {stop}"
        groups(path, append=True)
        held = data.open(path)
        assert [equal(held.episode(i), recorded(4, i)) for i in range(len(held))] == [True] * 4
        assert counted(path) == held.lengths.sum()
    assert counts >= {2, 4}


def test_a_stopped_episode_takes_no_frame_of_those_before(tmp_path: Path) -> None:
    """The codec holds frames back: what it hands out while one is encoded are the packets of earlier ones."""
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    with (
        Encoder(tmp_path / "whole.mp4", fps=10, frame=(16, 16), lossless=False) as encoder,
        stopped(np.inf, OSError) as ran,
    ):
        encoder.add(frames)
    for stop in range(1, ran[0]):
        encoder = Encoder(tmp_path / f"{stop}.mp4", fps=10, frame=(16, 16), lossless=False)
        encoder.add(frames)
        with pytest.raises(KeyboardInterrupt), stopped(stop, KeyboardInterrupt):
            encoder.add(np.tile(frames, (4, 1, 1, 1)))
        encoder.close()
        assert len(Video(tmp_path / f"{stop}.mp4", fps=10).frames(0, 5)) == 5, f"stopped before {stop}"


def test_a_writer_that_failed_writes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Writer(tmp_path, spec()) as writer:
        writer.add(recorded(5, 0))
        writer.commit()
        writer.add(recorded(6, 1))
        monkeypatch.setattr(pq, "write_table", lambda *_, **__: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            writer.commit()
        monkeypatch.undo()
        for deed in (lambda: writer.add(recorded(7, 2)), writer.commit):
            with pytest.raises(RuntimeError, match="failed before.*append=True"):
                deed()
    assert data.open(tmp_path).lengths.tolist() == [5]
    assert equal(data.open(tmp_path).episode(0), recorded(5, 0))


def test_an_error_in_the_callers_loop_keeps_the_whole_episodes(tmp_path: Path) -> None:
    def record() -> None:
        with Writer(tmp_path, spec()) as writer:
            writer.add(recorded(5, 0))
            raise RuntimeError("the simulator fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        record()
    assert len(data.open(tmp_path)) == 1


def test_a_group_ends_after_its_seconds(tmp_path: Path) -> None:
    with Writer(tmp_path, spec(), seconds=0.0) as writer:
        writer.add(recorded(5, 0))
        assert len(data.open(tmp_path)) == 1
        writer.add(recorded(5, 1))
        assert len(data.open(tmp_path)) == 2


def test_appending_continues_the_numbers_and_the_statistics(tmp_path: Path) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    episodes = written(once, [5, 6, 7, 8])
    written(twice, [5, 6])
    with Writer(twice, spec(), append=True) as writer:
        assert len(writer) == 2
        for episode in episodes[2:]:
            writer.add(episode)
    one, two = data.open(once), data.open(twice)
    assert all(equal(one.episode(i), two.episode(i)) for i in range(4))
    assert one.prints == two.prints
    a, b = (json.loads((p / "meta" / "stats.json").read_text()) for p in (once, twice))
    for name, stats in a.items():
        for key in ("min", "max", "mean", "std", "count"):
            np.testing.assert_allclose(b[name][key], stats[key], rtol=1e-9)


def test_a_dataset_is_never_written_over(tmp_path: Path) -> None:
    written(tmp_path / "d", [5])
    with pytest.raises(FileExistsError, match="append=True"):
        Writer(tmp_path / "d", spec())
    for other in (spec(VECTOR), spec(None), Spec(frame=(8, 8), state=2, space=FIVE), spec(Space("discrete", 6))):
        with pytest.raises(ValueError, match="Cannot append"):
            Writer(tmp_path / "d", other, append=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):
        Writer(tmp_path / "mine", spec(), append=True)
    assert len(data.open(tmp_path / "d")) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frames": np.zeros((5, 8, 8, 3), np.uint8)}, r"frames \(8, 8\)"),
        ({"state": None}, "state 0"),
        ({"actions": np.array([0, 1, 2, 7])}, "wanted 0 to 4"),
        ({"latents": np.zeros((4, 3), np.float32)}, "latents are 3 wide"),
        ({"rewards": np.zeros(4, np.float32)}, "rewards=True"),
    ],
)
def test_an_episode_of_another_kind_is_refused_and_harms_nothing(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with Writer(tmp_path, spec()) as writer:
        writer.add(recorded(5, 0))
        with pytest.raises(ValueError, match=says):
            writer.add(recorded(5, 1).replace(**change))
        writer.add(recorded(5, 2))
    assert data.open(tmp_path).lengths.tolist() == [5, 5]


def test_a_rate_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="whole number"):
        Writer(tmp_path, dataclasses.replace(spec(), fps=12.5))
