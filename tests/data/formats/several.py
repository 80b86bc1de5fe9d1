"""Episodes of every kind, and what two of them differ in: what the tests of every format write and read again."""

from __future__ import annotations

import numpy as np

from tacit.clip import Episode, Space

FIVE, VECTOR = Space("discrete", 5, names=tuple("abcde")), Space("continuous", 2, -3.0, 3.0)


def recorded(space: Space | None, *, frames: bool = True, state: bool = True) -> list[Episode]:
    """Episodes of every kind: one frame, no labels, one label missing, no rewards, and every fact told or not."""
    random, made = np.random.default_rng(3), []
    for number, length in enumerate((7, 2, 5, 1, 9)):
        count, actions = length - 1, None
        if space is not None and number not in (2, 3):
            acts = random.integers(0, 5, count) if space.discrete else random.uniform(-3, 3, (count, 2))
            actions = acts.astype(space.dtype)
            if number == 4:
                actions[3] = space.blank(1)[0]
        made.append(
            Episode(
                frames=random.integers(0, 256, (length, 12, 16, 3), dtype=np.uint8) if frames else None,
                state=random.normal(size=(length, 3)).astype(np.float32) if state else None,
                actions=actions,
                rewards=random.normal(size=count).astype(np.float32) if number in (0, 4) and frames else None,
                text=(None, "", "push \u00e9")[number % 3],
                source=("", "expert")[number % 2],
                success=(None, True, False)[number % 3],
                split=("train", "valid", "")[number % 3],
            )
        )
    return made


def unlike(one: Episode, two: Episode) -> list[str]:
    """In which of their columns and facts two episodes differ."""
    found = [n for n in ("text", "source", "success", "split") if getattr(one, n) != getattr(two, n)]
    for name in ("frames", "state", "actions", "rewards"):
        a, b = getattr(one, name), getattr(two, name)
        if a is None or b is None:
            found += [] if a is b else [name]
        elif a.dtype != b.dtype or not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            found.append(name)
    return found
