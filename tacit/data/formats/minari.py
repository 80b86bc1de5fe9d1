"""Minari: a folder with ``data/main_data.hdf5``, or with an Arrow or parquet file for each episode."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np

from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.file import need, whole
from tacit.data.formats.hdf import created, packing
from tacit.data.formats.layouts import ABOUT, Arrow, Found, Hdf, Layout, Leaf, description
from tacit.data.formats.stored import BROKEN, FACTS, Stored, Told, chosen, frame, naming, rate, sane, space
from tacit.data.reader import Reader, Spec
from tacit.data.video import Damaged

WHAT = "Minari: a dataset's folder, its data folder, or main_data.hdf5"
EXTRA = "formats"

MAIN = "main_data.hdf5"
OURS = "tacit"  # what the format has no room for
VERSION = "0.5.3"  # the oldest of Minari's that do not take every picture for a JPEG


@final
class Minari(Stored):
    """A dataset of either layout; the rows of an episode are read when it is asked for."""

    def __init__(self, path: Path, *, camera: str | None = None) -> None:
        home, main = _home(path)
        with naming(path):
            told = description(home / ABOUT) if (home / ABOUT).is_file() else {}
            spaces, kind = _spaces(told), told.get("data_format")
            ours: dict[str, Any] = told[OURS] if isinstance(told.get(OURS), dict) else {}
            if not main.is_file() and kind not in ("arrow", "parquet"):
                raise Damaged(f"it holds no {MAIN}, and {ABOUT} does not say that it is of Arrow or parquet.")
        self._layout: Layout = Hdf(main, spaces) if main.is_file() else Arrow(home, spaces, kind=str(kind))
        with naming(path):
            self._first, offered = _actions(told, ours)
            episodes = [Told(n, fps=rate(ours.get("fps", 10.0)), space=offered) for n in self._layout.names]
            self._found = [self._look(one) for one in episodes]
            kinds = Counter(_kinds(f.seen) for f in self._found if f is not None).most_common(1)
            cameras, self._low = kinds[0][0] if kinds else ((), ())
            self._camera = chosen(cameras, camera)
            for one, found in zip(episodes, self._found, strict=True):
                if found is not None:
                    self._hold(one, found, bare=bool(ours) and offered is None, paid=ours.get("rewards") is not False)
            promised = told.get("total_episodes", len(episodes))
            if promised != len(episodes):
                self.faults = {ABOUT: f"it promises {promised} episodes; {len(episodes)} are there."}
        name = home.absolute().parent.name if home.name == "data" else ""
        super().__init__(path, episodes, camera=camera, name=name)

    def _look(self, told: Told) -> Found | None:
        try:
            with naming(told.name):
                return self._layout.look(told.name)
        except Damaged as error:
            told.fault = str(error)
            return None

    def _hold(self, told: Told, found: Found, *, bare: bool, paid: bool) -> None:
        told.length, told.facts = found.steps + 1, found.facts
        for column, names in (("frames", (self._camera,)), ("state", self._low)):
            for name in filter(None, names):
                leaf = found.seen.get(_inner(name))
                if leaf is None:
                    told.fault = told.fault or f"its observations lack {name!r}."
                    continue
                size = (*leaf.shape[:2], 3) if leaf.packed else leaf.shape
                told.admit(column, (told.length, *size), dtype=leaf.dtype)
        if not bare and found.done:
            parts = list(found.done.values())
            told.action = len(parts) == 1 and parts[0].dtype.kind in "biu", sum(math.prod(p.shape) for p in parts)
        if paid and found.rewards is not None:
            told.rewards = True

    def values(self, number: int, column: str) -> np.ndarray:
        name, found = self.told[number].name, self._found[number]
        assert found is not None
        if column == "rewards":
            assert found.rewards is not None
            return self._layout.rows(name, "rewards/", leaf=found.rewards)
        if column == "actions":
            keys, held = sorted(found.done), found.done
        else:
            held = found.seen
            keys = [_inner(k) for k in ((str(self._camera),) if column == "frames" else self._low)]
        group = "actions" if column == "actions" else "observations"
        parts = [self._layout.rows(name, f"{group}/{k}", leaf=held[k]) for k in keys]
        if len(parts) > 1:
            return np.concatenate([p.reshape(len(p), math.prod(p.shape[1:])).astype(np.float32) for p in parts], 1)
        return parts[0] - self._first if column == "actions" and self._first else parts[0]


def _inner(name: str) -> str:
    return "" if name == "observations" else name


def _kinds(seen: dict[str, Leaf]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The cameras among what was seen, and what are numbers."""
    cameras = (k or "observations" for k, v in seen.items() if v.packed or frame((1, *v.shape), v.dtype))
    low = (k or "observations" for k, v in seen.items() if not v.packed and len(v.shape) < 2)
    return tuple(sorted(cameras)), tuple(sorted(low))


def _spaces(told: dict[str, Any]) -> dict[str, Leaf]:
    """The arrays that an observation and an action are made of, as the spaces tell them."""
    found: dict[str, Leaf] = {}
    for group in ("observations", "actions"):
        text = told.get(f"{group[:-1]}_space")
        if isinstance(text, str):
            for path, leaf in _leaves(json.loads(text), jpeg=bool(told.get("jpeg_encoding", True))):
                found[f"{group}/{'/'.join(path)}"] = leaf
    return found


