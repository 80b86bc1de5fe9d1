"""robomimic: one HDF5 file of demonstrations, ``data/demo_i``, and masks that say which are for training."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, final

import numpy as np

from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.file import need, whole
from tacit.data.formats.hdf import (
    SUFFIXES,
    attribute,
    child,
    created,
    inside,
    leaves,
    numbered,
    opened,
    packing,
    rows,
    shape,
    words,
)
from tacit.data.formats.stored import BROKEN, FACTS, MANY, Stored, Told, chosen, fact, frame, naming, rate, roomy, space
from tacit.data.reader import BLOCK, Reader, Spec
from tacit.data.video import Damaged

WHAT = "robomimic: one HDF5 file with data/demo_0, data/demo_1, ..."
EXTRA = "formats"

FIRST = ("train", "valid", "test")  # of the masks that a demonstration is in, those that are parts and not shares


@final
class Robomimic(Stored):
    """One file, kept open. Where the last of ``next_obs`` shows what came of it, the last action is kept."""

    def __init__(self, path: Path, *, camera: str | None = None) -> None:
        self._file = opened(path)
        with naming(path):
            data = inside(self._file, "data")
            fps, held, splits = self._told(data)
            told = [Told(name, fps=fps, space=held) for name in numbered(data, "demo_")]
            if len(told) > MANY:
                raise Damaged(f"it holds {len(told)} demonstrations; at most {MANY} are read.")
            seen = [self._seen(one) for one in told]
            kinds = Counter(kind for kind in seen if kind is not None).most_common(1)
            cameras, self._low = kinds[0][0] if kinds else ((), ())
            self._camera = chosen(cameras, camera)
        self._last: list[bool] = []
        for one in told:
            try:
                with naming(one.name):
                    self._last.append(self._look(one, splits))
            except Damaged as error:
                one.fault = one.fault or str(error)
                self._last.append(False)
        super().__init__(path, told, camera=camera)

    def _told(self, data: Any) -> tuple[float, Space | None, dict[str, str]]:
        """The rate, the action space, and to which part each demonstration belongs."""
        text = attribute(data, "env_args")
        environment = json.loads(text) if isinstance(text, str) else None
        arguments = environment.get("env_kwargs") if isinstance(environment, dict) else None
        ticks = arguments.get("control_freq") if isinstance(arguments, dict) else None
        fps = attribute(data, "fps")
        splits: dict[str, str] = {}
        masks = child(self._file, "mask")
        if type(masks).__name__ == "Group":
            for name in sorted(masks, key=lambda n: (n not in FIRST, n)):
                for demo in words(inside(masks, name, kind="Dataset")):
                    splits.setdefault(demo, name)
        return rate(fps or ticks or 10.0), space(attribute(data, "space")), splits

    def _seen(self, told: Told) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """The cameras of a demonstration, and what it observes as numbers."""
        try:
            with naming(told.name):
                held = leaves(inside(inside(inside(self._file, "data"), told.name), "obs"))
        except Damaged as error:
            told.fault = str(error)
            return None
        cameras = tuple(sorted(n for n, d in held.items() if d.shape and frame(d.shape, d.dtype)))
        return cameras, tuple(sorted(n for n, d in held.items() if d.ndim in (1, 2) and d.dtype.kind in "biuf"))

    def _look(self, told: Told, splits: dict[str, str]) -> bool:
        """Note the shapes of one demonstration; whether its last action leads somewhere."""
        demo = inside(inside(self._file, "data"), told.name)
        names = [*([self._camera] if self._camera else []), *self._low]
        if not names:
            raise Damaged("it observes neither pictures nor numbers.")
        steps = (*shape(self._data(told.name, names[0])), 0)[0]
        later = child(demo, "next_obs")
        after = leaves(later) if later is not None else {}
        last = steps > 0 and all(n in after and shape(after[n])[:1] == (steps,) for n in names)
        told.length = steps + last
        for name in names:
            data = self._data(told.name, name)
            size = shape(data)
            if size[:1] != (steps,):
                raise Damaged(f"its {name} has {size[:1]} rows, its {names[0]} {steps}.")
            roomy((told.length, *size[1:]), data.dtype, where=name)
            told.hold("frames" if name == self._camera else "state", (told.length, *size[1:]), dtype=data.dtype)
        for column in ("actions", "rewards"):
            data = child(demo, column)
            if data is not None:
                told.hold(column, shape(data), dtype=data.dtype)
        told.facts = {name: fact(name, attribute(demo, name)) for name in FACTS}
        told.facts["split"] = told.facts["split"] or splits.get(told.name, "")
        return last

    def _data(self, demo: str, name: str, where: str = "obs") -> Any:
        found = inside(inside(self._file, "data"), demo)
        *groups, last = (*([where] if where else []), *name.split("/"))
        for group in groups:
            found = inside(found, group)
        return inside(found, last, kind="Dataset")

    def values(self, number: int, column: str) -> np.ndarray:
        told, last = self.told[number], self._last[number]
        if column in ("actions", "rewards"):
            return rows(self._data(told.name, column, ""))
        parts = [self._camera] if column == "frames" else self._low
        size = (told.length, *shape(self._data(told.name, str(parts[0])))[1:])
        pictured = column == "frames" and self._data(told.name, str(parts[0])).dtype == np.uint8
        out = np.empty(size if column == "frames" else (told.length, told.state), np.uint8 if pictured else np.float32)
        at = 0
        for name in map(str, parts):
            data = self._data(told.name, name)
            wide = math.prod(data.shape[1:])
            into = out if column == "frames" else out[:, at : at + wide]
            for start in range(0, len(data), BLOCK):  # few at a time: no second copy of an episode
                into[start : min(start + BLOCK, len(data))] = _wide(rows(data, start, stop=start + BLOCK), into)
            if last:
                later = self._data(told.name, name, "next_obs")
                into[-1:] = _wide(rows(later, len(later) - 1), into)
            at += wide
        return out


def _wide(value: np.ndarray, into: np.ndarray) -> np.ndarray:
    return value.reshape(len(value), *into.shape[1:])


def recognises(path: Path) -> bool:
    """Whether it is an HDF5 file with demonstrations in it; where none can be opened, whether its name says so."""
    try:
        if path.suffix not in SUFFIXES or not path.is_file():
            return False
        with opened(path) as file:
            names = itertools.islice(inside(file, "data"), 64)
            return bool(numbered(names, "demo_"))
    except ImportError:
        return True
    except BROKEN:
        return False


def read(path: Path, *, camera: str | None = None) -> Reader:
    """The demonstrations of one file."""
    return Robomimic(Path(path), camera=camera)


def write(episodes: Episodes, path: Path) -> None:
    """One file with ``obs`` and ``next_obs``; actions are written as they are, though robomimic wants [-1, 1]."""
    need("h5py", reading="writing robomimic's HDF5")
    spec, splits = episodes.spec, dict[str, list[str]]()
    with whole(Path(path)) as staged, created(staged) as (file, check):
        data = file.create_group("data")
        for number in range(len(episodes)):
            name, episode = f"demo_{number}", episodes.episode(number)
            _write(data.create_group(name), episode, spec)
            splits.setdefault(episode.split, []).append(name)
            check()
        environment = {"env_name": spec.name, "type": 2, "env_kwargs": {"control_freq": spec.fps}}
        data.attrs["total"] = int(sum(demo.attrs["num_samples"] for demo in data.values()))
        data.attrs["env_args"], data.attrs["fps"] = json.dumps(environment), spec.fps
        if spec.space is not None:
            data.attrs["space"] = json.dumps(dataclasses.asdict(spec.space))
        for split, names in splits.items():
            if re.fullmatch(r"\w[\w. -]*", split):  # other names would be groups in groups
                file.create_dataset(f"mask/{split}", data=np.array(names, "S"))


def _write(demo: Any, episode: Episode, spec: Spec) -> None:
    # A lone frame has no transition: it stands as an observation whose action leads nowhere.
    length = len(episode)
    steps, kinds = max(1, length - 1), (("obs", slice(0, max(1, length - 1))), ("next_obs", slice(1, None)))
    for name, where in kinds[: 1 if length == 1 else 2]:
        for column, key in (("frames", "image"), ("state", "state")):
            value = getattr(episode, column)
            if value is not None:
                packed = packing(value) if column == "frames" else {}
                demo.create_dataset(f"{name}/{key}", data=value[where], **packed)
    if spec.space is not None:
        actions = spec.space.blank(steps) if episode.actions is None or length == 1 else episode.actions
        demo.create_dataset("actions", data=actions.reshape(steps, -1))
    if episode.rewards is not None and length > 1:
        demo.create_dataset("rewards", data=episode.rewards)
    demo.create_dataset("dones", data=np.arange(1, steps + 1) == steps, dtype=np.int64)
    demo.attrs["num_samples"] = steps
    for name, (absent, _) in FACTS.items():
        if getattr(episode, name) != absent:
            demo.attrs[name] = getattr(episode, name)
