"""What an inspection says: on a page that stands alone, as JSON and in print."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import tacit.data as data
from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.inspect import WARN, Finding, inspect, neighbours, spread
from tacit.data.record import Writer
from tests.data.inspect.planted import black, changed, clean, cut, fired, framed

HOSTILE = "<script>alert('x')</script>\"&.mp4"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    whole = changed(clean(5), _1=framed(cut), _2=framed(black))
    with Writer(tmp_path / "data", whole.spec) as writer:
        for i in range(5):
            writer.add(whole.episode(i), origin=HOSTILE if i == 1 else f"film-{i}")
    return tmp_path / "data"


class Reading(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "srcset")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_escapes_names(hostile: Path, tmp_path: Path) -> None:
    found = inspect(data.open(hostile))
    text = found.save(tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    page = Reading()
    page.feed(text)
    assert "script" not in page.tags and all(link.startswith("data:image/") for link in page.links)
    assert not re.search(r"https?://|url\(", text)
    assert HOSTILE in page.text and "film-2" in page.text
    assert page.tags.count("img") == 5
    assert page.text.index(HOSTILE) < page.text.rindex("film-0")  # the worst come first
    assert "cut" in text and found.headline in page.text


def test_the_json_goes_there_and_back(hostile: Path) -> None:
    found = inspect(data.open(hostile))
    plain = json.loads(json.dumps(found.plain(), allow_nan=False))
    assert plain == found.plain()
    assert [Finding(**f) for f in plain["findings"]] == found.findings
    assert (plain["code"], plain["grade"], plain["names"]["1"]) == (1, WARN, HOSTILE)


def test_it_prints_a_line_a_finding_the_worst_first() -> None:
    found = inspect(changed(clean(), _4=framed(cut)))
    console = Console(file=io.StringIO(), width=400, color_system=None)
    console.print(found)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == len(found.findings) + 1
    assert lines[0].startswith("WARN  cuts") and all(line.startswith("PASS") for line in lines[1:-1])
    assert lines[-1].strip() == "recordings: 1 warning in 16 checks."


def test_names_with_markup_are_printed_as_they_are() -> None:
    finding = Finding("cuts", WARN, "in [bold]x[/bold] [/]")
    from tacit.data.inspect import Inspection

    assert "[bold]x[/bold] [/]" in str(Inspection("[red]name", [finding]))


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ValueError, match="most 0"):
        inspect(clean(2), most=0)
    with pytest.raises(ValueError, match="grade"):
        Finding("cuts", "BAD", "")  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "most"), [(1, 5), (7, 7), (10_000, 200), (50, 3), (11, 10)])
def test_picks_are_within_and_no_more_than_asked(count: int, most: int) -> None:
    for picked in (spread(count, most), neighbours(count, most)):
        assert 0 < len(picked) <= most and picked.min() >= 0 and picked.max() < count
        assert len(set(picked.tolist())) == len(picked)
    assert len(spread(count, most)) == min(count, most)


def test_states_without_pictures_are_inspected_too() -> None:
    random = np.random.default_rng(0)
    states = [random.normal(size=(30, 3)).astype(np.float32) for _ in range(12)]
    states[5] = states[2]
    actions = [np.diff(s[:, :2], axis=0) / 10 for s in states]
    space = Space("continuous", 2)
    made = [Episode(state=s, actions=a.astype(np.float32)) for s, a in zip(states, actions, strict=True)]
    found = inspect(Episodes.of(made, space=space))
    assert fired(found) == {"duplicates": (2, 5)}
    assert found["offset"].facts["best"] == 0
