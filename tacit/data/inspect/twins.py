"""Recordings that show what others show: copies to the byte, near copies, and both across training and validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from tacit.data.episodes import Episodes
from tacit.data.inspect.films import SLOTS, Film, leaves
from tacit.data.inspect.findings import FAIL, PASS, WARN, Finding, counted
from tacit.data.reader import Memory, Reader

# Near copies: what moves, at eight places from the first frame to the last, correlates by this much. Another size or
# codec keeps it above 0.99; of 300 episodes of one expert on one task, eight frames or longer, no two reach 0.95.
ALIKE = 0.98
SETTING = 2.0  # and their mean pictures differ by no more than this (levels of 255, brightness apart): the same scene
MOVED = 0.3  # what moves so little (levels over the whole picture) is noise, and is compared with nothing
THESE, HELD = "these episodes", "the held-out set"
TABLES, BITS = 16, 12  # two that correlate by ALIKE share a bucket of some table with a chance of 0.9999


def printed(episodes: Episodes, *, decode: bool) -> tuple[str, ...]:
    """The prints of all episodes where they are noted or cheap to take, and nothing where they cost a decoding."""
    return episodes.prints if all(_noted(leaf, decode) for leaf in leaves(episodes.reader)) else ()


def _noted(reader: Reader, decode: bool) -> bool:
    if "prints" in vars(reader):
        return True
    told = getattr(reader, "extra", {}).get("episodes", [])  # what our writer put beside a LeRobot dataset
    if len(told) >= len(reader.lengths) and all(t.get("print") for t in told):
        return True
    return decode and _own(reader, "prints")


def equal(prints: Iterable[tuple[int, str]]) -> list[list[int]]:
    """Groups of numbers with one print."""
    groups = defaultdict(list)
    for number, mark in prints:
        if mark and not mark.startswith("damaged"):
            groups[mark].append(number)
    return [g for g in groups.values() if len(g) > 1]


def near(films: Sequence[Film]) -> list[list[int]]:
    """Groups of places in ``films`` that nearly show the same; only those that share a bucket are compared."""
    moving, places, mean = [], [], []
    for place, film in enumerate(films):
        if film.views is None or film.seen < SLOTS:  # a handful of frames resembles another by chance
            continue
        change = film.views - film.views.mean(0)
        if np.sqrt((change**2).mean()) > MOVED:
            moving.append((change / np.linalg.norm(change)).ravel().astype(np.float32))
            mean.append(film.views.mean(0) - film.views.mean())
            places.append(place)
    if len(places) < 2:
        return []
    x, settings = np.stack(moving), np.stack(mean)
    planes = np.random.default_rng(0).normal(size=(x.shape[1], TABLES * BITS)).astype(np.float32)
    codes = ((x @ planes > 0).reshape(len(x), TABLES, BITS) * (1 << np.arange(BITS))).sum(-1)
    leader = np.arange(len(x))

    def first(i: int) -> int:
        while leader[i] != i:
            i = int(leader[i])
        return i

    for table in range(TABLES):
        heads: dict[int, list[int]] = defaultdict(
            list
        )  # of each bucket the first of every group, so that many copies of one cost no more
        for i, code in enumerate(codes[:, table].tolist()):
            for j in heads[code]:
                if x[i] @ x[j] > ALIKE and np.sqrt(((settings[i] - settings[j]) ** 2).mean()) < SETTING:
                    a, b = sorted((first(i), first(j)))
                    leader[b] = a
                    break
            else:
                heads[code].append(i)
    groups = defaultdict(list)
    for i, place in enumerate(places):
        groups[first(i)].append(place)
    return [g for g in groups.values() if len(g) > 1]


def findings(
    episodes: Episodes, films: Sequence[Film], *, held: Episodes | None, other: Sequence[Film], decode: bool
) -> list[Finding]:
    """Copies within a part, and what two parts share; the held-out set's numbers follow those of the set itself."""
    own, names, parts = len(episodes), list(episodes.names), _parts(episodes)
    marks, noted = _marks(episodes, films, decode=decode)
    if held is not None:
        names += [f"held-out {name}" for name in held.names]
        parts = [THESE] * own + [HELD] * len(held)
        more, also = _marks(held, other, decode=decode)
        marks, noted = marks + [(own + i, mark) for i, mark in more], noted + also
    places = [f.number for f in films] + [own + f.number for f in other]
    exact = equal(marks)
    known = {frozenset(g) for g in exact}
    alike = [[places[k] for k in g] for g in near([*films, *other])]
    rough = [g for g in alike if frozenset(g) not in known]
    seen = sum(f.views is not None for f in [*films, *other])
    basis = f"prints of {noted:,} episodes compared, {f'pictures of {seen:,}' if seen else 'no pictures'}"
    if not noted and not seen:
        words = "cannot tell: nobody noted what episodes show, and none was looked at."
        return [Finding(check, PASS, words) for check in ("duplicates", "overlap")]
    return [
        _copies(exact, rough, parts=parts, names=names, basis=basis, own=own),
        _overlap(_across(exact, parts), _across(rough, parts), parts=parts, names=names, basis=basis, own=own),
    ]


