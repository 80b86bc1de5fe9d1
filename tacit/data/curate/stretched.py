"""Stretches of episodes as episodes of their own: what is left of a recording when the rest of it is cut away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple, final

import numpy as np

from tacit.clip import Episode
from tacit.data.episodes import Episodes
from tacit.data.reader import BETWEEN, BLOCK, Reader, content


class Span(NamedTuple):
    """The frames ``start`` to ``stop``, exclusive, of the episode ``number`` of a set."""

    number: int
    start: int
    stop: int


@final
class Stretched(Reader):
    """Views stretches of the episodes of a set, read when they are asked for.

    A stretch is called by its first and last frame, "x.mp4 12-39"; one that is all of its episode keeps that one's
    name and print. Of success a stretch tells only where it holds its episode's end.
    """

    def __init__(self, episodes: Episodes, spans: Iterable[tuple[int, int, int]]) -> None:
        self._whole, self.spans = episodes, tuple(Span(*map(int, span)) for span in spans)
        if not self.spans:
            raise ValueError("There are no stretches; wanted at least one.")
        for span in self.spans:
            held = int(episodes.lengths[span.number]) if 0 <= span.number < len(episodes) else 0
            if not 0 <= span.start < span.stop <= held:
                raise ValueError(
                    f"Frames {span.start} to {span.stop} were asked of episode {span.number}, which has {held} frames "
                    f"(there are {len(episodes)} episodes); wanted 0 <= start < stop <= its length."
                )
        self.spec, self.faults = episodes.spec, episodes.reader.faults
        self.lengths = np.array([span.stop - span.start for span in self.spans], np.int64)
        self._held: tuple[int, Episode] | None = None  # neighbours come from one episode: read, it serves them all

    @property
    def origin(self) -> Any:
        return [self._whole.origin, self.spans]

    def _entire(self, span: Span) -> bool:
        return span.start == 0 and span.stop == self._whole.lengths[span.number]

    def episode(self, number: int) -> Episode:
        span = self.spans[number]
        if self._held is None or self._held[0] != span.number:
            self._held = (span.number, self._whole.episode(span.number))
        episode = self._held[1]
        if self._entire(span):
            return episode
        cut: dict[str, object] = {"success": self.successes[number]}
        for name in ("frames", "state", *BETWEEN):
            value = getattr(episode, name)
            if value is not None:
                cut[name] = value[span.start : span.stop - (name in BETWEEN)]
        return episode.replace(**cut)

    def blocks(self, number: int, *, count: int = BLOCK) -> Iterator[np.ndarray]:
        span, at = self.spans[number], 0
        for block in self._whole.reader.blocks(int(self._whole.rows[span.number]), count=count):
            shown = block[max(0, span.start - at) : span.stop - at]
            at += len(block)
            if len(shown):
                yield shown
            if at >= span.stop:
                return

    @cached_property
    def prints(self) -> tuple[str, ...]:
        known = self._whole.prints if any(map(self._entire, self.spans)) else ()
        return tuple(
            known[span.number] if self._entire(span) else content(self.episode(i)) for i, span in enumerate(self.spans)
        )

    @cached_property
    def sources(self) -> tuple[str, ...]:
        whole = self._whole.sources
        return tuple(whole[span.number] for span in self.spans)

    @cached_property
    def texts(self) -> tuple[str | None, ...]:
        whole = self._whole.texts
        return tuple(whole[span.number] for span in self.spans)

    @cached_property
    def successes(self) -> tuple[bool | None, ...]:
        whole, lengths = self._whole.successes, self._whole.lengths
        return tuple(whole[span.number] if span.stop == lengths[span.number] else None for span in self.spans)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        whole = self._whole.splits
        return tuple(whole[span.number] for span in self.spans)

    @cached_property
    def names(self) -> tuple[str, ...]:
        whole = self._whole.names
        return tuple(
            whole[s.number] if self._entire(s) else called(whole[s.number], s.start, stop=s.stop) for s in self.spans
        )


def called(name: str, start: int, *, stop: int) -> str:
    """What a stretch is called: its episode, and its first and last frame."""
    return f"{name} {start}-{stop - 1}"


def stretches(episodes: Episodes, spans: Iterable[tuple[int, int, int]]) -> Episodes:
    """``(number, start, stop)`` stretches as episodes; where each is all of an episode, those episodes as they were."""
    reader = Stretched(episodes, spans)
    if all(map(reader._entire, reader.spans)):
        return episodes.select([span.number for span in reader.spans])
    return Episodes(reader)
