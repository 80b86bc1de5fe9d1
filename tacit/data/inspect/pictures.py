"""What pictures alone tell: cuts, stillness, black and frozen frames, and how much moves that is not the agent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tacit.data.inspect.films import Film
from tacit.data.inspect.findings import PASS, WARN, Finding, counted, named, percent, verb

# A cut is a change that stands alone: this many times the largest among its neighbours, LONELY transitions each way,
# which a fast pan is not; it leaves little of the picture as it was (correlation under 0.7), which a lamp switched on
# does not; and it is large (levels of 255 on average), which one body that jumps is not.
ALONE, LONELY, APART, LARGE = 3.0, 3, 0.3, 8.0
# Nothing moves if no 1/64 of the picture changes by a level of 255 on average: the noise of codecs and sensors, once
# averaged to 64 pixels, is about a third of that.
STILL = 1.0
# So much stillness is worth a word: half of what is read teaches an action-free learner one latent, "nothing".
MOSTLY = 0.5
RUN = 2.0  # seconds of stillness that are drawn on the page
# A picture of one colour, black or not: no recording of anything varies less, in levels of 255 over the picture.
BLANK = 1.5
# Frozen: more equal pictures in a row than chance gives (under 0.01 such runs expected in all that was looked at, from
# how often neighbours are equal in the median episode), and at least three; then the world turns out to have gone on.
CHANCE, FEWEST = 0.01, 3
# Where this much of the change lies outside the busiest quarter of the picture, much of it is not one body's. Toys with
# one body give 0.00, with a second mover of equal strength 0.25 or more, a moving background or camera up to 0.75.
ELSEWHERE = 0.15
OUTWEIGH = 4.0  # times the median change of an episode


@dataclass(frozen=True)
class Marks:
    """What is drawn on an episode's strip, in frames: where it is cut, and what is still, black or frozen."""

    cuts: tuple[int, ...]  # the first frame after each
    still: tuple[tuple[int, int], ...]  # from the first frame to the last
    blank: tuple[tuple[int, int], ...]
    frozen: tuple[tuple[int, int], ...]
    quiet: float  # share of the transitions in which nothing moves
    longest: int  # transitions of the longest still run


def marks(films: Sequence[Film], *, fps: float) -> dict[int, Marks]:
    """The marks of every film that shows anything."""
    usual = [float(f.same.mean()) for f in films if len(f.same)]
    equal, total = float(np.median(usual)) if usual else 0.0, sum(len(f.same) for f in films)
    rare = math.log(CHANCE / max(total, 1)) / math.log(min(max(equal, 1e-6), 0.99))
    return {
        f.number: _marked(f, run=max(2, round(RUN * fps)), equal=max(FEWEST, math.ceil(rare))) for f in films if f.seen
    }


def _marked(film: Film, *, run: int, equal: int) -> Marks:
    quiet = film.peak < STILL
    empty = film.spread < BLANK
    still, blank = runs(quiet), runs(empty)
    moving = float(np.median(film.change[~quiet])) if (~quiet).any() else math.inf
    frozen = [
        (a, b)
        for a, b in runs(film.same)
        if b - a >= equal and b < len(film.same) and film.change[b] >= moving and quiet.mean() < MOSTLY and not empty[a]
    ]
    cuts = [t + 1 for t in _cuts(film) if not (empty[t] or empty[t + 1] or any(b == t for _, b in frozen))]
    return Marks(
        cuts=tuple(cuts),
        still=tuple((a, b) for a, b in still if b - a >= run),
        blank=tuple((a, b - 1) for a, b in blank),
        frozen=tuple(frozen),
        quiet=float(quiet.mean()) if len(quiet) else 0.0,
        longest=max((b - a for a, b in still), default=0),
    )


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Stretches of True, each from its first place to the one after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _cuts(film: Film) -> list[int]:
    found = []
    for t in np.flatnonzero((film.change > LARGE) & (film.apart > APART)).tolist():
        near = np.concatenate([film.change[max(0, t - LONELY) : t], film.change[t + 1 : t + 1 + LONELY]])
        if film.change[t] >= ALONE * near.max(initial=0.0):
            found.append(t)
    return found


def findings(
    found: dict[int, Marks],
    films: Sequence[Film],
    *,
    names: Sequence[str],
    fps: float,
    looked: str,
    background: bool = True,
) -> list[Finding]:
    """All that pictures alone tell."""
    told = [check(found, names=names, looked=looked) for check in (cuts, black, frozen)]
    told.insert(1, still(found, films, names=names, fps=fps, looked=looked))
    return [*told, elsewhere(found, films, looked=looked)] if background else told


def cuts(found: dict[int, Marks], *, names: Sequence[str], looked: str) -> Finding:
    """Episodes that are several recordings: across a cut no action leads."""
    cut = {i: m.cuts for i, m in found.items() if m.cuts}
    count = sum(map(len, cut.values()))
    facts = {"cuts": {str(i): list(at) for i, at in cut.items()}, "n": len(found)}
    if not cut:
        return Finding("cuts", PASS, f"no scene cut inside {looked}.", facts=facts)
    notes = {i: "at frame " + ", ".join(map(str, at[:3])) + (" ..." if len(at) > 3 else "") for i, at in cut.items()}
    words = f"{counted(count, 'scene cut')} inside {len(cut)} of {looked}: {named(names, cut, notes=notes)}. No action"
    return Finding(
        "cuts",
        WARN,
        f"{words} leads across a cut (nor across a page change): cut the episodes there.",
        tuple(cut),
        facts,
    )