def _parts(episodes: Episodes) -> list[str]:
    """The part that each episode was assigned to, unless a reader would decode them all to tell."""
    cheap = all(
        isinstance(leaf, Memory) or "splits" in vars(leaf) or _own(leaf, "splits") for leaf in leaves(episodes.reader)
    )
    return list(episodes.splits) if cheap else [""] * len(episodes)


def _own(reader: Reader, name: str) -> bool:
    return getattr(type(reader), name) is not getattr(Reader, name)


def _marks(episodes: Episodes, films: Sequence[Film], *, decode: bool) -> tuple[list[tuple[int, str]], int]:
    """A print of each episode that has one, by number, and how many have."""
    noted = printed(episodes, decode=decode)
    marks = list(enumerate(noted)) if noted else [(f.number, f.digest) for f in films if f.digest]
    return marks, len(marks)


def _within(groups: Sequence[Sequence[int]], parts: Sequence[str]) -> list[list[int]]:
    split = [[i for i in g if parts[i] == part] for g in groups for part in sorted({parts[i] for i in g})]
    return [g for g in split if len(g) > 1]


def _across(groups: Sequence[Sequence[int]], parts: Sequence[str]) -> list[list[int]]:
    return [list(g) for g in groups if len({parts[i] for i in g}) > 1]


def _copies(
    exact: list[list[int]], rough: list[list[int]], *, parts: Sequence[str], names: Sequence[str], basis: str, own: int
) -> Finding:
    """What one part holds more than once; what two parts share is another fault, with another remedy."""
    shared = bool(_across(exact, parts) or _across(rough, parts))
    exact, rough = ([g for g in _within(groups, parts) if all(i < own for i in g)] for groups in (exact, rough))
    more, nearly = _extra(exact), _extra(rough) - _extra(exact)
    facts = {"exact": exact, "near": rough, "basis": basis}
    if not more and not nearly:
        words = f"no episode shows what another{' of its part' if shared else ''} shows ({basis})"
        words += "; what two parts share is told under overlap" if shared else ""
        return Finding("duplicates", PASS, f"{words}.", facts=facts)
    told = " and ".join(counted(len(n), w) for n, w in ((more, "exact copy"), (nearly, "near copy")) if n)
    words = f"{told.replace('copys', 'copies')} of other episodes: {_listed([*exact, *rough], names)} ({basis})."
    words += " Keep one of each."
    return Finding("duplicates", WARN, words, tuple({i for g in [*exact, *rough] for i in g}), facts)


def _extra(groups: Sequence[Sequence[int]]) -> set[int]:
    return {i for g in groups for i in sorted(g)[1:]}


def _overlap(
    exact: list[list[int]], rough: list[list[int]], *, parts: Sequence[str], names: Sequence[str], basis: str, own: int
) -> Finding:
    """Whether what is meant for validation is in training too, under whatever name."""
    found = [part or "unassigned" for part in dict.fromkeys(parts)]
    told = f"{', '.join(found[:-1])} and {found[-1]}" if len(found) > 1 else ""
    facts = {"exact": exact, "near": rough, "parts": found, "basis": basis}
    if not told:
        return Finding(
            "overlap",
            PASS,
            "no episode is assigned to a part and no held-out set was given: nothing to compare.",
            facts=facts,
        )
    if not exact and not rough:
        return Finding("overlap", PASS, f"{told} share no episode ({basis}).", facts=facts)
    concerned = tuple({i for g in [*exact, *rough] for i in g if i < own})
    kinds = " and ".join(f"{len(g)} {w}" for g, w in ((exact, "exactly"), (rough, "nearly")) if g)
    words = f"{told} share episodes, {kinds}: {_listed([*exact, *rough], names)} ({basis})."
    words += " Numbers measured on them are not held out: move them to one side."
    return Finding("overlap", FAIL if exact else WARN, words, concerned, facts)


def _listed(groups: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    told = [" = ".join(names[i] for i in g[:3]) + (" = ..." if len(g) > 3 else "") for g in groups[:2]]
    return "; ".join(told) + (f" and {len(groups) - 2} more" if len(groups) > 2 else "")
