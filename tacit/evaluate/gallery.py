"""A page of moving clips, for looking at recordings before anything is learned from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tacit.data.episodes import Episodes
from tacit.evaluate.page import Figure, films, render

LONGEST = 64  # frames of a clip on the page


def gallery(episodes: Episodes, path: Path, *, most: int = 12) -> tuple[int, dict[str, str]]:
    """Write the page with at most ``most`` episodes, evenly spread; how many it shows, and which could not be read."""
    if episodes.spec.frame is None:
        raise ValueError("These recordings hold no pictures; there is nothing to look at.")
    shown: dict[str, np.ndarray] = {}
    faults: dict[str, str] = {}
    for number in np.unique(np.linspace(0, len(episodes) - 1, most).round().astype(int)).tolist():
        name = episodes.names[number]
        try:
            frames = next(episodes.reader.blocks(int(episodes.rows[number]), count=LONGEST))
        except (ValueError, OSError, StopIteration) as error:
            faults[name] = " ".join(str(error).split())
            continue
        told = ", ".join(filter(None, (episodes.sources[number], episodes.texts[number], episodes.splits[number])))
        shown[f"{name}{': ' if told else ''}{told}"] = frames
    count = f"{len(shown)} of {len(episodes):,} episodes, the first {LONGEST} frames of each at most"
    sections = [films(shown, title="Recordings", fps=episodes.spec.fps, caption=count)] if shown else []
    if faults:
        rows = "".join(f"{name}: {why}\n" for name, why in faults.items())
        sections.append(Figure("Cannot be read", "", rows))
    facts = {
        "episodes": f"{len(episodes):,}",
        "frames": f"{int(episodes.lengths.sum()):,}",
        "rate": f"{episodes.spec.fps:g} a second",
        "size": f"{episodes.spec.frame[0]} x {episodes.spec.frame[1]}",
    }
    page = render(title="tacit data view", headline=episodes.spec.name, sections=sections, facts=facts)
    path.write_text(page, encoding="utf-8", errors="backslashreplace")  # the name of a file may be no text
    return len(shown), faults
