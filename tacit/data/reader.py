"""Where episodes come from: what a reader must say, and the readers that need no file."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, final

import numpy as np

from tacit.clip import Episode, Space
from tacit.data.video import Damaged

BETWEEN = ("actions", "latents", "codes", "rewards")  # what lies between two frames: one fewer than the frames
COLUMNS = ("frames", "state", *BETWEEN)
BLOCK = 256  # frames decoded at a time where all of an episode's need not be held


@dataclass(frozen=True)
class Spec:
    """What is present in every episode of a set, so that networks can be sized before a frame is read."""

    frame: tuple[int, int] | None = None  # (H, W)
    state: int = 0
    space: Space | None = None  # None: nobody recorded an action anywhere
    fps: float = 10.0
    latent: int = 0
    codes: int = 0  # how many codes a transition has
    rewards: bool = False
    text: bool = False
    name: str = ""

    def json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, value: dict[str, Any]) -> Spec:
        """The spec that ``json`` wrote."""
        value = dict(value)
        value["frame"] = None if value.get("frame") is None else tuple(value["frame"])
        value["space"] = None if value.get("space") is None else Space(**value["space"])
        return cls(**value)

    @property
    def pictures(self) -> tuple[int, int]:
        """``frame``, for those who cannot do without."""
        if self.frame is None:
            raise ValueError(
                f"The data {self.name!r} holds no frames, and this learns from pictures; give data that has some, or "
                "learn from states: aime, lila, or clam with states."
            )
        return self.frame

    @property
    def actions(self) -> Space:
        """``space``, for those who cannot do without."""
        if self.space is None:
            raise ValueError(
                f"The data {self.name!r} holds no action anywhere, and this learns from labels; "
                "give data of which at least a few transitions are labelled."
            )
        return self.space

    def has(self, column: str) -> bool:
        held = {"frames": self.frame, "actions": self.space, "latents": self.latent}
        return bool(held[column] if column in held else getattr(self, column))

    def blank(self, column: str, count: int) -> np.ndarray:
        """``count`` rows of a column that nobody recorded; frames, which cannot be absent, are left unfilled."""
        if column == "actions":
            assert self.space is not None
            return self.space.blank(count)
        if column == "frames":
            assert self.frame is not None
            return np.empty((count, *self.frame, 3), np.uint8)
        if column == "codes":
            return np.full((count, self.codes), -1, np.int64)
        shape = {"state": (count, self.state), "latents": (count, self.latent), "rewards": (count,)}[column]
        return np.full(shape, np.nan, np.float32)

    def recorded(self, column: str, value: np.ndarray | None) -> np.ndarray | None:
        """``value``, or ``None`` where every row of it is blank: what nobody recorded is absent."""
        if value is None or column in ("frames", "state"):
            return value
        if column == "actions" and self.space is not None:
            seen = self.space.labelled(value)
        else:
            seen = value >= 0 if column == "codes" else np.isfinite(value)
        return value if seen.any() else None


def content(episode: Episode) -> str:
    """A hash of what an episode shows, so that a recording is known again however it is stored, cached or labelled."""
    shown = episode.frames if episode.frames is not None else np.asarray(episode.state, np.float32)
    digest = hashlib.blake2b(f"{shown.dtype.str}{shown.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(shown).data)
    return digest.hexdigest()


class Reader(ABC):
    """Where episodes come from. A subclass gives ``spec``, ``lengths``, ``episode``, and what it knows cheaply."""

    spec: Spec
    lengths: np.ndarray  # int64, frames in each episode
    open: ClassVar[Callable[..., Any]]  # `tacit.data.open`, which hangs itself here: it knows all readers, they not it
    opening: dict[str, Any] | None = None  # what it needs to open the same again, in another process
    mixed: Mapping[str, Mapping[Any, int]] = MappingProxyType({})  # rates and sizes that were brought to one, counted
    beside: tuple[str, ...] = ()  # columns that lie there and have no place in an episode: other cameras, say
    fit: str = ""  # how pictures of another shape were brought to their size, where it is not by their middle
    unfinished: str = ""  # how far a command came that was stopped before all of it was there
    faults: Mapping[str, str] = MappingProxyType({})  # what lies there and is no episode, by name, and why

    @abstractmethod
    def episode(self, number: int) -> Episode:
        """Read one episode, or fail naming it."""

    @cached_property
    def prints(self) -> tuple[str, ...]:
        return tuple(content(self.episode(i)) for i in range(len(self.lengths)))

    @cached_property
    def sources(self) -> tuple[str, ...]:
        return tuple(about[0] for about in self._about)

    @cached_property
    def texts(self) -> tuple[str | None, ...]:
        return tuple(about[1] for about in self._about)

    @cached_property
    def successes(self) -> tuple[bool | None, ...]:
        return tuple(about[2] for about in self._about)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        return tuple(about[3] for about in self._about)

    @cached_property
    def _about(self) -> list[tuple[str, str | None, bool | None, str]]:
        """What is told of each episode, for readers that have to read it to know."""
        episodes = (self.episode(i) for i in range(len(self.lengths)))
        return [(e.source, e.text, e.success, e.split) for e in episodes]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What each episode is called where it comes from: a file, a key, a number."""
        return tuple(f"episode {i}" for i in range(len(self.lengths)))

    def blocks(self, number: int, *, count: int = BLOCK) -> Iterator[np.ndarray]:
        """An episode's frames, ``count`` at a time; a reader of video decodes no more than that at once."""
        frames = self.episode(number).frames
        if frames is not None:
            yield from (frames[i : i + count] for i in range(0, len(frames), count))

    def prefix(self, number: int, count: int) -> Episode:
        """The first ``count`` frames of an episode that is damaged after them."""
        frames = next(self.blocks(number, count=count))
        if len(frames) < count:
            raise Damaged(f"{self.names[number]} gives {len(frames)} frames; {count} were found whole before.")
        told = {k: self.spec.recorded(k, v) for k, v in self.columns(number).items()}
        cut = {k: None if v is None else v[: count - (k in BETWEEN)] for k, v in told.items()}
        about = {"text": self.texts[number], "source": self.sources[number], "split": self.splits[number]}
        return Episode(**(cut | about | {"frames": frames[:count]}))  # type: ignore[arg-type]

    def columns(self, number: int) -> Mapping[str, np.ndarray | None]:
        """What lies beside an episode's pictures, where a reader has it without decoding them."""
        return {}

    @property
    def origin(self) -> Any:
        """What tells it from other readers of equal names and lengths, in words of JSON."""
        return self.opening

    def flat(self, column: str) -> tuple[np.ndarray, ...]:
        """All episodes' rows of a column end to end, one row a frame (blank where a transition is none), in pieces."""
        if not self.spec.has(column):
            return ()
        group = ("frames",) if column == "frames" else tuple(c for c in COLUMNS[1:] if self.spec.has(c))
        if column not in self._flat:
            self._flat.update(self._gathered(group))
        return (self._flat[column],)

    def kept(self, rows: np.ndarray) -> np.ndarray:
        """The episodes, in order, that ``pieces`` holds to give these: all, where the others cost nothing."""
        return np.arange(len(self.lengths))

    def pieces(self, column: str, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """What ``flat`` gives, but of the ``kept`` episodes alone: a damaged one that nobody asked for harms nobody."""
        return self.flat(column)

    @cached_property
    def _flat(self) -> dict[str, np.ndarray]:
        return {}

    def _gathered(self, columns: Sequence[str]) -> dict[str, np.ndarray]:
        flat = {c: self.spec.blank(c, int(self.lengths.sum())) for c in columns}
        start = 0
        for number, length in enumerate(self.lengths):
            episode = self.episode(number)
            for column, rows in flat.items():
                value = getattr(episode, column)
                if value is not None:
                    rows[start : start + len(value)] = value
            start += int(length)
        return flat


class Through(Reader):
    """A reader that shows another's episodes in the same order, but otherwise: what is told of them stays."""

    reader: Reader

    @property
    def unfinished(self) -> str:  # type: ignore[override]
        return self.reader.unfinished

    @property
    def sources(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.reader.sources

    @property
    def texts(self) -> tuple[str | None, ...]:  # type: ignore[override]
        return self.reader.texts

    @property
    def successes(self) -> tuple[bool | None, ...]:  # type: ignore[override]
        return self.reader.successes

    @property
    def splits(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.reader.splits

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.reader.names


@final
class Memory(Reader):
    """Episodes that are already in memory."""

    def __init__(
        self, episodes: Iterable[Episode], *, space: Space | None = None, fps: float = 10.0, name: str = ""
    ) -> None:
        self._episodes = list(episodes)
        if not self._episodes:
            raise ValueError("There are no episodes; wanted at least one.")
        self.lengths = np.array([len(e) for e in self._episodes], np.int64)
        self.spec = self._shared(space, fps, name)

    def _shared(self, space: Space | None, fps: float, name: str) -> Spec:
        specs = []
        for number, episode in enumerate(self._episodes):
            specs.append(_shape(episode))
            if specs[-1][:2] != specs[0][:2]:
                raise ValueError(
                    f"Episode {number} has frames and state {specs[-1][:2]}; wanted those of episode 0, {specs[0][:2]}."
                )
            if episode.actions is not None:
                if space is None:
                    raise ValueError(f"Episode {number} has actions but no space was given: pass space=Space(...).")
                space.check(episode.actions, len(episode) - 1)
        latent, codes = {s[2] for s in specs if s[2]} or {0}, {s[3] for s in specs if s[3]} or {0}
        if len(latent) > 1 or len(codes) > 1:
            raise ValueError(
                f"Latents have widths {sorted(latent)} and codes {sorted(codes)}; each must be one number."
            )
        return Spec(
            frame=specs[0][0],
            state=specs[0][1],
            space=space,
            fps=fps,
            latent=max(latent),
            codes=max(codes),
            rewards=any(e.rewards is not None for e in self._episodes),
            text=any(e.text is not None for e in self._episodes),
            name=name,
        )

    @property
    def origin(self) -> Any:
        return self.prints

    def episode(self, number: int) -> Episode:
        return self._episodes[number]

    def flat(self, column: str) -> tuple[np.ndarray, ...]:
        fresh = column not in self._flat
        pieces = super().flat(column)
        if column == "frames" and fresh and pieces:  # the episodes become views, so that the pictures are held once
            parts = np.split(pieces[0], np.cumsum(self.lengths)[:-1])
            self._episodes = [e.replace(frames=p) for e, p in zip(self._episodes, parts, strict=True)]
        return pieces


def _shape(episode: Episode) -> tuple[tuple[int, int] | None, int, int, int]:
    frame = None if episode.frames is None else (int(episode.frames.shape[1]), int(episode.frames.shape[2]))
    widths = (0 if v is None else int(v.shape[1]) for v in (episode.state, episode.latents, episode.codes))
    return (frame, *widths)  # type: ignore[return-value]


@final
class Joined(Reader):
    """Several readers end to end. State that one lacks none has; actions that one lacks are blank."""

    path: Path | None = None  # the folder they lie in together, where there is one: their cache goes there

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.readers = tuple(readers)
        specs = [r.spec for r in self.readers]
        for field in ("frame", "fps"):
            if len({getattr(s, field) for s in specs}) > 1:
                raise ValueError(f"Cannot join sets whose {field} differs: {[getattr(s, field) for s in specs]}.")
        for field in ("state", "space", "latent", "codes"):
            if len({getattr(s, field) for s in specs} - {None, 0}) > 1:
                raise ValueError(f"Cannot join sets whose {field} differs: {[getattr(s, field) for s in specs]}.")
        self.spec = dataclasses.replace(
            specs[0],
            state=min(s.state for s in specs),
            space=next((s.space for s in specs if s.space is not None), None),
            latent=max(s.latent for s in specs),
            codes=max(s.codes for s in specs),
            rewards=any(s.rewards for s in specs),
            text=any(s.text for s in specs),
        )
        self.lengths = np.concatenate([r.lengths for r in self.readers])
        self._firsts = np.cumsum([0, *(len(r.lengths) for r in self.readers)])

    def episode(self, number: int) -> Episode:
        which, own = self._whose(number)
        episode = self.readers[which].episode(own)
        return episode if self.spec.state else episode.replace(state=None)

    @cached_property
    def prints(self) -> tuple[str, ...]:
        return tuple(p for r in self.readers for p in r.prints)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        return tuple(s for r in self.readers for s in r.sources)

    @cached_property
    def texts(self) -> tuple[str | None, ...]:
        return tuple(t for r in self.readers for t in r.texts)

    @cached_property
    def successes(self) -> tuple[bool | None, ...]:
        return tuple(s for r in self.readers for s in r.successes)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        return tuple(s for r in self.readers for s in r.splits)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(n for r in self.readers for n in r.names)

    @property
    def origin(self) -> Any:
        return self.opening or [r.origin for r in self.readers]

    @property
    def faults(self) -> Mapping[str, str]:  # type: ignore[override]
        return {name: why for r in self.readers for name, why in r.faults.items()}

    def blocks(self, number: int, *, count: int = BLOCK) -> Iterator[np.ndarray]:
        which, own = self._whose(number)
        return self.readers[which].blocks(own, count=count)

    def _whose(self, number: int) -> tuple[int, int]:
        """Which reader holds an episode, and its number there."""
        which = int(np.searchsorted(self._firsts, number, side="right")) - 1
        return which, number - int(self._firsts[which])

    def _shared(self, rows: np.ndarray) -> Iterator[tuple[int, Reader, np.ndarray]]:
        """Each reader with its first episode's number among all, and those of ``rows`` that are its own."""
        for first, reader in zip(self._firsts[:-1].tolist(), self.readers, strict=True):
            yield first, reader, rows[(first <= rows) & (rows < first + len(reader.lengths))] - first

    def kept(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([first + reader.kept(own) for first, reader, own in self._shared(rows)])

    def flat(self, column: str) -> tuple[np.ndarray, ...]:
        return self.pieces(column, np.arange(len(self.lengths)))

    def pieces(self, column: str, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        if not self.spec.has(column):
            return ()
        return tuple(
            piece
            for _, reader, own in self._shared(rows)
            for piece in (
                reader.pieces(column, own) or (self.spec.blank(column, int(reader.lengths[reader.kept(own)].sum())),)
            )
        )
