"""The pages keep their word: links, commands and numbers; and the checker that holds them to it is itself checked."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tacit_docs_check", ROOT / "docs" / "check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


check = load()
HELD = {
    "summary": [
        {"method": "tacit", "labels": 16, "success": {"mean": 0.8312, "interval": [0.7, 0.9]}},
        {"method": "bc", "labels": 16, "success": {"mean": 0.1, "interval": [0.0, 0.2]}},
    ],
    "frames": 20000,
    "drop": -0.25,
    "passed": True,
    "name": "tacit",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with one file of results."""
    (tmp_path / "results").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "results" / "demo.json").write_text(json.dumps(HELD))
    (tmp_path / "Makefile").write_text("demo: x\n\ttrue\ndocs-check:\n\ttrue\n")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", check.pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_links_somewhere_and_prints_what_was_measured(page: Path) -> None:
    assert check.still(page) == []


@pytest.mark.parametrize(("name", "held"), check.results(), ids=lambda value: value if isinstance(value, str) else "")
def test_result_says_what_it_claims_and_how_it_was_made(name: str, held: dict[str, Any]) -> None:
    assert not check.incomplete(held)
    assert Path(ROOT / name).with_suffix(".png").exists() or Path(ROOT / name).with_suffix(".svg").exists()


RECIPES = sorted((ROOT / "tacit" / "recipes").glob("[!_]*.py"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_card_prints_what_was_measured(recipe: Path) -> None:
    functions = [node for node in ast.parse(recipe.read_text()).body if isinstance(node, ast.FunctionDef)]
    docstring = next((ast.get_docstring(f) or "" for f in functions if f.name == recipe.stem), "")
    assert list(check.carded(" ".join(docstring.partition("Ours:")[2].split()))) == []


MEAN = "<!-- results/demo.json: summary[method=tacit,labels=16].success.mean -->"


@pytest.mark.parametrize(
    "text",
    [
        f"It succeeds {MEAN}0.83 of the time.",
        f"| tacit | {MEAN} 0.8 | {MEAN}**83.1 %** |",
        f"{MEAN}83%",
        "<!-- results/demo.json: frames -->20,000 frames",
        "<!-- results/demo.json:drop -->\u22120.25 and <!--results/demo.json: summary[1].success.interval[1]-->0.2",
        f"no mark, any number: 0.99\n```markdown\n{MEAN}0.99\n```",
    ],
)
def test_a_right_number_passes(home: Path, text: str) -> None:
    assert list(check.marked(text)) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{MEAN}0.84", "says 0.84"),
        (f"{MEAN}0.8311", "holds 0.8312"),
        (f"{MEAN}0.83 %", "holds 83.12 %"),
        (f"{MEAN} of the time", "no number after it"),
        ("<!-- results/none.json: mean -->0.1", "does not exist"),
        ("<!-- results/demo.json: sumary -->0.1", "'sumary' is not there"),
        ("<!-- results/demo.json: summary[labels=16].success.mean -->0.1", "fits 2 rows"),
        ("<!-- results/demo.json: summary[9].success.mean -->0.1", "the list has 2"),
        ("<!-- results/demo.json: frames[0] -->0.1", "wants a list"),
        ("<!-- results/demo.json: passed -->1", "no number"),
        ("<!-- results/demo.json: name -->1", "no number"),
    ],
)
def test_a_wrong_number_is_caught_and_named(home: Path, text: str, why: str) -> None:
    [(line, fault)] = check.marked(f"first line\n{text}")
    assert line == 2
    assert why in fault


def test_a_card_names_the_file_of_each_of_its_numbers(home: Path) -> None:
    source = "(results/demo.json: summary[0].success.mean)"
    assert list(check.carded(f"0.83 of the expert at 16 labels {source}; not measured on Atari.")) == []
    assert list(check.carded("not measured.")) == []
    assert "names no file" in next(check.carded("0.83 of the expert."))
    assert "says 0.9" in next(check.carded(f"0.9 of the expert {source}"))
    assert "no number" in next(check.carded(f"well {source}"))


def test_a_dead_link_is_caught(home: Path) -> None:
    (home / "docs" / "tour.md").write_text("x")
    page = "[tour](docs/tour.md#top) [site](https://example.org) [here](#top)\n![gone](docs/gone.png)"
    assert list(check.links(page, home)) == [(2, "docs/gone.png is not there.")]