def _leaves(told: dict[str, Any], *, jpeg: bool) -> Iterator[tuple[tuple[str, ...], Leaf]]:
    kind = told["type"]
    if kind in ("Dict", "Tuple"):
        parts = told["subspaces"]
        named = parts.items() if kind == "Dict" else ((f"_index_{i}", p) for i, p in enumerate(parts))
        for name, part in named:
            yield from (((name, *path), leaf) for path, leaf in _leaves(part, jpeg=jpeg))
    elif kind == "Box":
        size, dtype = tuple(int(n) for n in told["shape"]), np.dtype(str(told["dtype"]))
        sane((1, *size), dtype, where="a space")
        # As Minari itself decides which pictures it packs.
        packed = jpeg and dtype == np.uint8 and len(size) in (2, 3) and min(size[:2]) >= 32
        packed = packed and not np.any(told["low"]) and bool(np.all(np.asarray(told["high"]) == 255))
        yield (), Leaf(size, dtype, packed)
    elif kind != "Text":
        counts: Any = told.get("n", 0) if kind == "MultiBinary" else np.shape(told["nvec"]) if "nvec" in told else ()
        yield (), Leaf(tuple(int(n) for n in np.ravel(counts)), np.dtype("i8"))


def _actions(told: dict[str, Any], ours: dict[str, Any]) -> tuple[int, Space | None]:
    """The number of the first choice, and the action space, as far as they are told."""
    if ours:
        return 0, space(ours.get("space"))
    text = told.get("action_space")
    value = json.loads(text) if isinstance(text, str) else {}
    if value.get("type") == "Discrete":
        return int(value.get("start", 0)), Space("discrete", int(value["n"]))
    if value.get("type") == "Box":
        low, high = (float(f(np.asarray(value[k], np.float64))) for f, k in ((np.min, "low"), (np.max, "high")))
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return 0, Space("continuous", math.prod(value["shape"]), low, high)
    return 0, None


def _home(path: Path) -> tuple[Path, Path]:
    """The folder with the metadata, and the HDF5 file in it if there is one."""
    if path.is_file():
        return path.parent, path
    inner = path / "data"
    home = inner if any((inner / name).is_file() for name in (ABOUT, MAIN)) else path
    return home, home / MAIN


def recognises(path: Path) -> bool:
    """Whether it is a dataset of Minari, by its one file's name, or by what its metadata says of many."""
    try:
        home, main = _home(path)
        if path.is_file() and path.name != MAIN:
            return False
        return main.is_file() or (home / ABOUT).is_file() and "data_format" in description(home / ABOUT)
    except BROKEN:
        return False


def read(path: Path, *, camera: str | None = None) -> Reader:
    """The episodes of a dataset."""
    return Minari(Path(path), camera=camera)


def write(episodes: Episodes, path: Path) -> None:
    """A dataset in HDF5 whose pictures are exact, not JPEG; move it to Minari's folder to load it by its name."""
    need("h5py", reading="writing Minari's HDF5")
    path, spec = Path(path), episodes.spec
    with whole(path) as staged:
        (staged / "data").mkdir(parents=True)
        with created(staged / "data" / MAIN, ordered=True) as (file, check):
            for number in range(len(episodes)):
                _write(file.create_group(f"episode_{number}"), episodes.episode(number), spec, number)
                check()
        size = (staged / "data" / MAIN).stat().st_size / 1e6
        name = re.sub(r"[^-\w]", "-", path.absolute().name)
        seen = {"image": _box("uint8", (*spec.frame, 3), 0, 255)} if spec.frame else {}
        seen |= {"state": _box("float32", (spec.state,), -math.inf, math.inf)} if spec.state else {}
        told = {"type": "Dict", "subspaces": seen} if len(seen) > 1 else next(iter(seen.values()))
        done = spec.space or Space("continuous", 1)
        acts = _box("float32", (done.size,), done.low, done.high)
        about = {
            "dataset_id": name if re.search(r"-v\d+$", name) else f"{name}-v0",
            "total_episodes": len(episodes),
            "total_steps": int(episodes.lengths.sum()) - len(episodes),
            "data_format": "hdf5",
            "jpeg_encoding": False,
            "observation_space": json.dumps(told),
            "action_space": json.dumps(
                {"type": "Discrete", "dtype": "int64", "start": 0, "n": done.size} if done.discrete else acts
            ),
            "minari_version": VERSION,
            "dataset_size": round(size, 1),
            OURS: {
                "fps": spec.fps,
                "space": None if spec.space is None else dataclasses.asdict(spec.space),
                "rewards": spec.rewards,
            },
        }
        (staged / "data" / ABOUT).write_text(json.dumps(about), "utf-8")


def _box(dtype: str, size: tuple[int, ...], low: float, high: float) -> dict[str, Any]:
    bounds = {k: np.full(size, v, dtype).tolist() for k, v in (("low", low), ("high", high))}
    return {"type": "Box", "dtype": dtype, "shape": list(size), **bounds}


def _write(group: Any, episode: Episode, spec: Spec, number: int) -> None:
    steps = len(episode) - 1
    seen = {k: v for k, v in (("image", episode.frames), ("state", episode.state)) if v is not None}
    for key, value in seen.items():
        name = f"observations/{key}" if len(seen) > 1 else "observations"
        group.create_dataset(name, data=value, **(packing(value) if key == "image" else {}))
    actions = (spec.space or Space("continuous", 1)).blank(steps) if episode.actions is None else episode.actions
    paid = np.full(steps, np.nan, np.float32) if episode.rewards is None else episode.rewards
    group.create_dataset("actions", data=actions)
    group.create_dataset("rewards", data=paid)
    group.create_dataset("terminations", data=np.zeros(steps, bool))
    group.create_dataset("truncations", data=np.arange(1, steps + 1) == steps)
    group.attrs["id"], group.attrs["total_steps"] = number, steps
    for name, (absent, _) in FACTS.items():
        if getattr(episode, name) != absent:
            group.attrs[name] = getattr(episode, name)
