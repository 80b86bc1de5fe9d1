"""Diversity: what an episode shows that no other does."""

from __future__ import annotations

import numpy as np

from tacit.data.curate.features import Features, Points, seen
from tacit.data.curate.neighbours import Others
from tacit.data.episodes import Episodes

FLOOR = 1e-6  # of a distance: two equal points lie at no finite logarithm


def diversity(episodes: Episodes, *, k: int = 5, features: Features = seen) -> np.ndarray:
    """How much of the space of situations and actions an episode covers that others leave bare. Needs labels.

    Each episode's share of the k-nearest-neighbour entropy (Kozachenko and Leonenko 1987): the mean logarithm of the
    distance from its transitions to the ``k``-th nearest of other episodes. After the transition diversity of Belkhale
    et al. 2023 (arXiv 2306.02437), which is the noise of what follows a situation and an action. What is strange is
    diverse too: read it beside ``consistency`` or ``information``, which tell the two apart.
    """
    points = Points.of(episodes, features=features)
    joint = np.concatenate([points.view * np.sqrt(points.done.shape[1] / points.view.shape[1]), points.done], 1)
    gaps, _ = Others.of(points.owner).nearest(joint, points.owner, k=k)
    return points.mean(np.log(np.maximum(gaps[:, -1], FLOOR)), count=len(episodes))
