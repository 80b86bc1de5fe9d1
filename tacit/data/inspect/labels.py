"""Action labels: how many there are, whether they lie in their space, which say nothing, and where they break off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tacit.clip import Space
from tacit.data.inspect.findings import PASS, WARN, Finding, counted, named, percent, verb

# A hole in the labels this short (in transitions) is an accident: whoever labels by hand, or hides labels to study
# their worth, does so in stretches of about sixteen.
HOLE = 4
# Beyond the space by this share of its width is out of range; less is the rounding of a file's float32.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Labels:
    """What is left of an episode's labels: their counts and bounds, and those of the stretch that is kept for fits."""

    count: int  # transitions
    known: int  # labelled ones
    holes: int  # transitions without a label between two with one, or with some numbers of it missing
    outside: int  # labels beyond the space
    low: np.ndarray  # (A,) over the labelled; a single one for choices
    high: np.ndarray
    kept: np.ndarray  # the stretch: (S-1,) or (S-1, A)


def labels(actions: np.ndarray, space: Space, *, span: slice) -> Labels:
    """What the checks need of one episode's actions."""
    known = np.asarray(space.labelled(actions))
    flat = actions.reshape(len(actions), math.prod(actions.shape[1:])).astype(np.float64)  # of one frame: none
    rows = flat[known]
    if space.discrete:
        outside = int((flat[:, 0] >= space.size).sum()) + int((flat[:, 0] < -1).sum())
        partly = np.zeros(len(flat), bool)
    else:
        slack = ROUNDING * (space.high - space.low)
        outside = int(((rows < space.low - slack) | (rows > space.high + slack)).any(1).sum())
        partly = ~known & (np.isfinite(flat) | np.isinf(flat)).any(1)
    blank = np.full(flat.shape[1], np.nan)
    low, high = (rows.min(0), rows.max(0)) if len(rows) else (blank, blank)
    return Labels(len(known), int(known.sum()), _holes(known, partly), outside, low, high, np.array(actions[span]))


def _holes(known: np.ndarray, partly: np.ndarray) -> int:
    """Unlabelled transitions in short runs between labelled ones, and those that are labelled in part."""
    edges = np.flatnonzero(np.diff(known.astype(np.int8), prepend=known[:1].astype(np.int8)))
    bounds = [0, *edges.tolist(), len(known)]
    holed = partly.copy()
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        if first > 0 and last < len(known) and not known[first] and last - first <= HOLE:
            holed[first:last] = True
    return int(holed.sum())


def findings(told: dict[int, Labels], space: Space | None, *, names: Sequence[str]) -> list[Finding]:
    """Share, holes, range and dimensions that never change, of the episodes that were looked at."""
    many = sum(t.count for t in told.values())
    known = sum(t.known for t in told.values())
    facts = {"transitions": many, "labelled": known, "n": len(told)}
    if space is None or not known:
        why = f"nobody recorded an action in the {counted(len(told), 'episode')} looked at"
        if not told:
            why = "nobody recorded an action" if space is None else "none could be read without the pictures"
        return [Finding("labels", PASS, f"no labels: {why}; learning without labels needs none.", facts=facts)]
    return [
        _share(told, names=names, facts=facts),
        _range(told, space, names=names, known=known),
        _constant(told, space, known=known),
    ]


def _share(told: dict[int, Labels], *, names: Sequence[str], facts: dict[str, int]) -> Finding:
    """How much is labelled, and whether labels break off for a moment."""
    many, known = facts["transitions"], facts["labelled"]
    of = f"{percent(known / many)} of {many:,} transitions in {counted(len(told), 'episode')} are labelled"
    holes = {i: t.holes for i, t in told.items() if t.holes}
    facts = facts | {"holes": sum(holes.values())}
    if not holes:
        return Finding("labels", PASS, f"{of}, and no labelled stretch has a hole.", facts=facts)
    notes = {i: f"{n} missing" for i, n in holes.items()}
    words = (
        f"{of}, but {counted(sum(holes.values()), 'label')} {verb(sum(holes.values()), 'is', many='are')} missing (NaN"
    )
    words += f" or -1) inside labelled stretches: {named(names, holes, notes=notes)}. They count as unlabelled; if they"
    return Finding("labels", WARN, f"{words} were recorded, export the data again.", tuple(holes), facts)


def _range(told: dict[int, Labels], space: Space, *, names: Sequence[str], known: int) -> Finding:
    """Whether labels lie where the space says an agent can act."""
    outside = {i: t.outside for i, t in told.items() if t.outside}
    bounds = f"0 to {space.size - 1}" if space.discrete else f"[{space.low:.4g}, {space.high:.4g}]"
    rows = [t for t in told.values() if t.known]
    low, high = float(np.min([t.low for t in rows])), float(np.max([t.high for t in rows]))
    facts = {"low": low, "high": high, "bounds": [space.low, space.high], "outside": sum(outside.values()), "n": known}
    if not outside:
        return Finding("range", PASS, f"all {known:,} labels lie in {bounds}.", facts=facts)
    notes = {i: str(n) for i, n in outside.items()}
    words = f"{sum(outside.values()):,} of {known:,} labels lie outside {bounds} (they span {low:.4g} to {high:.4g}): "
    words += f"{named(names, outside, notes=notes)}. A policy cannot give them; correct the space or scale the labels."
    return Finding("range", WARN, words, tuple(outside), facts)


def _constant(told: dict[int, Labels], space: Space, *, known: int) -> Finding:
    """Which numbers of the action never change: they say nothing, and break what divides by their deviation."""
    rows = [t for t in told.values() if t.known]
    low, high = np.min([t.low for t in rows], 0), np.max([t.high for t in rows], 0)
    flat = np.flatnonzero(low == high)
    facts = {"constant": flat, "n": known}
    if not len(flat) or known < 2:
        what = "the action is not always the same" if space.discrete else f"all {space.size} numbers of the action vary"
        return Finding("constant", PASS, f"{what} over {known:,} labels.", facts=facts)
    called = [space.names[i] if i < len(space.names) and not space.discrete else f"number {i}" for i in flat]
    told_ = ", ".join(f"{c} (always {low[i]:.4g})" for c, i in zip(called[:4], flat[:4], strict=True))
    if space.discrete:
        words = f"all {known:,} labels are the same choice, {low[0]:.0f}: there is nothing to learn from them."
        return Finding("constant", WARN, words, facts=facts)
    words = f"{len(flat)} of the action's {space.size} numbers never change over {known:,} labels: {told_}"
    words += " and others" if len(flat) > 4 else ""
    return Finding("constant", WARN, f"{words}. Leave them out, or record data in which they vary.", facts=facts)
