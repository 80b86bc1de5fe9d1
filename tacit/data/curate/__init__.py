"""Curation: which recordings to learn from. Every function gives the episodes that are left and the table of the rest.

A *score* says one number an episode, higher is better, and ``keep`` drops by it; what cuts, trims or retrieves gives
the same pair. ``SCORES`` holds those that need nothing but the episodes, ``LOOKS`` what each of them looks at.
Split first and curate then: two stretches of one recording, or two speeds of it, are not held out from one another.
"""

from __future__ import annotations

from tacit.data.curate.cuts import cut, scenes
from tacit.data.curate.divergence import consistency
from tacit.data.curate.diversity import diversity
from tacit.data.curate.dropped import Drop, Dropped
from tacit.data.curate.duplicates import distinct
from tacit.data.curate.features import seen
from tacit.data.curate.information import information
from tacit.data.curate.keep import Score, keep
from tacit.data.curate.motion import chance, smoothness, steadiness, typical_length
from tacit.data.curate.outliers import typical_actions, typical_ends, typical_states
from tacit.data.curate.pace import Paced, retime
from tacit.data.curate.retrieve import likeness, retrieve
from tacit.data.curate.still import movement, trim
from tacit.data.curate.stretched import Stretched, stretches
from tacit.data.curate.weigh import returns, sample, weights

__all__ = [
    "LOOKS",
    "SCORES",
    "Drop",
    "Dropped",
    "Paced",
    "Score",
    "Stretched",
    "chance",
    "consistency",
    "cut",
    "distinct",
    "diversity",
    "information",
    "keep",
    "likeness",
    "movement",
    "retime",
    "retrieve",
    "returns",
    "sample",
    "scenes",
    "seen",
    "smoothness",
    "steadiness",
    "stretches",
    "trim",
    "typical_actions",
    "typical_ends",
    "typical_length",
    "typical_states",
    "weights",
]

SCORES: dict[str, Score] = {
    "chance": chance,
    "typical_length": typical_length,
    "smoothness": smoothness,
    "steadiness": steadiness,
    "typical_actions": typical_actions,
    "typical_states": typical_states,
    "typical_ends": typical_ends,
    "consistency": consistency,
    "diversity": diversity,
    "information": information,
}
LOOKS: dict[str, str] = {
    "chance": "nothing",
    "typical_length": "length",
    "smoothness": "actions",
    "steadiness": "actions",
    "typical_actions": "actions",
    "typical_states": "states",
    "typical_ends": "states",
    "consistency": "both",
    "diversity": "both",
    "information": "both",
}
