"""Episodes: recordings held lazily, and the only ways to split, select, label and clip them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import numpy as np

from tacit.clip import Episode, Space
from tacit.data.reader import BETWEEN, COLUMNS, Joined, Memory, Reader, Spec, content

if TYPE_CHECKING:
    from tacit.data.clips import Clips
    from tacit.data.stream import Streamed

__all__ = ["BETWEEN", "COLUMNS", "Episodes", "Joined", "Memory", "Reader", "Spec", "content"]


@final
class Episodes:
    """Recordings to learn from: which episodes of a reader, which labels may be seen, which latents they carry."""

    def __init__(
        self,
        reader: Reader,
        rows: Sequence[int] | np.ndarray | None = None,
        *,
        labels: np.ndarray | None = None,
        latents: np.ndarray | None = None,
        codes: np.ndarray | None = None,
        buffer: int = 0,
    ) -> None:
        self.reader = reader
        self.buffer = buffer  # bytes of decoded frames held while clips are streamed; 0: clips come from a cache
        self.rows = np.arange(len(reader.lengths)) if rows is None else np.asarray(rows, np.int64)
        # Overlays, one row a frame in this set's own order: the recording beneath is shared and never altered.
        self._labels, self._latents, self._codes = labels, latents, codes
        self.lengths: np.ndarray = reader.lengths[self.rows]
        for name, value in (("labels", labels), ("latents", latents), ("codes", codes)):
            if value is not None and len(value) != self.lengths.sum():
                raise ValueError(f"Overlaid {name} have {len(value)} rows; wanted one a frame, {self.lengths.sum()}.")
        changes: dict[str, Any] = {} if latents is None else {"latent": latents.shape[1]}
        changes |= {} if codes is None else {"codes": codes.shape[1]}
        self.spec = dataclasses.replace(reader.spec, **changes)

    @classmethod
    def of(
        cls, episodes: Iterable[Episode], *, space: Space | None = None, fps: float = 10.0, name: str = ""
    ) -> Episodes:
        return cls(Memory(episodes, space=space, fps=fps, name=name))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Episodes({len(self)} episodes, {int(self.lengths.sum())} frames, {self.spec})"

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(self.reader.sources[i] for i in self.rows)

    @property
    def texts(self) -> tuple[str | None, ...]:
        return tuple(self.reader.texts[i] for i in self.rows)

    @property
    def successes(self) -> tuple[bool | None, ...]:
        return tuple(self.reader.successes[i] for i in self.rows)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.reader.splits[i] for i in self.rows)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.reader.names[i] for i in self.rows)

    @property
    def prints(self) -> tuple[str, ...]:
        return tuple(self.reader.prints[i] for i in self.rows)

    @property
    def origin(self) -> Any:
        """Where these come from, which of them they are, and what is laid over them, in words of JSON."""
        laid = (None if v is None else np.ascontiguousarray(v) for v in (self._labels, self._latents, self._codes))
        marks = [None if v is None else hashlib.blake2b(v.data, digest_size=16).hexdigest() for v in laid]
        return [self.reader.origin, self.rows.tolist(), marks]

    @property
    def fingerprint(self) -> str:
        """One hash of everything that training on this set would see."""
        fit = [self.reader.fit] if self.reader.fit else []
        digest = hashlib.blake2b(json.dumps([self.spec.json(), *self.prints, *fit]).encode(), digest_size=16)
        for column in COLUMNS[1:]:
            value = self.column(column)
            digest.update(b"-" if value is None else np.ascontiguousarray(value).data)
        return digest.hexdigest()

    def overlap(self, prints: Iterable[str]) -> int:
        """How many of these episodes show what one of ``prints`` shows: more than 0 means they are not held out."""
        seen = set(prints)
        return sum(p in seen for p in self.prints)

    @cached_property
    def starts(self) -> np.ndarray:
        """The first row of each episode in ``column``."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def places(self) -> np.ndarray:
        """The first row of each episode in the pieces of the reader."""
        kept = self.reader.kept(self.rows)
        lengths = self.reader.lengths[kept]
        return np.asarray((np.cumsum(lengths) - lengths)[np.searchsorted(kept, self.rows)])

    def episode(self, number: int) -> Episode:
        if not -len(self) <= number < len(self):
            raise IndexError(f"Episode {number} was asked for; there are {len(self)}.")
        number %= len(self)
        episode = self.reader.episode(int(self.rows[number]))
        start, changes = int(self.starts[number]), {}
        between = slice(start, start + len(episode) - 1)
        if self._labels is not None and episode.actions is not None and self.spec.space is not None:
            blank = self.spec.space.blank(len(episode) - 1)
            keep = self._labels[between].reshape(-1, *[1] * (blank.ndim - 1))
            changes["actions"] = np.where(keep, episode.actions, blank)
        if self._latents is not None:
            changes["latents"] = self._latents[between]
        if self._codes is not None:
            changes["codes"] = self._codes[between]
        return episode.replace(**changes)

    @property
    def plain(self) -> bool:
        """Nothing is laid over the recordings: no label hidden, no inferred latent."""
        return self._labels is None and self._latents is None and self._codes is None

    def damaged(self) -> dict[int, str]:
        """The episodes that cannot be read, and why: to count, to report, and to leave out with ``select``."""
        faults = {}
        for number in range(len(self)):
            try:
                self.episode(number)
            except (ValueError, OSError) as error:
                faults[number] = str(error)
        return faults

    def bare(self) -> Episodes:
        """The same recordings as they lie on the disk: no label hidden, no inferred latent."""
        return Episodes(self.reader, self.rows)

    def onto(self, reader: Reader) -> Episodes:
        """The same view of the same episodes, held by a reader that has these and no others, in this order."""
        if not np.array_equal(reader.lengths, self.lengths):
            raise ValueError(f"The reader holds {len(reader.lengths)} other episodes than these {len(self)}.")
        return Episodes(reader, None, labels=self._labels, latents=self._latents, codes=self._codes)

    def column(self, name: str) -> np.ndarray | None:
        """One column of all episodes end to end, one row a frame; an episode's last row, no transition, is blank."""
        overlaid = {"latents": self._latents, "codes": self._codes}.get(name)
        if overlaid is not None:
            return overlaid
        pieces = self.reader.pieces(name, self.rows)
        if not pieces:
            return None
        value = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        if len(value) != self.lengths.sum() or not np.array_equal(self.places, self.starts):
            within = np.arange(int(self.lengths.sum())) - np.repeat(self.starts, self.lengths)
            value = value[np.repeat(self.places, self.lengths) + within]
        if name == "actions" and self._labels is not None:
            value = np.where(
                self._labels.reshape(-1, *[1] * (value.ndim - 1)), value, self.spec.blank(name, len(value))
            )
        return value

    def stack(self) -> dict[str, np.ndarray]:
        """Every transition of every episode as flat arrays, frames excepted, for probes and for counting."""
        keep = np.ones(int(self.lengths.sum()), bool)
        keep[self.starts + self.lengths - 1] = False
        at = np.flatnonzero(keep)
        owner = np.repeat(np.arange(len(self)), self.lengths)[at]
        stacked = {"episode": owner, "step": at - self.starts[owner]}
        for name in COLUMNS[1:]:
            value = self.column(name)
            if value is not None:
                stacked[name] = value[at]
                if name == "state":
                    stacked["next_state"] = value[at + 1]
        return stacked

    @property
    def mask(self) -> np.ndarray:
        """One truth a frame: somebody's label of the transition that leaves it may be seen."""
        actions = self.column("actions")
        if actions is None or self.spec.space is None:
            return np.zeros(int(self.lengths.sum()), bool)
        mask = np.array(self.spec.space.labelled(actions))
        mask[self.starts + self.lengths - 1] = False
        return mask

    @property
    def labelled(self) -> int:
        """How many transitions carry a label."""
        return int(self.mask.sum())

    def select(self, which: str | Callable[[str], bool] | Sequence[int] | np.ndarray) -> Episodes:
        """Some episodes: those of one source, those whose source satisfies a predicate, or those with these numbers."""
        if isinstance(which, str) or callable(which):
            keep = [s == which if isinstance(which, str) else which(s) for s in self.sources]
            if not any(keep):
                raise ValueError(f"No episode was selected by {which!r}; the sources are {sorted(set(self.sources))}.")
            which = np.flatnonzero(keep)
        picked = np.arange(len(self))[np.asarray(which)] if len(which) else np.zeros(0, np.int64)
        within = [np.arange(self.starts[i], self.starts[i] + self.lengths[i]) for i in picked]
        at = np.concatenate(within) if within else np.zeros(0, np.int64)
        labels, latents, codes = (None if v is None else v[at] for v in (self._labels, self._latents, self._codes))
        return Episodes(self.reader, self.rows[picked], labels=labels, latents=latents, codes=codes, buffer=self.buffer)

    def part(self, name: str) -> Episodes:
        """The episodes that were assigned to a part of their dataset: "train", say."""
        found = np.flatnonzero([s == name for s in self.splits])
        if not len(found):
            held = sorted(set(self.splits) - {""}) or "none; assign some with `tacit data split`"
            raise ValueError(f"No episode was assigned to {name!r}; the parts are {held}.")
        return self.select(found)

    def split(self, held: float = 0.1, *, seed: int = 0) -> tuple[Episodes, Episodes]:
        """``(train, held-out)``: each episode's side depends on its own content only, so appending moves no episode."""
        if not 0 < held < 1 or len(self) < 2:
            raise ValueError(
                f"Cannot hold out {held} of {len(self)} episodes; wanted a share within (0, 1) of at least 2."
            )
        hashes = [hashlib.blake2b(f"{seed}:{p}".encode(), digest_size=8).digest() for p in self.prints]
        score = np.array([int.from_bytes(h, "big") / 2**64 for h in hashes])
        # So few episodes that chance left one side empty: the nearest to the line crosses it.
        line = min(max(held, np.nextafter(score.min(), 1)), score.max())
        if score.min() == score.max():
            raise ValueError(f"All {len(self)} episodes show the same thing; nothing can be held out honestly.")
        return self.select(np.flatnonzero(score >= line)), self.select(np.flatnonzero(score < line))

    def keep_labels(self, count: int, *, stretch: int = 16, seed: int = 0, source: str | None = None) -> Episodes:
        """Exactly ``count`` labels, kept as a person would give them: whole stretches, small budgets within large."""
        mask = self.mask
        if source is not None:
            mask &= np.repeat(np.array([s == source for s in self.sources]), self.lengths)
        if count > mask.sum():
            where = "" if source is None else f" of source {source!r}"
            raise ValueError(f"{count} labels were asked for; only {mask.sum()} transitions{where} are labelled.")
        edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
        first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        # A run is cut into near-equal stretches: no crumbs, and no preference for long episodes.
        cuts = -(-(last - first) // stretch)
        run, piece = (
            np.repeat(np.arange(len(first)), cuts),
            np.arange(cuts.sum()) - np.repeat(np.cumsum(cuts) - cuts, cuts),
        )
        size = (last - first)[run]
        begin, end = first[run] + size * piece // cuts[run], first[run] + size * (piece + 1) // cuts[run]
        labels, left = np.zeros(len(mask), bool), count
        for i in np.random.Generator(np.random.Philox(seed)).permutation(len(begin)):
            if left <= 0:
                break
            labels[begin[i] : min(end[i], begin[i] + left)] = True
            left -= end[i] - begin[i]
        return self._seen(labels=labels)

    def unlabelled(self) -> Episodes:
        """The recordings alone: every label hidden, none deleted."""
        return self._seen(labels=np.zeros(int(self.lengths.sum()), bool))

    def with_latents(self, latents: Sequence[np.ndarray], codes: Sequence[np.ndarray] | None = None) -> Episodes:
        """The same recordings carrying what a model inferred: one ``(T-1, D)`` array an episode."""
        return self._seen(latents=self._overlay(latents, np.nan), codes=self._overlay(codes, -1))

    def _seen(self, **changes: np.ndarray | None) -> Episodes:
        overlays = {"labels": self._labels, "latents": self._latents, "codes": self._codes}
        return Episodes(self.reader, self.rows, buffer=self.buffer, **(overlays | changes))

    def streamed(self, buffer: int = 2**29) -> Episodes:
        """The same, whose clips are decoded as they are needed: for recordings of which no cache fits the disk."""
        overlays = {"labels": self._labels, "latents": self._latents, "codes": self._codes}
        return Episodes(self.reader, self.rows, buffer=buffer, **overlays)

    def _overlay(self, values: Sequence[np.ndarray] | None, blank: float) -> np.ndarray | None:
        if values is None:
            return None
        given, wanted = [len(v) for v in values], [int(n) - 1 for n in self.lengths]
        if given != wanted:
            raise ValueError(
                f"Latents have {given[:5]}... rows in {len(given)} episodes; wanted {wanted[:5]}... in {len(wanted)}."
            )
        dtype = np.int64 if blank == -1 else np.float32
        flat = np.full((int(self.lengths.sum()), values[0].shape[1]), blank, dtype)
        for start, value in zip(self.starts, values, strict=True):
            flat[start : start + len(value)] = value
        return flat

    def __add__(self, other: Episodes) -> Episodes:
        """Both, one after the other; what is visible of each stays as it is."""
        mine, theirs = (list(e.reader.readers) if isinstance(e.reader, Joined) else [e.reader] for e in (self, other))
        readers = list({id(r): r for r in mine + theirs}.values())
        joined = readers[0] if len(readers) == 1 else Joined(readers)
        shift = np.cumsum([0, *(len(r.lengths) for r in readers)])

        def moved(rows: np.ndarray, own: list[Reader]) -> np.ndarray:
            edges = np.cumsum([0, *(len(r.lengths) for r in own)])
            which = np.searchsorted(edges, rows, side="right") - 1
            base = np.array([shift[readers.index(r)] for r in own])
            return rows - edges[which] + base[which]

        rows = np.concatenate([moved(self.rows, mine), moved(other.rows, theirs)])
        overlays: dict[str, np.ndarray | None] = {}
        for name in ("labels", "latents", "codes"):
            values = [getattr(e, f"_{name}") for e in (self, other)]
            if any(v is not None for v in values):
                values = [e._filled(name) for e in (self, other)]
            overlays[name] = None if values[0] is None else np.concatenate(values)
        return Episodes(joined, rows, buffer=max(self.buffer, other.buffer), **overlays)

    def _filled(self, name: str) -> np.ndarray:
        if name == "labels":
            return self.mask
        value = self.column(name)
        if value is None:
            raise ValueError(f"One set carries {name}, the other ({self!r}) does not: give it some with with_latents.")
        return value

    def clips(
        self,
        length: int,
        *,
        stride: int = 1,
        labelled: float = 0.0,
        after: int = 0,
        gap: int = 1,
        balance: float = 1.0,
        device: str | None = None,
    ) -> Clips | Streamed:
        """Stretches of ``length`` frames, each within one episode: see ``Clips``, and ``Streamed``."""
        from tacit.data.clips import Clips
        from tacit.data.stream import Streamed

        if self.buffer:
            if labelled or gap != 1 or balance != 1:
                raise ValueError(
                    "Streamed clips come as they come: no share of labelled ones, no gap, no balance. Use a cache."
                )
            return Streamed(self, length, stride=stride, buffer=self.buffer)
        drawn: dict[str, Any] = {"stride": stride, "labelled": labelled, "after": after, "gap": gap, "balance": balance}
        return Clips(self, length, **drawn, device=device)
