"""The real lerobot against our files: what we write opens, trains and is added to there, and theirs opens here.

lerobot's pins clash with ours, so it lives in an environment of its own (Python 3.12):

    python3.12 -m venv /tmp/lerobot && /tmp/lerobot/bin/pip install "lerobot[dataset]==0.6.1"
    python bench/lerobotinterop.py --lerobot /tmp/lerobot/bin/python --out results/lerobot.json

This script writes datasets, has that interpreter run the part of itself that imports lerobot, and compares: every frame
of every episode, actions, tasks and rates, a dataset that lerobot recorded, one that it appended to, and a training
step of its own loader.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

CAMERA = "observation.images.main"
LENGTHS = (9, 12, 7)


def picture(episode: int, frame: int, side: int = 64) -> np.ndarray:
    """A picture that tells its own number, in blocks that survive compression."""
    number = 100 * episode + frame
    cells = np.array([(number >> k) & 1 for k in range(16)], np.uint8).reshape(4, 4) * 200 + 25
    return np.repeat(cells.repeat(side // 4, 0).repeat(side // 4, 1)[:, :, None], 3, 2)


def numbers(frames: np.ndarray) -> list[int]:
    """What numbers the pictures tell, (T, H, W, 3)."""
    side = frames.shape[1] // 4
    cells = frames[:, side // 2 :: side, side // 2 :: side, 0][:, :4, :4].reshape(len(frames), 16)
    return [int(sum(1 << k for k in range(16) if row[k] > 125)) for row in cells]


def wanted(episode: int, length: int) -> list[int]:
    return [100 * episode + t for t in range(length)]


def theirs(home: Path) -> dict[str, Any]:
    """The part that runs where lerobot is installed."""
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    found: dict[str, Any] = {}
    for name in ("lossless", "lossy", "free"):
        held = LeRobotDataset(f"tacit/{name}", root=home / name, delta_timestamps={CAMERA: [0.0, 0.1]})
        seen: list[list[int]] = []
        tasks, padded, actions = set(), 0, []
        for i in range(len(held)):
            row = held[i]
            frames = (row[CAMERA].permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
            seen.append(numbers(frames))
            tasks.add(row["task"])
            padded += int(row[f"{CAMERA}_is_pad"].sum())
            if "action" in row:
                actions.append(row["action"].tolist())
        found[name] = {"frames": seen, "tasks": sorted(tasks), "padded": padded, "actions": actions, "fps": held.fps}
    loader = torch.utils.data.DataLoader(LeRobotDataset("tacit/lossless", root=home / "lossless"), batch_size=8)
    layer = torch.nn.Linear(3 * 64 * 64, 2)
    for batch in loader:
        known = torch.isfinite(batch["action"]).all(1)
        loss = (layer(batch[CAMERA].flatten(1))[known] - batch["action"][known]).square().mean()
        loss.backward()
    found["loss"] = float(loss)
    features = {
        CAMERA: {"dtype": "video", "shape": (64, 64, 3), "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
    }
    recorded = LeRobotDataset.create("tacit/recorded", fps=10, features=features, root=home / "recorded")
    for episode, length in enumerate(LENGTHS):
        for t in range(length):
            action = np.array([episode, t], np.float32) / 16
            recorded.add_frame({CAMERA: picture(episode, t), "action": action, "task": f"task {episode}"})
        recorded.save_episode()
    recorded.finalize()
    resumed = (
        LeRobotDataset.resume("tacit/lossless", root=home / "lossless") if hasattr(LeRobotDataset, "resume") else None
    )
    if resumed is not None:
        for t in range(5):
            row: dict[str, Any] = {CAMERA: picture(7, t), "action": np.zeros(2, np.float32), "task": "appended"}
            resumed.add_frame(row)
        resumed.save_episode()
        resumed.finalize()
    found["appended"] = resumed is not None
    return found


def written(home: Path) -> None:
    """What we write: without loss, with loss, and without any action."""
    import tacit.data as data
    from tacit.clip import Episode, Space
    from tacit.data.episodes import Episodes

    episodes = [
        Episode(
            frames=np.stack([picture(e, t) for t in range(length)]),
            actions=np.stack([np.array([e, t], np.float32) / 16 for t in range(length - 1)]),
            text=f"task {e}",
        )
        for e, length in enumerate(LENGTHS)
    ]
    whole = Episodes.of(episodes, space=Space("continuous", 2), fps=10)
    data.save(whole, home / "lossless", lossless=True, group=20)
    data.save(whole, home / "lossy", lossless=False, group=20)
    data.save(Episodes.of([e.replace(actions=None) for e in episodes], fps=10), home / "free")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot", help="the interpreter of an environment that has lerobot")
    parser.add_argument("--theirs", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    asked = parser.parse_args()
    if asked.theirs:
        (asked.theirs / "found.json").write_text(json.dumps(theirs(asked.theirs)))
        return 0
    if not asked.lerobot:
        parser.error("give --lerobot, the interpreter of an environment that has lerobot")
    import tacit.data as data

    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        written(home)
        subprocess.run([asked.lerobot, __file__, "--theirs", str(home)], check=True)
        found, rows = json.loads((home / "found.json").read_text()), []
        pairs = [
            [[n, n + (t < length - 1)] for t, n in enumerate(wanted(e, length))] for e, length in enumerate(LENGTHS)
        ]
        truth = [pair for some in pairs for pair in some]
        for name in ("lossless", "lossy", "free"):
            told = found[name]
            good = told["frames"] == truth and told["tasks"] == [f"task {e}" for e in range(3)] and told["fps"] == 10
            good &= told["padded"] == len(LENGTHS)
            rows.append({"what": f"ours, {name}, read by lerobot frame for frame", "equal": bool(good)})
        rows.append({"what": "ours, trained on by lerobot's loader", "equal": bool(np.isfinite(found["loss"]))})
        back = data.open(home / "recorded")
        good = all(numbers(back.episode(e).frames) == wanted(e, n) for e, n in enumerate(LENGTHS))  # type: ignore[arg-type]
        good &= back.texts == tuple(f"task {e}" for e in range(3)) and back.spec.fps == 10
        moves = [np.array([[e, t] for t in range(n - 1)], np.float32) / 16 for e, n in enumerate(LENGTHS)]
        good &= all(np.array_equal(back.episode(e).actions, moves[e]) for e in range(3))  # type: ignore[arg-type]
        rows.append({"what": "recorded by lerobot, read by us frame for frame", "equal": bool(good)})
        if found["appended"]:
            grown = data.open(home / "lossless")
            good = len(grown) == 4 and numbers(grown.episode(3).frames) == wanted(7, 5)  # type: ignore[arg-type]
            good &= numbers(grown.episode(0).frames) == wanted(0, LENGTHS[0])  # type: ignore[arg-type]
            rows.append({"what": "ours, appended to by lerobot, read by us", "equal": bool(good)})
    for row in rows:
        print("equal " if row["equal"] else "DIFFERS", row["what"])
    if asked.out:
        claimed(rows, asked)
    return int(not all(row["equal"] for row in rows))


def claimed(rows: list[dict[str, Any]], asked: argparse.Namespace) -> None:
    """The rows as a file of results."""
    from tacit.evaluate.claim import Claim

    command = [asked.lerobot, "-c", "from importlib.metadata import version; print(version('lerobot'))"]
    version = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def draw(axes: Any) -> None:
        axes.barh([row["what"] for row in rows], [1 if row["equal"] else 0.02 for row in rows], color="#2a7f62")
        axes.set(title=f"lerobot {version} and tacit, each reading the other", xticks=[])
        axes.invert_yaxis()

    Claim(
        claim=f"lerobot {version} opens, trains on and appends to what we write, and what it records opens here, frame "
        "for frame.",
        command=shlex.join(["python", "bench/lerobotinterop.py", *sys.argv[1:]]),
        value=sum(row["equal"] for row in rows),
        interval=None,
        n=len(rows),
        seeds=(0,),
        bar="every one of them",
        passed=len(rows) >= 6 and all(row["equal"] for row in rows),
        rows=rows,
        extra={"lerobot": version},
    ).save(asked.out, draw=draw)


if __name__ == "__main__":
    sys.exit(main())
