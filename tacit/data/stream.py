"""Clips of recordings that are larger than the disk: decoded as needed, a buffer at a time, shuffled within."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, final

import numpy as np

from tacit.clip import Clip
from tacit.data.clips import Clips
from tacit.data.video import resize

if TYPE_CHECKING:
    from tacit.data.episodes import Episodes


@final
class Streamed:
    """What ``Clips`` is to a decoded cache, for those who cannot have one.

    Each epoch takes the episodes in another order; as many as fill ``buffer`` bytes are held decoded, and their clips
    drawn without order, while the next ones are decoded beside. The batch of a step is decided by the seed and the step
    alone, so a run goes on anywhere without a state to save.
    """

    def __init__(
        self,
        episodes: Episodes,
        length: int,
        *,
        size: tuple[int, int] | None = None,
        stride: int = 1,
        buffer: int = 2**29,
    ) -> None:
        self.episodes, self.length, self.size, self.stride = episodes, length, size or episodes.spec.frame, stride
        if episodes.spec.frame is None or self.size is None:
            raise ValueError(f"{episodes.spec.name!r} holds no pictures; its clips need no streaming: use clips().")
        self._bytes = episodes.lengths * int(np.prod(self.size)) * 3
        self._windows = np.maximum(0, (episodes.lengths - length) // stride + 1)
        if not self._windows.sum():
            raise ValueError(f"No episode holds a clip of {length} frames; the longest has {episodes.lengths.max()}.")
        self.buffer = max(buffer, int(self._bytes.max()))
        self.prints = episodes.prints
        drawn = f"streamed clips of length {length}, stride {stride}, size {self.size}, buffer {self.buffer}"
        self.fingerprint = f"{drawn}, of {episodes.fingerprint}"

    def groups(self, epoch: int, *, seed: int) -> list[np.ndarray]:
        """The episodes that are held together, one group after another."""
        order = np.random.Generator(np.random.Philox([seed, epoch])).permutation(len(self.episodes))
        order = order[self._windows[order] > 0]
        filled = np.cumsum(self._bytes[order])
        which, edge = np.zeros(len(order), np.int64), 0.0
        for i in range(1, len(order)):
            full = filled[i] - edge > self.buffer
            edge = filled[i - 1] if full else edge
            which[i] = which[i - 1] + full
        return np.split(order, np.flatnonzero(np.diff(which)) + 1)

    def stream(self, batch: int, *, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Clip]:
        """Batches without end from step ``start``; ranks share each ``batch``. A group gives whole batches only."""
        if batch < 1 or batch % world or not 0 <= rank < world:
            raise ValueError(f"A batch of {batch} cannot be shared by rank {rank} of {world}.")
        with ThreadPoolExecutor(1, thread_name_prefix="decoding") as pool:
            walk = self._walk(batch, seed, start)
            group, steps, key = next(walk)
            coming: Future[Clips] = pool.submit(self._decoded, group)
            while True:
                clips = coming.result()
                following = next(walk)
                coming = pool.submit(self._decoded, following[0])
                order = np.random.Generator(np.random.Philox([*key, 1])).permutation(len(clips))
                for step in steps:
                    yield clips.batch(
                        np.take(order, np.arange(step * batch, (step + 1) * batch), mode="wrap")[rank::world]
                    )
                group, steps, key = following

    def _walk(self, batch: int, seed: int, start: int) -> Iterator[tuple[np.ndarray, range, tuple[int, int, int]]]:
        """The groups from the one that step ``start`` falls into, with their steps that are left."""
        passed, epoch = 0, 0
        while True:
            for number, group in enumerate(self.groups(epoch, seed=seed)):
                count = max(1, int(self._windows[group].sum()) // batch)
                if passed + count > start:
                    yield group, range(max(0, start - passed), count), (seed, epoch, number)
                passed += count
            epoch += 1

    def _decoded(self, group: np.ndarray) -> Clips:
        assert self.size is not None
        found = []
        for number in group.tolist():
            episode = self.episodes.episode(number)
            assert episode.frames is not None
            found.append(episode.replace(frames=resize(episode.frames, self.size)))
        spec = self.episodes.spec
        some = type(self.episodes).of(found, space=spec.space, fps=spec.fps, name=spec.name)
        return Clips(some, self.length, stride=self.stride)
