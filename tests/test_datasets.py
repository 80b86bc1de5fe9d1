"""`tacit data`: a newcomer's three commands, every verb and its exit code, every writable format there and back."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import tacit.data as data
from tacit.cli import main
from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.formats import FORMATS, WRITABLE


def filmed(path: Path, number: int, *, fps: int | Fraction, shape: tuple[int, int], seconds: float = 2.0) -> None:
    """A square that wanders over a background of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(number)
    back = random.integers(0, 80, (*shape, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = *shape, "yuv420p"
        at = np.array([8, 8])
        for _ in range(int(fps * seconds)):
            at = np.clip(at + random.integers(-3, 4, 2), 0, np.array(shape) - 12)
            picture = back.copy()
            picture[at[0] : at[0] + 12, at[1] : at[1] + 12] = (250, 200, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def told(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0) -> Any:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_from_a_folder_of_any_videos_to_a_trained_model_in_three_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mixed rates and sizes, three of them damaged: those are named and left out, and nothing else is lost."""
    for k in range(9):
        shape = ((48, 64), (64, 48), (60, 60))[k % 3]
        filmed(
            tmp_path / "videos" / ("left" if k % 2 else "right") / f"v{k}.mp4", k, fps=(30, 24, 10)[k % 3], shape=shape
        )
    whole = (tmp_path / "videos/left/v1.mp4").read_bytes()
    (tmp_path / "videos" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "videos" / "empty.mp4").touch()
    (tmp_path / "videos" / "letter.mp4").write_text("not a video " * 50)
    out = tmp_path / "data"
    brought = told(capsys, "data", "import", tmp_path / "videos", out, "--size", "32")
    assert brought["episodes"] == 9 and sorted(brought["left"]) == ["cut.mp4", "empty.mp4", "letter.mp4"]
    episodes = data.open(out)
    assert sorted(episodes.names) == sorted(f"{'left' if k % 2 else 'right'}/v{k}.mp4" for k in range(9))
    assert set(episodes.sources) == {"left", "right"} and episodes.spec.fps == 10
    assert episodes.lengths.tolist() == [20] * 9, "two seconds each, at the slowest rate"
    found = told(capsys, "data", "check", out, "--page", tmp_path / "check.html", code=0)
    assert {f["grade"] for f in found["findings"]} == {"PASS"}
    assert "v3.mp4" in (tmp_path / "check.html").read_text()
    words = ["--plan.steps", "2", "--plan.batch", "4"]
    trained = told(capsys, "train", "tacit", "--data", out, "--out", tmp_path / "m", *words)
    assert trained["frames"] == 180 and (tmp_path / "m" / "model.safetensors").exists()


def labelled(*, pictures: bool = True) -> Episodes:
    random = np.random.default_rng(0)
    episodes = [
        Episode(
            frames=random.integers(0, 256, (7 + i, 20, 24, 3), dtype=np.uint8) if pictures else None,
            state=random.normal(size=(7 + i, 3)).astype(np.float32),
            actions=random.uniform(-1, 1, (6 + i, 2)).astype(np.float32),
            text=f"task {i % 2}",
            split="train" if i < 4 else "valid",
        )
        for i in range(5)
    ]
    return Episodes.of(episodes, space=Space("continuous", 2), fps=12)


# What OGBench's layout has no place for; its rows are states or pictures, never both.
LOST = {"ogbench": {"text", "fps", "split"}}


@pytest.mark.parametrize("name", WRITABLE)
def test_there_and_back_nothing_that_the_format_can_hold_is_lost(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if FORMATS[name].EXTRA:
        pytest.importorskip({"zarr": "zarr"}.get(name, "h5py"))
    whole = labelled(pictures=name != "ogbench")
    data.save(whole, tmp_path / "native")
    there = tmp_path / {"robomimic": "demos.hdf5", "ogbench": "play.npz"}.get(name, name)
    told(capsys, "data", "export", tmp_path / "native", there, "--to", name)
    rate = ["--fps", "12"] if name == "frames" else []
    told(capsys, "data", "import", there, tmp_path / "back", *rate)
    back, lost = data.open(tmp_path / "back"), LOST.get(name, set())
    assert len(back) == len(whole) and ("fps" in lost or back.spec.fps == 12)
    for i in range(len(whole)):
        one, other = whole.episode(i), back.episode(i)
        for column in ("frames", "actions", "state"):
            value = getattr(one, column)
            if value is None or (column == "state" and name in ("frames",) and other.state is None):
                continue
            np.testing.assert_array_equal(getattr(other, column), value, err_msg=f"{column} of {i}")
        assert "text" in lost or other.text == one.text
        assert "split" in lost or other.split == one.split


def test_check_answers_with_its_grade(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.save(labelled(), tmp_path / "native", group=8)
    video = sorted((tmp_path / "native").rglob("*.mp4"))[2]
    video.write_bytes(video.read_bytes()[:600])
    found = told(capsys, "data", "check", tmp_path / "native", code=2)
    [fault] = [f for f in found["findings"] if f["check"] == "unreadable"]
    assert fault["grade"] == "FAIL" and fault["episodes"] == [3]
    mended = told(capsys, "data", "repair", tmp_path / "native", tmp_path / "whole", code=1)
    assert mended["episodes"] == 4 and list(mended["left"]) == ["episode 3"]


def test_the_other_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.save(labelled(), tmp_path / "a")
    data.save(labelled().select([0, 3]), tmp_path / "b")
    counted = told(capsys, "data", "stats", tmp_path / "a")
    rows = np.concatenate([e.actions for e in map(labelled().episode, range(5)) if e.actions is not None])
    assert counted["columns"]["actions"]["mean"] == pytest.approx(rows.mean(0), abs=1e-6)
    assert told(capsys, "data", "prepare", tmp_path / "a", "--size", "10")["size"] == [10, 10]
    assert told(capsys, "data", "split", tmp_path / "b", "--held", "0.5", "--again")["parts"] == {
        "train": 1,
        "valid": 1,
    }
    both = told(capsys, "data", "merge", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "both")
    assert both["datasets"] == {"both": {"episodes": 7, "frames": 62, "labels": 55}}
    kept = told(capsys, "data", "curate", "distinct", tmp_path / "both", tmp_path / "one")
    assert kept["after"]["episodes"] == 5
    shown = told(capsys, "data", "view", tmp_path / "both", "--page", tmp_path / "view.html")
    page = (tmp_path / "view.html").read_text()
    assert shown["episodes"] == 7 and page.count("<img") >= 7 and "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("words", "why", "code"),
    [
        (["import", "nowhere", "out"], "Is it spelt right", 2),
        (["import", "empty", "out"], "folder is empty", 2),
        (["import", "a", "out", "--camera", "foo"], "'foo'", 2),
        (["check", "nowhere"], "Is it spelt right", 3),
        (["merge", "--out", "out"], "PATH PATH", 2),
        (["curate", "consistency", "film.mp4", "out"], "typical_length", 1),
        (["curate", "typical_states", "film.mp4", "out"], "looks at states", 1),
        (["import", "film.mp4", "out", "--fps", "1000"], "film.mp4 holds nothing that was asked for: 1 slower", 2),
        (["import", "film.mp4", "out", "--size", "20000"], "of 4 to 4096", 2),
        (["import", "odd", "out"], "known format", 1),
        (["import", "a", "out", "--fps", "50"], "50", 2),
        (["import", "a", "out", "--size", "0"], "--size", 2),
        (["import", "a", "out", "--crop", "1", "2"], "TOP LEFT", 2),
        (["import", "a", "out", "--fit", "pad"], "give --size H", 2),
        (["export", "a", "out", "--to", "robomimc"], "robomimic", 2),
        (["export", "a", "a", "--to", "videos"], "never touched", 1),
        (["export", "a", "odd", "--to", "videos"], "exists already", 1),
        (["curate", "retrieve", "a", "out"], "--demos", 2),
        (["chek", "a"], "check", 2),
        (["merge", "a", "a", "--out", "out"], "different names", 1),
        (["repair", "a", "a/b"], "never touched", 1),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_leaves_nothing(
    words: list[str],
    why: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    data.save(labelled(), Path("a"))
    filmed(tmp_path / "film.mp4", 0, fps=10, shape=(48, 64))
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "thesis.pdf").write_text("x")
    capsys.readouterr()
    assert main(["data", *words]) == code
    complaint = capsys.readouterr().err
    assert complaint.startswith("tacit data: ") and complaint.count("\n") == 1 and why in complaint
    assert not (tmp_path / "out").exists() and not (tmp_path / "a" / "b").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["import", "a", "out", "--fps", "0"], 2),
        (["import", "a", "out", "--fps", "abc"], 2),
        (["import", "a", "out", "--longest", "0"], 2),
        (["import", "a", "out", "--workers", "0"], 2),
        (["curate", "chance", "a", "out", "--share", "0"], 2),
        (["split", "a", "--held", "1.5"], 2),
        (["check", "a", "--horizn", "1"], 3),
    ],
)
def test_a_number_out_of_bounds_is_told_without_the_talk_of_a_parser(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", *words]) == code
    complaint = capsys.readouterr().err
    assert "NoneType" not in complaint and ("wanted a" in complaint or code == 3)


def test_an_import_says_what_it_chose_what_that_costs_and_why_files_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for k, (fps, shape) in enumerate(
        ((10, (48, 64)), (15, (64, 48)), (Fraction(30000, 1001), (60, 60)), (30, (96, 128)))
    ):
        filmed(Path("my films", f"v{k}.mp4"), k, fps=fps, shape=shape)
    Path("my films", "x.mp4").write_text("not a video " * 50)
    assert main(["data", "import", "my films", "my data"]) == 0
    said = capsys.readouterr().out
    assert "at 10 a second, 128 wide 96 high (4 rates, 4 sizes were mixed; choose with --fps, --size)" in said
    assert "2 of another shape lose 25 to 44 % of their picture (--size 96 128 --fit pad keeps all)" in said
    assert "Next: tacit data check 'my data'" in said and "x.mp4: cannot be opened" in said
    assert main(["data", "import", "my films", "fast", "--fps", "30", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 episodes" in said and "2 slower than 30 a second: 10, 15; a lower --fps keeps such" in said
    assert "Nothing was decoded" in said and said.index("x.mp4") < said.index("slower")


def test_a_second_split_says_that_nothing_was_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.save(labelled().select([0, 1, 2]), tmp_path / "a")
    for word in ("all were assigned before", "asked for"):
        assert main(["data", "split", str(tmp_path / "a"), *([] if "all" in word else ["--again"])]) == 0
        assert word in capsys.readouterr().out


def test_training_reads_a_part_and_streams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.save(labelled(), tmp_path / "a")
    words = ["train", "tacit", "--data", tmp_path / "a", "--plan.steps", "2", "--plan.batch", "4", "--size", "16"]
    assert told(capsys, *words, "--out", tmp_path / "p", "--part", "valid")["episodes"] == 1
    assert told(capsys, *words, "--out", tmp_path / "s", "--stream")["episodes"] == 5
    assert not list((tmp_path / "a").rglob("frames.npy")) or len(list((tmp_path / "a").rglob("frames.npy"))) == 1


def test_names_of_files_are_text_whatever_they_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k, name in enumerate(("[b]a.mp4", "<img src=x>.mp4", "bad\udcff.mp4", "ünï 名.mp4")):
        filmed(tmp_path / "plain.mp4", k, fps=10, shape=(48, 64))
        (tmp_path / "v").mkdir(exist_ok=True)
        (tmp_path / "plain.mp4").rename(tmp_path / "v" / name)
    (tmp_path / "v" / "[b]broken.mp4").write_text("no")
    assert main(["data", "import", str(tmp_path / "v"), str(tmp_path / "out")]) == 0
    assert "[b]broken.mp4" in capsys.readouterr().out
    for verb, name in (("check", "c.html"), ("view", "v.html")):
        assert main(["data", verb, str(tmp_path / "out"), "--page", str(tmp_path / name)]) < 2
        page = (tmp_path / name).read_text(encoding="utf-8")
        assert "ünï 名.mp4" in page and "bad\\udcff.mp4" in page and "<img src=x>" not in page


def test_what_is_not_brought_along_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.save(labelled(), tmp_path / "a")
    file = tmp_path / "a" / "meta" / "info.json"
    info = json.loads(file.read_text())
    info["features"] |= {"next.done": {"dtype": "bool", "shape": [1]}}
    file.write_text(json.dumps(info))
    assert told(capsys, "data", "import", tmp_path / "a", tmp_path / "out")["columns_left"] == ["next.done"]
