"""Inferred latents as a dataset on the disk: begun, gone on with after a kill, and known again by model and data."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tacit.data.episodes import Episodes
from tacit.data.lerobot import LeRobot, called
from tacit.data.reader import Reader
from tacit.data.record import OURS, STAGE, Writer
from tacit.data.scale import Engine, Fault, spread
from tacit.data.video import Damaged
from tacit.part import write
from tacit.state import alone, bar, hoard

GROUP = 4096  # frames that a kill costs at most
Found = tuple[np.ndarray, np.ndarray | None]  # one episode's latents and, where there are any, codes


@dataclass(frozen=True)
class Work:
    """Inferring every episode's latents: here, or in processes and on nodes that open data and model for themselves."""

    infer: Callable[..., Found]  # given the data, and an episode's number
    data: Episodes
    workers: int = 1  # more than one have one thread each
    engine: Engine = "local"

    def found(self, first: int) -> Iterator[Found]:
        """What is found in each episode from the ``first`` on."""
        if self.workers == 1 and self.engine == "local":
            yield from (self.infer(self.data, number=number) for number in range(first, len(self.data)))
            return
        opening = self.data.reader.opening
        if opening is None:
            raise ValueError("These episodes lie in no folder that other processes could open; label with workers=1.")
        task = Inferring(self.infer, opening, self.data.rows.tolist())
        spread_ = spread(task, first=first, stop=len(self.data), workers=self.workers, engine=self.engine)
        with contextlib.closing(spread_) as answers:
            for answer in answers:
                if isinstance(answer, Fault):
                    raise Damaged(answer.why)
                yield answer


@dataclass(frozen=True)
class Inferring:
    """The task of inferring latents, as it is sent to a process."""

    infer: Callable[..., Found]
    opening: dict[str, Any]
    rows: list[int]

    @property
    def ours(self) -> bool:
        """A model of the caller's own script can only be made out by running that script again."""
        model = self.infer.args[0] if isinstance(self.infer, partial) else None
        return all(type(part).__module__ != "__main__" for part in getattr(model, "modules", list)())

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[int], Found]]:
        hoard()
        data = Episodes(Reader.open(**self.opening).reader, self.rows)
        yield lambda number: self.infer(data, number=number)


def shown(work: Work, *, first: int = 0) -> Iterator[Found]:
    """What is found in each episode from the ``first`` on, behind a bar with rate and time left."""
    data = work.data
    done = int(data.lengths[:first].sum())
    with bar("labelling", int(data.lengths.sum()), start=done, unit="frames") as advance:
        for number, found in enumerate(work.found(first), first):
            if not np.isfinite(found[0]).all():
                raise ValueError(
                    f"The latents of episode {number} are not finite; look at the model's log, and at the episode."
                )
            yield found
            done += int(data.lengths[number])
            advance(done)


def kept(work: Work, *, out: Path, who: dict[str, str]) -> Episodes:
    """The data with the latents that lie in ``out``, inferring and writing those that do not lie there yet.

    ``who`` names the model and the data: a folder that was begun with others is refused.
    """
    data = work.data
    with alone(out):
        _settle(out, who, of=len(data))
        begun = (out / "meta" / "info.json").exists()
        done = len(LeRobot(out).lengths) if begun else 0
        if done < len(data):
            _write(work, out=out, first=done)
        shutil.rmtree(out / STAGE, ignore_errors=True)  # a kill after the last episode was counted leaves it behind
        held = LeRobot(out)
        latents, codes = _pieces(held, "latents"), _pieces(held, "codes")
    return data.with_latents(latents, codes or None)


def _write(work: Work, *, out: Path, first: int) -> None:
    data = work.data
    writer: Writer | None = None
    try:
        for number, (latents, codes) in enumerate(shown(work, first=first), first):
            if writer is None:
                count = 0 if codes is None else codes.shape[1]
                spec = dataclasses.replace(data.spec, latent=latents.shape[1], codes=count)
                # Groups end by frames alone, never by the clock: so a run that was killed writes the same files.
                writer = Writer(out, spec, group=GROUP, seconds=math.inf, append=first > 0)
            episode = data.episode(number).replace(latents=latents, codes=codes)
            writer.add(episode, mark=data.prints[number], origin=called(data.names[number]))
    except BaseException:
        if writer is not None:
            writer.drop()  # what is open would end otherwise than a run that nobody stopped
        raise
    if writer is not None:
        writer.close()


def _pieces(held: LeRobot, column: str) -> list[np.ndarray]:
    flat = held.flat(column)
    return [rows[:-1] for rows in np.split(flat[0], np.cumsum(held.lengths)[:-1])] if flat else []


def _settle(out: Path, who: dict[str, str], *, of: int) -> None:
    """Refuse a folder that holds something else; note in a new one whose latents it is going to hold."""
    note = out / "meta" / "label.json"
    if note.exists():
        was = json.loads(note.read_text())
        other = [f"the {k} was {was.get(k)}, and is now {v}" for k, v in who.items() if was.get(k) != v]
        if other:
            raise ValueError(f"{out} holds other latents: {'; '.join(other)}. Give a new folder, or delete this one.")
        return
    held = {path.name for path in out.iterdir()}
    if (out / "meta" / "info.json").exists() or not held <= OURS:
        raise FileExistsError(
            f"{out} holds {sorted(held)[:3]}, which labelling did not put there; give a new or an empty folder."
        )
    note.parent.mkdir(exist_ok=True)
    told = json.dumps({**who, "of": of}, indent=1) + "\n"  # of how many episodes: fewer were stopped on the way
    write(note, lambda path: Path(path).write_text(told))
