"""Inferred latents as a dataset on the disk: begun, gone on with after a kill, and known again by model and data."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tacit.data.episodes import Episodes
from tacit.data.lerobot import LeRobot
from tacit.data.record import OURS, STAGE, Writer
from tacit.part import write
from tacit.state import alone, bar

GROUP = 4096  # frames that a kill costs at most
Found = tuple[np.ndarray, np.ndarray | None]  # one episode's latents and, where there are any, codes


def shown(infer: Callable[..., Found], data: Episodes, *, first: int = 0) -> Iterator[Found]:
    """What ``infer`` finds in each episode from the ``first`` on, behind a bar with rate and time left."""
    done = int(data.lengths[:first].sum())
    with bar("labelling", int(data.lengths.sum()), start=done, unit="frames") as advance:
        for number in range(first, len(data)):
            found = infer(number=number)
            if not np.isfinite(found[0]).all():
                raise ValueError(
                    f"The latents of episode {number} are not finite; look at the model's log, and at the episode."
                )
            yield found
            done += int(data.lengths[number])
            advance(done)


def kept(infer: Callable[..., Found], data: Episodes, *, out: Path, who: dict[str, str]) -> Episodes:
    """``data`` with the latents that lie in ``out``, inferring and writing those that do not lie there yet.

    ``who`` names the model and the data: a folder that was begun with others is refused.
    """
    with alone(out):
        _settle(out, who)
        begun = (out / "meta" / "info.json").exists()
        done = len(LeRobot(out).lengths) if begun else 0
        if done < len(data):
            _write(infer, data, out=out, first=done)
        shutil.rmtree(out / STAGE, ignore_errors=True)  # a kill after the last episode was counted leaves it behind
        held = LeRobot(out)
        latents, codes = _pieces(held, "latents"), _pieces(held, "codes")
    return data.with_latents(latents, codes or None)


def _write(infer: Callable[..., Found], data: Episodes, *, out: Path, first: int) -> None:
    writer: Writer | None = None
    try:
        for number, (latents, codes) in enumerate(shown(infer, data, first=first), first):
            if writer is None:
                count = 0 if codes is None else codes.shape[1]
                spec = dataclasses.replace(data.spec, latent=latents.shape[1], codes=count)
                # Groups end by frames alone, never by the clock: so a run that was killed writes the same files.
                writer = Writer(out, spec, group=GROUP, seconds=math.inf, append=first > 0)
            writer.add(data.episode(number).replace(latents=latents, codes=codes), mark=data.prints[number])
    finally:
        if writer is not None:
            writer.close()


def _pieces(held: LeRobot, column: str) -> list[np.ndarray]:
    flat = held.flat(column)
    return [rows[:-1] for rows in np.split(flat[0], np.cumsum(held.lengths)[:-1])] if flat else []


def _settle(out: Path, who: dict[str, str]) -> None:
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
    write(note, lambda path: Path(path).write_text(json.dumps(who, indent=1) + "\n"))
