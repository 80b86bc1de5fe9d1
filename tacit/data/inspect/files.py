"""What is known of recordings without looking at them: what cannot be read, is counted wrongly, mixed or too short."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tacit.data.episodes import Episodes
from tacit.data.inspect.films import Film, leaves
from tacit.data.inspect.findings import FAIL, NAMED, PASS, WARN, Finding, brief, counted, named, verb
from tacit.data.lerobot import LeRobot
from tacit.data.meta import fill
from tacit.data.view import sized, summed

# Times are uneven where one lies this far (in frames) from where the rate puts it: then its picture is another one.
UNEVEN = 0.5
# A video may promise a frame more or less than the table, for the last frame's length is often left out.
SPARE = 1.5


def parted(episodes: Episodes) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """Each reader of a set with its own numbers of the episodes that are in the set, and the set's numbers of them."""
    first = 0
    for leaf in leaves(episodes.reader):
        mine = np.flatnonzero((episodes.rows >= first) & (episodes.rows < first + len(leaf.lengths)))
        yield leaf, episodes.rows[mine] - first, mine
        first += len(leaf.lengths)


def missing(episodes: Episodes) -> dict[int, str]:
    """Episodes whose files are not there, which costs a look at each file and no reading."""
    found: dict[int, str] = {}
    for leaf, own, mine in parted(episodes):
        if isinstance(leaf, LeRobot):
            keys: list[tuple[str, str, dict[str, Any]]] = [("data", leaf.info["data_path"], {})]
            if leaf.camera is not None and leaf.info["features"][leaf.camera]["dtype"] == "video":
                keys.append((f"videos/{leaf.camera}", leaf.info["video_path"], {"video_key": leaf.camera}))
            for key, template, more in keys:
                table = (leaf.table[f"{key}/chunk_index"], leaf.table[f"{key}/file_index"])
                there: dict[tuple[int, int], str] = {}
                for number, i in zip(own.tolist(), mine.tolist(), strict=True):
                    at = (table[0][number], table[1][number])
                    if at not in there:
                        path = leaf.path / fill(template, chunk_index=at[0], file_index=at[1], **more)
                        there[at] = "" if path.is_file() else f"{path.relative_to(leaf.path)} is missing"
                    if there[at]:
                        found.setdefault(i, there[at])
    return found


def unfinished(episodes: Episodes) -> list[Finding]:
    """Datasets that a stopped command left half made."""
    told = {str(getattr(r, "path", r.spec.name)): r.unfinished for r in leaves(episodes.reader) if r.unfinished}
    words = "; ".join(f"{place} is not whole: {why}" for place, why in told.items())
    return [Finding("unfinished", FAIL, f"{words}.", facts=told)] if told else []


def unreadable(
    episodes: Episodes,
    films: Sequence[Film],
    *,
    lost: Mapping[int, str],
    known: set[int],
    names: Sequence[str],
    looked: str,
) -> Finding:
    """Episodes that break off or cannot be opened, and what lies beside them and is no episode."""
    why = {f.number: f.why or f.mute for f in films if (f.why or f.mute) and f.number not in known} | dict(lost)
    good = {f.number: f.good for f in films if f.why and f.good}
    faults = dict(episodes.reader.faults)
    facts = {
        "why": {str(i): w for i, w in why.items()},
        "good": {str(i): n for i, n in good.items()},
        "faults": faults,
        "n": len(films),
    }
    are = verb(len(faults), "is", many="are")
    others = f"{counted(len(faults), 'file')} beside the episodes {are} none: " if faults else ""
    damaged, unmet = summed(faults)
    shown = [f"{name} ({brief(why)})" for name, why in damaged.items()][:2]
    others += "; ".join([*shown, *([f"{len(damaged) - 2:,} more damaged"] if len(damaged) > 2 else []), *unmet])
    if not why:
        what = (
            f"{looked} can be read to the end"
            if films
            else f"the files of all {counted(len(episodes), 'episode')} are there; none was read"
        )
        return Finding(
            "unreadable", WARN if faults else PASS, f"{what}{'; but ' + others if faults else ''}.", facts=facts
        )
    notes = {
        i: f"{good[i]} of {episodes.lengths[i]} frames are whole" if i in good else brief(w) for i, w in why.items()
    }
    words = f"{len(why)} of {looked if films else counted(len(episodes), 'episode')} cannot be read: "
    words += f"{named(names, why, notes=notes)}. Copy them again, or leave them out: tacit data import does." + (
        f" Also, {others}." if faults else ""
    )
    return Finding("unreadable", FAIL, words, tuple(why), facts)


