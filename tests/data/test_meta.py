"""What the meta folder says may be anything: what cannot be is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tacit.data as data
from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("info", {"data_path": {"a": 1}}, "path template"),
        ("tacit", {"spec": {"space": {"kind": "continuous", "size": 1.5}}}, "whole number"),
        ("tacit", {"episodes": ["a"]}, "what cannot be"),
        ("tacit", {"episodes": [{"source": 3}]}, "what cannot be"),
    ],
)
def test_metadata_of_a_wrong_kind_are_refused_in_one_line(
    tmp_path: Path, file: str, changes: dict[str, Any], says: str
) -> None:
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    some = [Episode(frames=frames + i, actions=np.zeros(3, np.int64)) for i in range(2)]
    data.save(Episodes.of(some, space=Space("discrete", 3), fps=5), tmp_path)
    place = tmp_path / "meta" / f"{file}.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))
    with pytest.raises(ValueError, match=says) as caught:
        data.open(tmp_path).episode(0)
    assert "\n" not in str(caught.value)
