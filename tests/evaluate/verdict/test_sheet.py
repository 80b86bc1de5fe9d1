"""The verdict's page shows what a model allows, stands alone, and opens in a browser, light, dark and on a phone."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tacit.clip import Episode, Space
from tacit.data import toys
from tacit.data.episodes import Episodes
from tacit.envs.dots import Board
from tacit.evaluate.page import Figure
from tacit.evaluate.report import Value
from tacit.evaluate.verdict.adapter import Pair
from tacit.evaluate.verdict.check import Check, Limit
from tacit.evaluate.verdict.exam import Exam
from tacit.evaluate.verdict.sheet import bar, beside, sheet, span
from tacit.evaluate.verdict.shown import Stage, figures, told
from tacit.evaluate.verdict.verdict import Verdict, examine, verdict_of
from tacit.recipes.lapo import lapo
from tacit.recipes.tacit import tacit
from tacit.train import Plan

NASTY = "<script>alert('x')</script> & \"quoted\""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PICTURES = {"Predictions", "The same latent elsewhere", "What each latent moves"}
Shown = tuple[Verdict, str]


def board(*, discrete: bool = False) -> Episodes:
    world = Board(size=16, goal=False, wrap=False, room=6.0, discrete=discrete)
    return toys.dots(world, episodes=60, length=12).episodes


@pytest.fixture(scope="module")
def sides() -> tuple[Episodes, Episodes]:
    return board().split(0.4)


def plan(steps: int) -> Plan:
    return Plan(steps=steps, batch=32, rate=2e-3, device="cpu", log_every=10**6)


@pytest.fixture(scope="module")
def ours(sides: tuple[Episodes, Episodes]) -> Shown:
    model = tacit(sides[0].unlabelled(), None, points=4, width=8, reach=2, plan=plan(60)).eval()
    return shown(Exam(model, sides[1], learnt=sides[0]), title="ours")


@pytest.fixture(scope="module")
def coded(sides: tuple[Episodes, Episodes]) -> Shown:
    model = lapo(sides[0].unlabelled(), None, codes=8, width=1, base=8, plan=plan(20)).eval()
    return shown(Exam(model, sides[1]), title="coded")


@pytest.fixture(scope="module")
def stated() -> Shown:
    data = toys.linear(episodes=24, length=14, size=6, actions=2, exogenous=2).episodes
    model = Pair(of="state", encode=lambda o, after: after - o, predict=lambda o, z: o + z)
    return shown(Exam(model, data), title="stated")


def shown(exam: Exam, *, title: str) -> Shown:
    verdict = verdict_of(exam, title=title)
    return verdict, sheet(verdict, exam)


def titles(text: str) -> set[str]:
    return set(re.findall(r"<h2>([^<]+)</h2>", text))


def alone(text: str) -> None:
    """A page with no script and nothing from elsewhere, of less than 5 MB."""
    assert len(text.encode()) < 5_000_000
    rest = text.replace("http-equiv", "")
    assert "http" not in rest and "<script" not in text.lower() and "nan" not in re.findall(r"[a-z]+", rest)
    assert all(source.startswith("data:image/") for source in re.findall(r'(?:src|srcset)="([^"]*)"', text))


def test_a_model_of_pictures_is_shown_whole(ours: Shown) -> None:
    verdict, text = ours
    alone(text)
    wanted = {"Checks", *PICTURES, "Map of latents", "What labels tell", "Spread of latents", "How it was made"}
    assert wanted <= titles(text) and "Use of codes" not in titles(text)
    assert f"<h1>{escape(verdict.headline)}</h1>" in text and "Verdict on ours" in text
    for check in verdict.checks:
        assert escape(check.question) in text and escape(check.name) in text
    assert text.count("class='mark ") == len(verdict.checks)
    assert ("What to try" in titles(text)) == bool(verdict.command)


def test_a_model_with_codes_shows_their_use(coded: Shown) -> None:
    alone(coded[1])
    assert {"Use of codes", *PICTURES} <= titles(coded[1]) and "Spread of latents" not in titles(coded[1])
    assert "of all</h3>" in coded[1]


def test_states_have_no_pictures_and_the_rest(stated: Shown) -> None:
    alone(stated[1])
    assert not PICTURES & titles(stated[1])
    assert {"Map of latents", "What labels tell", "Spread of latents"} <= titles(stated[1])
    assert "<img" not in stated[1]


def named(found: list[Figure]) -> dict[str, Figure]:
    return {figure.title: figure for figure in found}


def edge(o: Tensor) -> Tensor:
    return o.mean((1, 3))[:, :2]


@pytest.mark.parametrize(
    "model",
    [
        Pair(encode=lambda o, after: edge(after - o)),
        Pair(encode=lambda o, after: edge(after - o), predict=lambda o, z: edge(o) + z, features=edge),
    ],
    ids=["no predict", "features"],
)
def test_without_predicted_pictures_none_are_shown(model: Pair, sides: tuple[Episodes, Episodes]) -> None:
    assert set(named(figures(Exam(model, sides[1], most=64), ()))) == {"Map of latents", "Spread of latents"}


def test_without_encode_or_labels_what_needs_them_is_left_out(sides: tuple[Episodes, Episodes]) -> None:
    assert figures(Exam(Pair(predict=lambda o, z: o), sides[1], most=64), ()) == []
    blind = Exam(Pair(encode=lambda o, after: edge(after - o)), sides[1].unlabelled(), most=64)
    assert set(named(figures(blind, ()))) == {"Spread of latents"}


def test_the_map_names_discrete_actions_and_few_latents_are_moved_apart() -> None:
    data = board(discrete=True)
    assert data.spec.space is not None and data.spec.space.discrete
    found = named(figures(Exam(Pair(encode=lambda o, after: after[:, 0, :1, 0].round()), data, most=64), ()))
    chart = found["Map of latents"]
    assert all(name in chart.body for name in data.spec.space.names[1:]) and "moved apart" in chart.caption


def halved(o: Tensor, z: Tensor) -> Tensor:
    """The left half of the picture becomes as bright as the latent says."""
    left = torch.arange(o.shape[3]) < o.shape[3] // 2
    return torch.where(left, (o + z[:, :1, None, None]).clamp(0, 1), o)


def test_the_effect_lies_where_the_latent_moves_pixels(sides: tuple[Episodes, Episodes]) -> None:
    model = Pair(encode=lambda o, after: edge(after - o) + 0.3, predict=halved)
    stage = Stage.of(Exam(model, sides[1], most=64))
    assert stage is not None
    for map_ in pictures(named(figures(stage.exam, ()))["What each latent moves"].body)[1:]:
        assert map_[:, 8:, 3].max() == 0 < map_[:, :8, 3].min()


def test_wrong_latents_are_of_the_same_and_of_other_episodes(sides: tuple[Episodes, Episodes]) -> None:
    model = Pair(encode=lambda o, after: o.flatten(1), predict=lambda o, z: o)
    stage = Stage.of(Exam(model, sides[1], most=200))
    assert stage is not None and len(np.unique(stage.exam.path.owner[stage.rows])) == len(sides[1])
    latents, owner = stage.exam.latents, stage.exam.path.owner
    for own in (True, False):
        for row, z in zip(stage.rows[:6], stage.lent(count=6, own=own), strict=True):
            from_ = owner[np.flatnonzero((latents == z).all(1))]
            assert ((from_ == owner[row]) == own).all() and (latents[row] != z).any()


def pictures(body: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', body)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_large_pictures_of_noise_stay_small_on_the_page() -> None:
    random = np.random.default_rng(0)
    noise = [Episode(frames=random.integers(0, 256, (9, 160, 120, 3), dtype=np.uint8)) for _ in range(8)]
    many = Space("discrete", 16, names=("<b>", *"bcdefghijklmnop"))
    data = Episodes.of([e.replace(actions=np.arange(8) + i % 2 * 8) for i, e in enumerate(noise)], space=many)
    model = Pair(encode=lambda o, after: after[:, 0, :4, 0], predict=lambda o, z: (o + z[:, :1, None, None]) % 1)
    found = named(figures(Exam(model, data), ()))
    assert len(found) == 5 and sum(len(figure.body) for figure in found.values()) < 4_500_000
    assert max(max(p.shape[:2]) for p in pictures(found["Predictions"].body)) == 80
    assert all("<b>" not in figure.body for figure in found.values())


def checked(value: float | None = 0.7, *, limit: Limit | None = None, **known: Any) -> Check:
    known = {"outcome": "pass", "null": 0.2, "against": "a guess"} | known
    wanted = limit or Limit(0.5, True, "so")
    return Check("C1", "used", "Is it used?", value=Value("gap", value, 0.6, 0.8), limit=wanted, **known)


def test_a_bar_shows_its_number_interval_null_and_limit() -> None:
    drawn = bar(checked(), (0.0, 2.0))
    assert "<b style='left:35.0%'>" in drawn and "<i style='left:30.0%;right:60.0%'>" in drawn
    assert "<s style='left:25.0%;right:0'>" in drawn and "class=limit style='left:25.0%'" in drawn
    assert 'class=null style="left:10.0%"' in drawn and "a guess" in drawn
    assert "gap is 0.7, between 0.6 and 0.8, wanted at least 0.5, null 0.2" in drawn
    assert "<s style='left:0;right:75.0%'>" in bar(checked(limit=Limit(0.5, False, "so")), (0.0, 2.0))
    assert bar(checked(None), (0.0, 1.0)) == ""
    assert "left:100.0%" in bar(checked(9.0), (0.0, 1.0))  # beyond the scale it lies on its end


@pytest.mark.parametrize(
    ("value", "scale"),
    [
        (Value("x", 0.7, 0.6, 0.8), (0.0, 1.0)),
        (Value("x", -0.001, -0.01, 0.2), (0.0, 1.0)),  # as good as 0
        (Value("x", 3.2, 3.0, 3.9), (0.0, 4.0)),
        (Value("x", 60.0, 10.0, 900.0), (0.0, 90.0)),  # an interval that would flatten all else is cut
        (Value("x", -0.6, -0.8, -0.5), (-1.0, 0.5)),
    ],
)
def test_a_scale_has_room_and_round_ends(value: Value, scale: tuple[float, float]) -> None:
    assert span([replace(checked(), value=value)]) == pytest.approx(scale)


def test_a_scale_of_nothing_is_still_a_scale() -> None:
    assert span([]) == (0.0, 1.0)
    low, high = span([Check("A", "in step", "?", "pass", Value("x", 0.0), 0.0, limit=Limit(0.0, False, "so"))])
    assert low < high


def test_the_curve_is_read_from_the_names_of_numbers() -> None:
    more = [Value(f"read with {n} labels", n / 64, n / 80, n / 60) for n in (16, 64)]
    more += [Value("labels alone, 16 labels", -0.4), Value("labels alone, 64 labels", 0.2), Value("other", 1.0)]
    drawn = told([Check("C7", "alignable", "?", "pass", more=tuple(more))], discrete=False)
    assert drawn is not None and "latents</li>" in drawn.body and "labels alone</li>" in drawn.body
    assert "drawn at 0" in drawn.caption and "other" not in drawn.body
    assert told([Check("C7", "alignable", "?", "abstain")], discrete=True) is None


def verdict(title: str, *checks: Check, data: str = "d") -> Verdict:
    return Verdict("working", checks, (), 0.9, data, title=title, fingerprint={"held-out episodes": data})


def by_hand(*checks: Check) -> tuple[Check, ...]:
    return (*checks, *(Check(code, "-", "-", "abstain") for code in ("C7", "C10")))


def test_models_side_by_side(ours: Shown, coded: Shown) -> None:
    text = beside([ours[0], coded[0]])
    alone(text)
    assert all(escape(each.headline) in text for each in (ours[0], coded[0])) and "no contest" not in text
    assert f"ours is {ours[0].name}; coded is {coded[0].name}." in text
    assert text.count('data-label="ours"') == len(ours[0].checks)
    with pytest.raises(ValueError, match="no verdict"):
        beside([])


def test_what_cannot_be_compared_is_said() -> None:
    one = verdict(NASTY, *by_hand(checked()))
    two = verdict("two", *by_hand(replace(checked(9.0), value=Value("another", 9.0))), data="e")
    text = beside([one, two, verdict("three", *by_hand())])
    alone(text)
    assert "no contest" in text and "gap; wanted at least 0.5" in text and "another; wanted at least 0.5" in text
    assert "<div>–</div>" in text  # the third was not asked
    assert "4 of 4 models are working" in beside([one, two, one, two])


def test_the_verdict_is_the_same_however_it_is_asked(sides: tuple[Episodes, Episodes]) -> None:
    model = Pair(encode=lambda o, after: edge(after - o))
    exam = Exam(model, sides[1].unlabelled(), most=64)
    mine, theirs = verdict_of(exam, title="x"), examine(model, sides[1].unlabelled(), most=64, title="x")
    assert replace(mine, seconds=0.0).plain() == replace(theirs, seconds=0.0).plain()
    guilty = Pair(encode=lambda o, after: after, seen=frozenset(sides[1].prints))
    with pytest.raises(ValueError, match="were used to train"):
        verdict_of(Exam(guilty, sides[1]))


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium: Playwright's own, or the system's."""
    driver = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with driver.sync_playwright() as started:
        own = started.chromium.executable_path
        found = own if Path(own).exists() else next(filter(None, map(shutil.which, BROWSERS)), None)
        if found is None:
            pytest.skip("there is no Chromium: `playwright install chromium`, or the system's package")
        opened = started.chromium.launch(executable_path=found)
        yield opened
        opened.close()