def lengths(
    episodes: Episodes, films: Sequence[Film], *, picked: Sequence[int], lost: Mapping[int, str], names: Sequence[str]
) -> Finding:
    """Whether files hold as many rows and frames as their dataset says, at even times."""
    wrong: dict[int, str] = {}
    uneven: dict[int, str] = {}
    fps, timed = episodes.spec.fps, 0
    for leaf, own, mine in parted(episodes):
        wrong |= {int(mine[k]): told for k, told in _tabled(leaf, own).items()}
        stamped = hasattr(leaf, "values") and "timestamp" in getattr(leaf, "info", {}).get("features", {})
        chosen = set(picked) - set(lost) if stamped else set()
        for number, i in ((int(n), int(m)) for n, m in zip(own, mine, strict=True) if int(m) in chosen):
            try:
                times = np.asarray(leaf.values(number, feature="timestamp"), np.float64).ravel()
            except (ValueError, OSError) as error:
                wrong[i] = " ".join(str(error).split())
                continue
            timed += 1
            off = np.abs((times - times[:1]) * fps - np.arange(len(times)))
            if len(times) and off.max() > UNEVEN:
                uneven[i] = f"off by up to {off.max():.1f} frames, from frame {int((off > UNEVEN).argmax())}"
    for film in films:
        if film.seen and not film.why and film.seen != film.length:
            wrong[film.number] = f"{film.seen} frames, {film.length} promised"
    looked = sum(bool(f.seen) and not f.why for f in films)
    facts = {
        "wrong": {str(i): w for i, w in wrong.items()},
        "uneven": {str(i): w for i, w in uneven.items()},
        "counted": looked,
        "timed": timed,
    }
    basis = f"{counted(len(episodes), 'episode')} in the tables"
    basis += f", frames counted in {looked:,}" if looked else ""
    basis += f", times read in {timed:,}" if timed else ""
    if wrong:
        does = verb(len(wrong), "episode does", many="episodes do")
        words = f"{len(wrong):,} {does} not have the length that the dataset says ({basis}): "
        words += f"{named(names, wrong, notes=wrong)}. Export them again, or leave them out."
        return Finding("lengths", FAIL, words, tuple({**wrong, **uneven}), facts)
    if uneven:
        has = verb(len(uneven), "episode has", many="episodes have")
        words = f"{len(uneven):,} {has} uneven times ({basis}): {named(names, uneven, notes=uneven)}."
        words += f" Frames were lost or doubled; resample to an even {fps:g} a second."
        return Finding("lengths", WARN, words, tuple(uneven), facts)
    return Finding("lengths", PASS, f"lengths and times agree ({basis}).", facts=facts)


def _tabled(leaf: Any, own: np.ndarray) -> dict[int, str]:
    """Where a dataset's tables contradict each other, by place in ``own``."""
    table, promised = getattr(leaf, "table", None), leaf.lengths[own]
    if not isinstance(table, dict):
        return {}
    pairs = {"rows": ("dataset_from_index", "dataset_to_index", 1.0, 0.0)}
    if getattr(leaf, "camera", None):
        video = f"videos/{leaf.camera}"
        pairs["frames of video"] = (f"{video}/from_timestamp", f"{video}/to_timestamp", leaf.spec.fps, SPARE)
    found = {}
    for what, (start, stop, rate, spare) in pairs.items():
        if start in table and stop in table:
            count = (np.asarray(table[stop], np.float64) - np.asarray(table[start], np.float64))[own] * rate
            for k in np.flatnonzero(np.abs(count - promised) > spare).tolist():
                found[k] = f"{count[k]:.0f} {what} for a length of {promised[k]}"
    return found


def mixed(episodes: Episodes) -> Finding:
    """Whether recordings of several rates or sizes were brought to one: what is one frame then is another's half."""
    found: dict[str, Counter[str]] = {"rates": Counter(), "sizes": Counter()}
    for leaf in leaves(episodes.reader):
        for key, counter in found.items():
            for value, count in leaf.mixed.get(key, {}).items():
                counter[_shape(value)] += int(count)
    facts = {key: dict(counter) for key, counter in found.items()}
    spec = episodes.spec
    several = {key: counter for key, counter in found.items() if len(counter) > 1}
    if not several:
        size = sized(spec.frame) if spec.frame else "no pictures"
        return Finding("mixtures", PASS, f"one rate, {spec.fps:g} frames a second, and one size, {size}.", facts=facts)
    told = "; ".join(f"{len(c)} {kind} ({_most(c)})" for kind, c in several.items())
    words = f"recordings differ: {told}. They are read as {spec.fps:g} frames a second"
    words += f", {sized(spec.frame)}" if spec.frame else ""
    return Finding(
        "mixtures",
        WARN,
        f"{words}; an action is then not the same everywhere. Choose --fps and --size, or split the set.",
        facts=facts,
    )


def _most(kinds: Counter[str]) -> str:
    more = [f"and {len(kinds) - NAMED} more"] if len(kinds) > NAMED else []
    return ", ".join([*(f"{kind}: {count:,}" for kind, count in kinds.most_common(NAMED)), *more])


def _shape(value: Any) -> str:
    if isinstance(value, tuple | list):
        return sized((value[0], value[1]))
    return f"{value:g} a second" if isinstance(value, float) else str(value)


def short(episodes: Episodes, *, horizon: float, names: Sequence[str]) -> Finding:
    """Episodes in which no clip of the horizon fits."""
    need = max(2, math.ceil(horizon * episodes.spec.fps - 1e-9) + 1)
    found = np.flatnonzero(episodes.lengths < need)
    low, middle, high = (int(f(episodes.lengths)) for f in (np.min, np.median, np.max))
    facts = {"need": need, "horizon": horizon, "shortest": low, "median": middle, "longest": high, "n": len(episodes)}
    span = f"{counted(len(episodes), 'episode')} of {low:,} to {high:,} frames, the median {middle:,}"
    if not len(found):
        return Finding("short", PASS, f"{span}; a horizon of {horizon:g} s takes {need}.", facts=facts)
    notes = {int(i): str(episodes.lengths[i]) for i in found}
    are = verb(len(found), "is", many="are")
    words = (
        f"{len(found):,} of {len(episodes):,} episodes {are} shorter than the {need} frames that {horizon:g} s take "
    )
    words += f"({span}): {named(names, found, notes=notes)}."
    grade = FAIL if len(found) == len(episodes) else WARN
    return Finding(
        "short",
        grade,
        f"{words} Training skips them; ask for a shorter horizon or leave them out.",
        tuple(found.tolist()),
        facts,
    )
