"""Reports say what was measured, survive saving, loading and merging, and make a page that stands alone."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tacit.evaluate import page
from tacit.evaluate.interval import Interval, between, number, split, summarise
from tacit.evaluate.page import Figure
from tacit.evaluate.report import Report, Value, duration, log

NASTY = "<script>alert('x')</script> & \"quoted\" $x_1$"
BUDGETS = (16, 64, 256)


def rows(seeds: int = 3) -> list[dict[str, Any]]:
    """Made-up runs of two methods at three budgets, and of the two ends of the scale."""
    random = np.random.default_rng(0)
    mean = {"tacit": (0.5, 0.7, 0.9), "bc": (0.1, 0.2, 0.4)}
    cells = [(m, n, p) for m, shares in mean.items() for n, p in zip(BUDGETS, shares, strict=True)]
    cells += [("bc", 20_000, 0.95), ("random", 0, 0.05)]
    found = []
    for m, n, p in cells:
        for s in range(seeds):
            success = float(random.binomial(50, p) / 50)
            found.append({"method": m, "labels": n, "seed": s, "success": success, "return": p * 9, "episodes": 50})
    return found


def frames(count: int, size: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def full() -> Report:
    """A report with everything in it."""
    report = Report("demo", "One sentence.", rows=rows(), seeds=(0, 1, 2), command="tacit demo", metric="success")
    report.stages, report.fingerprint = {"collect": 12.0, "train": 100.0}, {"held-out": "abc123"}
    report.add(Value("probe", 0.9, 0.8, 0.95, 12, "held-out play"), Value("gap", math.nan, note="not measured"))
    report.figures = {
        "films": page.films({"tacit": frames(5), "bc": frames(9)}),
        "strip": page.filmstrip(frames(20)),
        "predictions": page.predictions(frames(3), frames(3, seed=1), predicted=frames(3, seed=2)),
        "effects": page.effects(frames(1)[0], frames(2, seed=3), names=["left", "right"]),
        "losses": page.losses({"run": [{"step": i, "loss": 1 / i} for i in range(1, 90)]}),
    }
    return report


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_is_strict_and_holds_what_is_promised(tmp_path: Path) -> None:
    report = full()
    report.rows[0]["extra"] = float("inf")
    report.rows[1]["extra"] = np.float32("nan")
    report.rows[2] |= {"array": np.arange(3), "tensor": torch.tensor([1.5, float("nan")]), "count": np.int64(4)}
    plain = strict((report.save(tmp_path) / "report.json").read_text())
    assert plain["rows"][0]["extra"] is None and plain["rows"][1]["extra"] is None
    assert plain["rows"][2]["array"] == [0, 1, 2] and plain["rows"][2]["tensor"] == [1.5, None]
    assert {"method", "labels", "seed", "success", "return", "episodes"} <= plain["rows"][0].keys()
    assert plain["seconds"] == 112 and plain["command"] == "tacit demo"
    assert plain["fingerprint"] == {"held-out": "abc123"}
    assert {"python", "torch", "numpy", "cores"} <= plain["versions"].keys()
    assert plain["values"][0] == {
        "name": "probe", "value": 0.9, "low": 0.8, "high": 0.95, "n": 12, "data": "held-out play", "note": ""
    }  # fmt: skip
    assert plain["values"][1]["value"] is None
    cell = next(e for e in plain["summary"] if (e["method"], e["labels"]) == ("tacit", 16))
    shares = [r["success"] for r in report.rows if (r["method"], r["labels"]) == ("tacit", 16)]
    assert cell["mean"] == pytest.approx(np.mean(shares)) and cell["low"] < cell["mean"] < cell["high"]
    assert cell["n"] == 3 and cell["over"] == "seeds"


def test_what_json_cannot_hold_is_named(tmp_path: Path) -> None:
    report = Report("x", rows=[{"a": 1}, {"b": {"c": object()}}])
    with pytest.raises(TypeError, match=r"report\.rows\[1\]\.b\.c is a object"):
        report.save(tmp_path)
    with pytest.raises(TypeError, match="has the key 3"):
        Report("x", rows=[{"a": {3: 1}}]).save(tmp_path)
    assert not list(tmp_path.iterdir())  # nothing half-written


def test_loading_gives_the_same_report(tmp_path: Path) -> None:
    report = full()
    report.save(tmp_path / "a")
    loaded = Report.load(tmp_path / "a")
    assert loaded.values == report.values and loaded.rows == report.rows and loaded.figures == report.figures
    loaded.save(tmp_path / "b")
    for name in ("report.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert Report.load(tmp_path / "b" / "report.json").title == "demo"


def test_what_is_not_a_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Report\.save"):
        Report.load(tmp_path)
    for text in ("", "[]", "{}", '{"format": "other"}', '{"format": "tacit.report/1"}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(ValueError, match="not a report"):
            Report.load(tmp_path)


def test_a_failed_save_leaves_the_last_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full().save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    changed = full()
    changed.headline = "Another sentence."

    def full_disk(self: Path, text: str, encoding: str) -> int:
        with open(self, "w", encoding=encoding) as file:
            file.write(text[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space"):
        changed.save(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_values_are_found_by_name_and_never_twice() -> None:
    report = full()
    assert report["probe"].high == 0.95
    with pytest.raises(KeyError, match="no value 'prob'; it has probe"):
        report["prob"]
    with pytest.raises(ValueError, match="'probe' on held-out play is already"):
        report.add(Value("probe", 0.1, data="held-out play"))
    assert Value.of("x", Interval(0.5, math.nan, math.nan, 1)).low is None
    with pytest.raises(ValueError, match="low must not exceed"):
        Value("x", 0.5, 0.9, 0.1)


def test_merging_keeps_everything_and_refuses_contradictions() -> None:
    one = Report("a", rows=rows()[:4], stages={"train": 5.0}, seeds=(0,), versions={"torch": "1"})
    one.fingerprint = {"d": "1"}
    two = Report("b", rows=rows()[2:6], stages={"train": 2.0, "act": 1.0}, seeds=(1,), versions={"torch": "2"})
    one.add(Value("x", 1.0, data="d"))
    two.add(Value("y", 2.0, data="d"), Value("x", 1.0, data="d"))
    two.figures["f"] = Figure("F", "<p>f</p>")
    both = one.merge(two)
    assert [v.name for v in both.values] == ["x", "y"] and len(both.rows) == 6 and both.seeds == (0, 1)
    assert both.stages == {"train": 7.0, "act": 1.0} and both.seconds == 8.0
    assert both.versions == {"torch": "1, 2"} and set(both.figures) == {"f"} and both.title == "a"
    assert len(one.values) == 1 and len(one.rows) == 4 and one.stages == {"train": 5.0}  # left as it was
    with pytest.raises(ValueError, match="'x' on d is already"):
        one.merge(Report("c", values=[Value("x", 1.5, data="d")]))
    with pytest.raises(ValueError, match="disagree about the data set 'd'"):
        one.merge(Report("c", fingerprint={"d": "2"}))


def test_it_prints_legibly() -> None:
    text = str(full())
    line = next(line for line in text.splitlines() if line.strip().startswith("tacit"))
    assert re.search(r"tacit\s+\d+\s%\s+\d+–\d+", line)
    assert "16 labels" in text and "bc, all 20,000 labels" in text and "random, no labels" in text
    assert re.search(r"probe\s+0\.9\s+0\.8–0\.95\s+12\s+held-out play", text)
    assert "1 min 52 s" in text and "\x1b" not in text and "nan" not in text
    assert "[bold]" in str(Report("x", values=[Value("[bold]", 1.0)]))  # a name is text, not markup


def test_ends_of_the_scale_stand_apart() -> None:
    entries = summarise(rows())
    methods, columns, ends = split(entries)
    assert methods == ["tacit", "bc"] and columns == list(BUDGETS)
    assert [(e["method"], e["labels"]) for e in ends] == [("bc", 20_000), ("random", 0)]
    assert split(entries, (16, 64))[1] == [16, 64] and len(split(entries, (16, 64))[2]) == 4
    alone = summarise([{"method": "a", "labels": 8, "success": 0.5}])
    assert split(alone)[:2] == (["a"], [8])


def test_all_labels_are_one_end_though_each_seed_has_another_count_of_them() -> None:
    def over(*counts: int, seeds: tuple[int, ...] = (0, 1, 2)) -> list[tuple[int, int]]:
        runs = [{"method": "all", "labels": n, "seed": s, "success": 1.0} for n, s in zip(counts, seeds, strict=True)]
        return [(entry["labels"], entry["n"]) for entry in summarise(runs)]

    assert over(9611, 9587, 9602) == [(9600, 3)]
    assert [labels for labels, _ in over(16, 64, 256)] == [16, 64, 256], "budgets stay apart"
    assert len(over(9611, 9587, 9587, seeds=(0, 0, 1))) == 2, "a seed that was tried twice tells that they are budgets"


def test_intervals_of_success_stay_within_what_is_possible() -> None:
    runs = [{"method": "a", "labels": 8, "success": s, "return": s} for s in (0.8, 1.0, 1.0)]
    assert summarise(runs)[0]["high"] == 1 < summarise(runs, "return")[0]["high"]


def test_one_seed_takes_its_interval_from_its_episodes() -> None:
    one = summarise(rows(seeds=1))[0]
    assert one["over"] == "episodes" and one["n"] == 50 and one["low"] < one["mean"] < one["high"]
    given = {"method": "a", "labels": 8, "return": 3.0, "return_low": 2.0, "return_high": 4.5, "episodes": 20}
    entry = summarise([given], "return")[0]
    assert (entry["n"], entry["low"], entry["high"], entry["over"]) == (20, 2.0, 4.5, "episodes")
    assert math.isnan(summarise([{"method": "a", "labels": 8, "return": 3.0}], "return")[0]["low"])
    assert summarise([{"method": "a", "labels": 8, "success": None}]) == []


class Audit(HTMLParser):
    """Collects what a browser would fetch or run, and whether tags close in order."""

    VOID = frozenset({"meta", "img", "source"})
    OPTIONAL = frozenset({"html", "body"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open += [] if tag in self.VOID else [tag]
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has a handler {name}"
            if name in ("src", "srcset", "href", "action", "data"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data if self.open and self.open[-1] != "style" else ""


def audit(html: str) -> Audit:
    found = Audit()
    found.feed(html)
    assert not found.open
    return found


def test_page_stands_alone_and_runs_nothing() -> None:
    html = full().html()
    found = audit(html)
    assert all(link.startswith(("data:image/", "#")) for link in found.links) and len(found.links) > 20
    assert not found.tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert "://" not in html and "@import" not in html and "url(h" not in html
    assert "default-src 'none'" in html and "prefers-color-scheme:dark" in html and "width=device-width" in html
    assert len(found.ids) == len(set(found.ids))  # drawings on one page do not borrow from each other
    wanted = {link.removeprefix("#") for link in found.links if link.startswith("#")}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", html))
    assert wanted <= set(found.ids)
    for words in ("One sentence.", "What labels buy", "Predictions", "Latent actions", "Training", "12 s"):
        assert words in found.text


def test_all_text_is_escaped() -> None:
    raw = [{**row, "method": NASTY if row["method"] == "tacit" else row["method"], NASTY: NASTY} for row in rows()]
    report = Report(NASTY, NASTY, rows=raw, command=NASTY, stages={NASTY: 1.0}, versions={NASTY: NASTY})
    report.fingerprint = {NASTY: NASTY}
    report.add(Value(NASTY, 1.0, data=NASTY, note=NASTY))
    report.figures = {
        NASTY: page.films({NASTY: frames(3)}, title=NASTY, caption=NASTY),
        "e": page.effects(frames(1)[0], frames(1), names=[NASTY]),
        "s": page.filmstrip(frames(3), title=NASTY, caption=NASTY),
        "l": page.losses({NASTY: [{"step": 1, "loss": 1.0}]}),
    }
    html = report.html()
    assert "<script" not in html
    assert audit(html).text.count(NASTY) > 12


def test_a_whole_page_stays_small() -> None:
    film = np.random.default_rng(0).integers(0, 256, (150, 160, 160, 3), dtype=np.uint8)  # noise: nothing is harder
    report = full()
    report.figures["films"] = page.films({str(i): film for i in range(4)})
    report.figures["predictions"] = page.predictions(film[:8], film[8:16], predicted=film[16:24])
    assert len(report.html()) < 5_000_000


def test_drawings_take_the_colours_of_the_page() -> None:
    body = page.curve(summarise(rows())).body
    assert body.count("<svg") == 2 and 'class="plot wide"' in body and 'class="plot narrow"' in body
    assert "var(--s0)" in body and "var(--s1)" in body and "var(--soft)" in body
    assert "5e1e5" not in body and page.GREY not in body and "font-family" not in body
    for label in ("16", "64", "256", "bc, all 20,000 labels", "random, no labels"):
        assert f">{label}</text>" in body
    assert body == page.curve(summarise(rows())).body  # the same report is the same bytes


def test_ends_of_the_scale_at_one_height_share_one_name() -> None:
    ends = [
        {"method": m, "labels": 0, "seed": 0, "success": v}
        for m, v in (("expert", 1.0), ("all", 0.99), ("chance", 0.0))
    ]
    body = page.curve(summarise([*rows(), *ends]), budgets=(16, 64)).body
    assert len(re.findall(r">[^<>]*expert[^<>]*all[^<>]*<|>[^<>]*all[^<>]*expert[^<>]*<", body)) >= 1
    assert not re.search(r">[^<>]*chance[^<>]*expert|>[^<>]*expert[^<>]*chance", body)


def test_wide_intervals_do_not_flatten_the_curve() -> None:
    given = {"low": -900.0, "high": 900.0, "metric": "return", "n": 2, "over": "seeds"}
    entries = [{"method": m, "labels": n, "mean": float(n), **given} for m in "ab" for n in (16, 64)]
    ticks = re.findall(r">([\u2212\d]+)</text>", page.curve(entries).body)
    assert all(-40 < float(tick.replace("\u2212", "-")) < 100 for tick in ticks) and len(ticks) > 6


def test_curve_leaves_out_a_band_where_there_is_no_interval() -> None:
    single = [{k: v for k, v in row.items() if k != "episodes"} for row in rows(seeds=1)]
    figure = page.curve(summarise(single))
    assert audit(figure.body).tags >= {"svg", "path"} and "nan" not in figure.body
    assert "–" not in page.summary(summarise(single)).body


def pictures(body: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(x))) for x in re.findall(r"base64,([A-Za-z0-9+/=]+)", body)]


def test_predictions_show_each_pair_and_where_it_is_wrong() -> None:
    true = frames(2)
    wrong = true.copy()
    wrong[1, 3, 5] ^= 128
    shown = pictures(page.predictions(frames(2, seed=5), true, predicted=wrong).body)
    assert len(shown) == 8  # past, true, predicted, difference, twice
    assert (np.asarray(shown[1]) == true[0]).all() and (np.asarray(shown[6]) == wrong[1]).all()
    right, missed = (np.asarray(shown[i])[..., 3] for i in (3, 7))
    assert right.max() == 0
    assert missed[3, 5] == 255 and missed.sum() == 255
    with pytest.raises(ValueError, match="shorter"):
        page.predictions(frames(2), true, predicted=wrong[:1])


def test_pictures_may_be_floats_but_not_channels_first() -> None:
    half = np.full((1, 8, 8, 3), 0.5)
    assert np.asarray(pictures(page.filmstrip(half).body)[0]).flat[0] == 128
    with pytest.raises(ValueError, match="channels last"):
        page.filmstrip(np.zeros((4, 3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="at least one frame"):
        page.films({"empty": np.zeros((0, 8, 8, 3), np.uint8)})


def test_films_move_and_hold_still_for_those_who_ask() -> None:
    film = frames(7)
    body = page.films({"tacit": film}, fps=5).body
    still, moving = pictures(body)
    assert getattr(moving, "n_frames", 1) == 7 and "prefers-reduced-motion" in body
    assert (np.asarray(still) == film[3]).all()
    moving.seek(2)
    assert (np.asarray(moving.convert("RGB")) == film[2]).all()  # short films are kept without loss


def test_filmstrip_spans_the_episode() -> None:
    film = frames(41)
    shown = pictures(page.filmstrip(film, count=5).body)
    assert [int(np.argmax([(np.asarray(x) == f).all() for f in film])) for x in shown] == [0, 10, 20, 30, 40]
    assert len(pictures(page.filmstrip(film[:2], count=5).body)) == 2


def test_losses_skip_what_was_not_logged(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0, "probe": 0.5}\n{"step": 3, "lo')
    read = log(path)
    assert [row["step"] for row in read] == [1, 2]
    body = page.losses({"long": [{"step": i, "loss": 5.0} for i in range(5000)], "run": read, "none": []}).body
    assert body.count("<figure>") == 2 and len(body) < 60_000
    assert page.losses({"run": read}, metric="probe").body.count("<svg") == 1


def test_numbers_read_as_a_person_writes_them() -> None:
    assert [duration(x) for x in (0.123, 9.96, 42.4, 59.7, 262, 7300)] == [
        "0.12 s", "10 s", "42 s", "1 min 00 s", "4 min 22 s", "2 h 01 min",
    ]  # fmt: skip
    told = [number(x) for x in (None, math.nan, 0.12345, -0.5, 20480.0)]
    assert told == ["–", "–", "0.123", "\u22120.5", "20,480"]
    assert number(0.714, "success") == "71\u202f%" and between(0.6, 0.8, metric="success") == "60–80"
    assert between(-0.1, 0.2) == "\u22120.1 to 0.2" and between(None, 0.2) == ""


def test_an_empty_report_is_still_a_report(tmp_path: Path) -> None:
    report = Report("nothing yet")
    assert "nothing yet" in str(report)
    audit(report.html())
    assert Report.load(report.save(tmp_path)).summary == []
