"""Minari itself against our reader and writer of its format: what it writes we read, and what we write it opens.

Minari lives in an environment of its own, for its pins are not ours:

    python -m venv out/minari && out/minari/bin/pip install "minari[hdf5,arrow]==0.5.4"
    python bench/minarinterop.py out/minari/bin/python
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

LAYOUTS = list(itertools.product(("hdf5", "arrow", "parquet"), (True, False), ("discrete", "box")))
LENGTHS = (6, 1, 9)  # steps, of which the second episode has the fewest that Minari records


def flattened(value: Any, name: str = "") -> dict[str, np.ndarray]:
    """Minari's nested observations as arrays by their path."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flattened(part, f"{name}/{key}").items()}
    if isinstance(value, tuple):
        return {k: v for i, part in enumerate(value) for k, v in flattened(part, f"{name}/_index_{i}").items()}
    return {name.strip("/"): np.asarray(value)}


def spaces(kind: str) -> tuple[Any, Any]:
    from gymnasium import spaces as s

    image, low = s.Box(0, 255, (40, 36, 3), np.uint8), s.Box(-5, 5, (3,), np.float32)
    if kind == "discrete":
        return image, s.Discrete(4, start=2)
    both = s.Tuple((s.Box(-1, 1, (2,), np.float64), s.Discrete(7)))
    return s.Dict({"image": image, "low": low, "pair": both}), s.Box(-2, 3, (2,), np.float32)


def record(folder: Path) -> None:
    """Under Minari's Python: a dataset of every layout, and beside it what Minari reads from it."""
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    for form, jpeg, kind in LAYOUTS:
        seen, done = spaces(kind)
        seen.seed(1), done.seed(2)
        home = folder / f"{form}-{jpeg}-{kind}" / "data"
        home.mkdir(parents=True)
        storage = MinariStorage.new(home, seen, done, data_format=form, jpeg_encoding=jpeg)
        for steps in LENGTHS:
            shown = [seen.sample() for _ in range(steps + 1)]
            if kind == "box":
                pairs = tuple(np.stack([o["pair"][i] for o in shown]) for i in (0, 1))
                shown = {"image": np.stack([o["image"] for o in shown]), "low": np.stack([o["low"] for o in shown])}
                shown["pair"] = pairs
            else:
                shown = np.stack(shown)
            acts = np.stack([done.sample() for _ in range(steps)])
            last = np.arange(1, steps + 1) == steps
            paid = np.arange(steps) / 4
            buffer = EpisodeBuffer(
                observations=shown, actions=acts, rewards=list(paid), terminations=list(last), truncations=list(~last)
            )
            storage.update_episodes([buffer])
        storage.update_metadata({"dataset_id": "made-v0", "minari_version": "0.5.4"})
        dump(home, home.parent / "truth.npz")
        assert len(MinariDataset(home)) == len(LENGTHS)


def dump(home: Path, file: Path) -> None:
    """Under Minari's Python: everything that Minari reads from a dataset."""
    from minari import MinariDataset

    held = {}
    for number, episode in enumerate(MinariDataset(home).iterate_episodes()):
        held |= {f"{number}/observations/{k}".rstrip("/"): v for k, v in flattened(episode.observations).items()}
        held |= {f"{number}/actions": episode.actions, f"{number}/rewards": episode.rewards}
        held |= {f"{number}/truncations": episode.truncations}
    np.savez(file, **held)


def check_reading(home: Path, kind: str) -> None:
    from tacit.check import check_reader
    from tacit.data.formats import minari

    truth = dict(np.load(home / "truth.npz", allow_pickle=False))
    assert minari.recognises(home)
    reader = minari.read(home)
    check_reader(reader)
    assert reader.lengths.tolist() == [n + 1 for n in LENGTHS], reader.lengths
    assert reader.spec.space.discrete == (kind == "discrete") and reader.spec.space.size == (
        4 if kind == "discrete" else 2
    )
    for number in range(len(LENGTHS)):
        episode = reader.episode(number)
        image = truth[f"{number}/observations" + ("/image" if kind == "box" else "")]
        np.testing.assert_array_equal(episode.frames, image)
        acts = truth[f"{number}/actions"]
        np.testing.assert_array_equal(episode.actions, acts - 2 if kind == "discrete" else acts)
        np.testing.assert_array_equal(episode.rewards, truth[f"{number}/rewards"].astype(np.float32))
        if kind == "box":
            names = ("low", "pair/_index_0", "pair/_index_1")
            parts = [truth[f"{number}/observations/{n}"].reshape(len(image), -1) for n in names]
            np.testing.assert_array_equal(episode.state, np.concatenate(parts, 1).astype(np.float32))


def check_writing(folder: Path, python: str) -> None:
    from tacit.clip import Episode, Space
    from tacit.data import Episodes
    from tacit.data.formats import minari

    random = np.random.default_rng(0)
    for space in (Space("discrete", 5), Space("continuous", 2, -3.0, 3.0)):
        for pictures, state in ((True, True), (True, False), (False, True)):
            episodes = []
            for length in (5, 2, 8):
                count = length - 1
                acts = random.integers(0, 5, count) if space.discrete else random.uniform(-3, 3, (count, 2))
                frames = random.integers(0, 256, (length, 40, 36, 3), dtype=np.uint8) if pictures else None
                numbers = random.normal(size=(length, 3)).astype(np.float32) if state else None
                paid = random.normal(size=count).astype(np.float32)
                told = {"frames": frames, "state": numbers, "actions": acts.astype(space.dtype), "rewards": paid}
                episodes.append(Episode(**told, text="go", source="expert", success=True, split="train"))
            home = folder / f"ours-{space.kind}-{pictures}-{state}"
            minari.write(Episodes.of(episodes, space=space), home)
            subprocess.run([python, __file__, "--dump", home / "data", home / "theirs.npz"], check=True)
            theirs = dict(np.load(home / "theirs.npz", allow_pickle=False))
            for number, episode in enumerate(episodes):
                inner = ("/image", "/state") if pictures and state else ("", "")
                for value, key in zip((episode.frames, episode.state), inner, strict=True):
                    if value is not None:
                        np.testing.assert_array_equal(theirs[f"{number}/observations{key}"], value)
                np.testing.assert_array_equal(theirs[f"{number}/actions"], episode.actions)
                np.testing.assert_array_equal(theirs[f"{number}/rewards"], episode.rewards)
                assert theirs[f"{number}/truncations"].tolist() == [False] * (len(episode) - 2) + [True]


def main() -> None:
    if sys.argv[1:2] == ["--record"]:
        return record(Path(sys.argv[2]))
    if sys.argv[1:2] == ["--dump"]:
        return dump(Path(sys.argv[2]), Path(sys.argv[3]))
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        subprocess.run([sys.argv[1], __file__, "--record", folder], check=True)
        for form, jpeg, kind in LAYOUTS:
            check_reading(folder / f"{form}-{jpeg}-{kind}", kind)
            print(f"read as Minari reads it: {form}, {'JPEG' if jpeg else 'raw'}, {kind} actions")
        check_writing(folder, sys.argv[1])
        print("opened by Minari with every number the same: 6 datasets of ours")
    return None


if __name__ == "__main__":
    main()