def brightness(page: Any) -> float:
    told = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return float(np.mean([float(x) for x in re.findall(r"[\d.]+", told)[:3]]) / 255)


def test_it_opens_in_a_browser(browser: Any, ours: Shown, coded: Shown, stated: Shown, tmp_path: Path) -> None:
    pages = {"ours": ours[1], "coded": coded[1], "stated": stated[1], "beside": beside([ours[0], coded[0]] * 3)}
    for name, text in pages.items():
        (tmp_path / f"{name}.html").write_text(text, encoding="utf-8")
        for scheme, width in (("light", 1240), ("dark", 1240), ("light", 390), ("dark", 390)):
            faults: list[str] = []
            page = browser.new_page(viewport={"width": width, "height": 844})
            page.on("console", lambda message, faults=faults: faults.append(message.text))
            page.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
            page.on("request", lambda request, faults=faults: faults.append(request.url))
            page.emulate_media(color_scheme=scheme)
            page.goto((tmp_path / f"{name}.html").as_uri())
            page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            assert [fault for fault in faults[1:] if not fault.startswith("data:image/")] == []  # the first is the page
            assert faults[0].endswith(f"{name}.html")
            assert (brightness(page) > 0.8) if scheme == "light" else (brightness(page) < 0.2)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, scheme, width)
            assert page.evaluate("[...document.images].every(one => one.naturalWidth > 0)")
            wide, narrow = (page.locator(f"svg.plot.{kind}:visible").count() for kind in ("wide", "narrow"))
            assert (narrow == 0) if width > 700 else (wide == 0)
            if width < 700:  # nothing is cut off at the side, and each check is a card
                spill = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > 391)"
                assert page.evaluate(f"{spill}.length") == 0
                assert page.evaluate("getComputedStyle(document.querySelector('tbody tr')).display") == "block"
            page.close()
