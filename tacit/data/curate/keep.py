"""``keep``: the one way from a score to fewer episodes, whatever the score looks at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tacit.data.curate.dropped import Drop, Dropped
from tacit.data.episodes import Episodes

Score = Callable[[Episodes], np.ndarray]  # one number an episode, higher is better; NaN where it cannot judge


def keep(
    episodes: Episodes, score: Score | np.ndarray, *, share: float | None = None, above: float | None = None
) -> tuple[Episodes, Dropped]:
    """The best ``share`` of the episodes by ``score``, or those whose score is at least ``above``, in their old order.

    What a score cannot judge (NaN: no label in it, say) it cannot condemn: such episodes stay, and the share is of the
    others. Of equals the earlier stays.
    """
    if (share is None) == (above is None) or (share is not None and not 0 < share <= 1):
        raise ValueError(
            f"keep was given share={share} and above={above}; wanted one: a share within (0, 1], or a least score."
        )
    named = "score" if isinstance(score, np.ndarray) else getattr(score, "__name__", type(score).__name__)
    values = np.asarray(score if isinstance(score, np.ndarray) else score(episodes), np.float64)
    if values.shape != (len(episodes),):
        raise ValueError(
            f"The {named} has shape {values.shape}; wanted one number for each of {len(episodes)} episodes."
        )
    judged = np.flatnonzero(~np.isnan(values))
    order = judged[np.argsort(-values[judged], kind="stable")]
    if share is not None:
        gone = order[max(1, round(share * len(order))) :]
        why = f"{named} is not among the best {share:.0%}"
    else:
        least = float(above)  # type: ignore[arg-type]
        gone = judged[values[judged] < least]
        why = f"{named} is below {least:g}"
    return parted(episodes, {int(i): (float(values[i]), why) for i in gone})


def parted(episodes: Episodes, gone: dict[int, tuple[float, str]]) -> tuple[Episodes, Dropped]:
    """The episodes less those of the numbers ``gone``, and the table of these: their scores, and why."""
    if len(gone) == len(episodes):
        reasons = sorted({why for _, why in gone.values()})
        raise ValueError(f"All {len(episodes)} episodes would be dropped ({'; '.join(reasons[:3])}); ask for less.")
    names = episodes.names
    rows = tuple(Drop(names[i], i, *gone[i]) for i in sorted(gone))
    return episodes.select([i for i in range(len(episodes)) if i not in gone]), Dropped(rows, len(episodes))