def test_blocks_are_read_with_their_words_and_lines() -> None:
    page = "a\n```bash run\necho 1\n```\n\n- item\n\n  ```python\n  x = 1\n  ```\n```\nplain\n```\n"
    found = [(b.language, b.word, b.text, b.line) for b in check.blocks(page)]
    assert found == [("bash", "run", "echo 1", 3), ("python", "", "x = 1", 9), ("", "", "plain", 12)]


def write(home: Path, text: str) -> Path:
    page = home / "docs" / "page.md"
    page.write_text(text)
    return page


def test_bash_blocks_share_an_empty_folder_and_run_in_order(home: Path) -> None:
    page = write(home, '```bash run\n[ -z "$(ls)" ]; echo 1 > a\n```\n```bash run\n[ $(cat a) = 1 ]\n```\n')
    assert [fault for _, fault, _ in check.run(page)] == ["", ""]
    assert not (home / "a").exists()


def test_a_failing_command_in_the_middle_is_caught(home: Path) -> None:
    [(line, fault, _)] = check.run(write(home, "text\n```bash run\necho before\nfalse | cat\necho after\n```\n"))
    assert line == 3
    assert "exit code 1" in fault
    assert "before" in fault and "after" not in fault


def test_an_endless_command_is_ended(home: Path) -> None:
    [(_, fault, seconds)] = check.run(write(home, "```bash run\nsleep 60\n```\n"), limit=0.5)
    assert "still ran" in fault
    assert seconds < 30


def test_a_block_that_is_only_shown_is_not_run(home: Path) -> None:
    page = write(home, "```bash\nfalse\n```\n```python no-run\nraise SystemExit(1)\n```\n")
    assert list(check.run(page)) == []


def test_python_blocks_are_one_program(home: Path) -> None:
    right = "```python\nx = 2\n```\ntext\n```python\n>>> x + 1\n3\n```\n```python\nassert x == 2\n```\n"
    assert [fault for _, fault, _ in check.run(write(home, right))] == [""]
    [(_, fault, _)] = check.run(write(home, right.replace("\n3\n", "\n4\n")))
    assert "Expected" in fault
    [(_, fault, _)] = check.run(write(home, right.replace("x == 2", "x == 3")))
    assert "line 10" in fault and "AssertionError" in fault  # the page's own line


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ("```bash\nmake dmeo\n```", "there is no `make dmeo`"),
        ("```bash\ncd x && make demo clena  # why\n```", "there is no `make clena`"),
        ("```bash\ntacit trian lapo\n```", "`tacit trian lapo` is no command"),
        ("```bash\ntacit train lapo \\\n  --coeds 3\n```", "takes no --coeds"),
        ("```bash\necho 'open\n```", "does not parse"),
        ("```bash runn\nls\n```", "wanted ```bash"),
        ("```python norun\nx\n```", "wanted ```python"),
        ("```python no-run\nx = (\n```", "does not parse"),
    ],
)
def test_a_shown_block_that_could_not_run_is_caught(
    home: Path, block: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "taught", told)
    [(line, fault)] = check.shown(block)
    assert line in (2, 3)
    assert why in fault


def test_a_shown_block_that_could_run_passes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "taught", told)
    page = "```bash\n$ SEEDS=5 make demo ARGS='--fresh x'\ntacit train lapo --codes 3 | tee log  # a try\n"
    page += "tacit train RECIPE --data D --out O\npip install tacit\n```\n```console\nmake nothing\n```"
    assert list(check.shown(page)) == []


def told(words: tuple[str, ...]) -> tuple[int, str]:
    known = {("train",): "{lapo,tacit}", ("train", "lapo"): "--codes INT --data PATH"}
    return (0, known[words]) if words in known else (2, f"no {words}")


def test_results_are_told_failed_first(home: Path) -> None:
    (home / "results" / "a.json").write_text(json.dumps({"claim": "a", "passed": True}))
    (home / "results" / "z.json").write_text(json.dumps({"claim": "z", "passed": False}))
    assert [name for name, _ in check.results()] == ["results/z.json", "results/a.json", "results/demo.json"]
    assert "claim" not in check.incomplete({"claim": "a"}) and "command" in check.incomplete({"claim": "a"})
    assert check.table().row_count == 3


def test_make_targets_are_read_from_the_makefile() -> None:
    wanted = {"demo", "test", "bench", "lint", "docs-check", "results", "procgen"}
    assert wanted <= check.targets()
    assert wanted <= set(re.findall(r"make ([\w-]+)", (ROOT / "Makefile").read_text()))  # `make` alone lists them