def still(found: dict[int, Marks], films: Sequence[Film], *, names: Sequence[str], fps: float, looked: str) -> Finding:
    """How much of the data shows nothing that moves."""
    sizes = {f.number: len(f.peak) for f in films if len(f.peak)}
    total = sum(sizes.values())
    share = sum(found[i].quiet * n for i, n in sizes.items()) / max(total, 1)
    most = max(sizes, key=lambda i: found[i].longest, default=None)
    longest = 0 if most is None else found[most].longest
    idle = [i for i in sizes if found[i].quiet > MOSTLY]
    facts = {"share": share, "longest": longest, "longest_in": most, "n": total}
    words = f"nothing moves in {percent(share)} of {total:,} transitions of {looked}"
    words += f"; the longest still run is {counted(longest, 'transition')} ({longest / fps:.1f} s)" if longest else ""
    if share <= MOSTLY and not idle:
        return Finding("still", PASS, words + ".", facts=facts)
    notes = {i: percent(found[i].quiet) for i in idle}
    are = verb(len(idle), "episode is", many="episodes are")
    which = f" {len(idle):,} {are} mostly still: {named(names, idle, notes=notes)}." if idle else ""
    return Finding(
        "still",
        WARN,
        f"{words}.{which} There is no action to find in them: trim them, or sample less of them.",
        tuple(idle),
        facts,
    )


def black(found: dict[int, Marks], *, names: Sequence[str], looked: str) -> Finding:
    """Frames of one colour: a camera that was off, a decoder that failed."""
    blank = {i: sum(b - a + 1 for a, b in m.blank) for i, m in found.items() if m.blank}
    count = sum(blank.values())
    facts = {"frames": count, "at": {str(i): [list(s) for s in found[i].blank] for i in blank}, "n": len(found)}
    if not blank:
        return Finding("black", PASS, f"no black or one-coloured frame in {looked}.", facts=facts)
    notes = {i: f"{n}, from frame {found[i].blank[0][0]}" for i, n in blank.items()}
    words = f"{counted(count, 'black or one-coloured frame')} in {len(blank)} of {looked}: "
    words += f"{named(names, blank, notes=notes)}."
    return Finding(
        "black", WARN, f"{words} Nothing can be learnt into or out of them: cut them out.", tuple(blank), facts
    )


def frozen(found: dict[int, Marks], *, names: Sequence[str], looked: str) -> Finding:
    """Pictures that repeat while the world goes on: what was done meanwhile shows as one jump."""
    stuck = {i: m.frozen for i, m in found.items() if m.frozen}
    facts = {"at": {str(i): [list(s) for s in at] for i, at in stuck.items()}, "n": len(found)}
    if not stuck:
        return Finding("frozen", PASS, f"no frozen picture in {looked}.", facts=facts)
    notes = {i: f"{at[0][1] - at[0][0] + 1} equal frames from {at[0][0]}" for i, at in stuck.items()}
    words = f"the picture freezes and then jumps in {len(stuck)} of {looked}: {named(names, stuck, notes=notes)}."
    return Finding(
        "frozen",
        WARN,
        f"{words} Frames were lost while actions went on: cut the stretch out, or leave the episode out.",
        tuple(stuck),
        facts,
    )


def elsewhere(found: dict[int, Marks], films: Sequence[Film], *, looked: str) -> Finding:
    """How much of the change in the picture one compact body cannot have made."""
    energy = far = 0.0
    count = 0
    for film in films:
        usual = film.energy[film.energy > 0]
        if len(usual):
            empty = film.spread < BLANK
            keep = ~(empty[1:] | empty[:-1])
            keep[[t - 1 for t in found[film.number].cuts]] = False
            # a flash or a shake would outweigh an hour of moving: no transition counts more than a few usual ones
            weight = keep * np.minimum(1.0, OUTWEIGH * np.median(usual) / np.maximum(film.energy, 1e-9))
            energy, far = energy + float(weight @ film.energy), far + float(weight @ film.far)
            count += int(keep.sum())
    if not energy:
        words = f"cannot tell: nothing moves in {count:,} transitions of {looked}."
        return Finding("background", PASS, words, facts={"n": count})
    share = max(0.0, float(far / energy))
    facts = {"share": share, "n": count}
    words = f"{percent(share)} of the change lies outside the quarter of the picture that changes most "
    words += f"({count:,} transitions of {looked})"
    if share <= ELSEWHERE:
        words += ": one compact thing moves, though nothing here says that it is the agent."
        return Finding("background", PASS, words, facts=facts)
    words += (
        ": more moves than one compact body, such as a background, a camera or a second agent, and latents follow it"
    )
    words += " too. Crop it out, or give a few labels. (A body as large as the picture gives the same number.)"
    return Finding("background", WARN, words, facts=facts)
