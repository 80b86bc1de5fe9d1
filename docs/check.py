"""Holds the pages to their word: commands run, links lead somewhere, and numbers are the ones that were measured.

In README.md and docs/*.md

    ```bash run          runs, in an empty folder that the page's blocks share; anything but exit code 0 is a fault
    ```bash              is shown, not run: its `make` targets and its `tacit` commands and options must exist
    ```python            runs, each page's blocks as one program; `>>>` blocks must also print what they show
    ```python no-run     is shown: it must parse

    It succeeds <!-- results/demo.json: summary[method=tacit,labels=16].mean -->0.80 of the time.

The comment before a number names a value in a file of results/: names and places parted by dots, and in brackets which
of a list. The number must be that value as it is printed (0.80 may stand for 0.8043; 80 % likewise). In the card of a
recipe the same reads `Ours: 0.83 of the expert (results/demo.json: summary.mean); ...`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import doctest
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tacit import cli as tacit

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 300  # seconds a block may take
WORKERS = min(4, os.cpu_count() or 1)  # pages that run at once, with one thread each
NUMBER = r"[-+\u2212]?\d[\d,]*(?:\.\d+)?(?:\s?%)?"
WHERE = r"(results/[\w./-]+\.json):\s*([^()<>]+?)"
MARK = re.compile(rf"<!--\s*{WHERE}\s*-->\s*[*_`]*({NUMBER})?")
CARD = re.compile(rf"\(\s*{WHERE}\s*\)")
FIELDS = {
    "claim",
    "command",
    "value",
    "interval",
    "n",
    "seeds",
    "bar",
    "passed",
    "rows",
    "versions",
    "commit",
    "machine",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, the word after it, its text, and the line the text begins on."""

    language: str
    word: str
    text: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    lines, number = page.splitlines(), 0
    while number < len(lines):
        fence = re.match(r"^\s*(`{3,}|~{3,})\s*(\w*)[ \t]*(.*)$", lines[number])
        number += 1
        if not fence:
            continue
        start, indent = number, len(lines[number - 1]) - len(lines[number - 1].lstrip())
        while number < len(lines) and not re.match(rf"^\s*{fence[1]}`*~*\s*$", lines[number]):
            number += 1
        text = "\n".join(line[indent:] if not line[:indent].strip() else line for line in lines[start:number])
        yield Block(fence[2], fence[3].strip(), text, start + 1)
        number += 1


# Numbers


def value(name: str, path: str) -> Any:
    """What a file of results/ holds at ``path``: `rows[3].success`, `summary[method=tacit,labels=16].mean`."""
    file = ROOT / name
    if not file.is_file():
        raise LookupError(f"{name} does not exist.")
    found = json.loads(file.read_text(encoding="utf-8"))
    for name_, choice in re.findall(r"([^.\[\]]+)|\[([^\]]*)\]", path.strip()):
        found = chosen(found, choice) if choice else named(found, name_)
    return found


def named(found: Any, name: str) -> Any:
    if not isinstance(found, dict) or name not in found:
        held = sorted(found) if isinstance(found, dict) else f"a {type(found).__name__}"
        raise LookupError(f"{name!r} is not there; there is {held}.")
    return found[name]


def chosen(found: Any, choice: str) -> Any:
    if not isinstance(found, list):
        raise LookupError(f"[{choice}] wants a list; there is a {type(found).__name__}.")
    if choice.lstrip("-").isdigit():
        if not -len(found) <= int(choice) < len(found):
            raise LookupError(f"[{choice}] is not there; the list has {len(found)}.")
        return found[int(choice)]
    wanted = dict(part.strip().split("=", 1) for part in choice.split(","))
    fitting = [row for row in found if all(str(row.get(key)) == text for key, text in wanted.items())]
    if len(fitting) != 1:
        raise LookupError(f"[{choice}] fits {len(fitting)} rows; it must fit one.")
    return fitting[0]


def mismatch(printed: str, name: str, path: str) -> str:
    """Why ``printed`` is not what was measured, or nothing."""
    try:
        measured = value(name, path)
    except (LookupError, ValueError) as error:
        return f"{name}: {path}: {error}"
    if isinstance(measured, bool) or not isinstance(measured, int | float):
        return f"{name}: {path} holds {str(measured)[:60]!r}, which is no number."
    digits = printed.replace(",", "").replace("\u2212", "-").rstrip("% \u00a0")
    scale = 100 if printed.endswith("%") else 1
    unit = 10.0 ** -len(digits.partition(".")[2])
    if abs(measured * scale - float(digits)) <= unit / 2 + 1e-9:
        return ""
    return f"says {printed}, but {name}: {path} holds {measured * scale:.6g}{' %' if scale == 100 else ''}."


def marked(page: str) -> Iterator[tuple[int, str]]:
    """Every marked number of a page that is not what was measured. Marks inside fenced blocks are examples."""
    prose = page.splitlines()
    for block in blocks(page):
        for line in range(block.line - 1, block.line - 1 + len(block.text.splitlines())):
            prose[line] = ""
    text = "\n".join(prose)
    for found in MARK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        name, path, printed = found.groups()
        fault = mismatch(printed, name, path) if printed else f"the mark of {name} has no number after it."
        if fault:
            yield line, fault


def carded(ours: str) -> Iterator[str]:
    """Every number on a recipe's card, under `Ours:`, that no file of results/ bears out."""
    for claim in ours.split(";"):
        number, source = re.search(NUMBER, CARD.sub("", claim)), CARD.search(claim)
        if number and not source:
            yield f"{claim.strip()!r} names no file: write `(results/NAME.json: path)` after it."
        elif source and not number:
            yield f"{claim.strip()!r} names a file but no number."
        elif source and number and (fault := mismatch(number[0], source[1], source[2])):
            yield fault


# Links and commands


def links(page: str, home: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(page.splitlines(), 1):
        for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", line):
            path = (target[0] or target[1]).partition("#")[0]
            if path and "://" not in path and not path.startswith("mailto:") and not (home / path).exists():
                yield number, f"{path} is not there."


def commands(text: str) -> Iterator[list[str]]:
    """The single commands of a shell block, as words."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars="&|;<>()")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("&|;"):
                yield words
                words = []
            else:
                words.append(word)
        yield words


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@cache
def taught(words: tuple[str, ...]) -> tuple[int, str]:
    """What `tacit WORDS --help` answers: asked in this process, where torch is imported once for all of them."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = tacit.main([*words, "--help"])
    return code, said.getvalue()


def unknown(words: list[str]) -> Iterator[str]:
    """What a shown command asks for that is not there. Words in capitals stand for whatever the reader puts there."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[:1] == ["make"]:
        asked = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        yield from (f"there is no `make {name}`." for name in asked if name not in targets())
    elif words[:1] == ["tacit"]:
        path: list[str] = []
        for word in words[1:]:
            if word.startswith("-") or word.isupper():
                break
            path.append(word)
        code, text = taught(tuple(path))
        if code:
            yield f"`tacit {' '.join(path)}` is no command: {' '.join(text.split())[:200]}"
        elif not any(word.isupper() for word in words[1 : len(path) + 2]):
            options = [word.partition("=")[0] for word in words if word.startswith("--")]
            yield from (f"`tacit {' '.join(path)}` takes no {name}." for name in options if name not in text)


def shown(page: str) -> Iterator[tuple[int, str]]:
    """Every block that is shown, not run: what in it could not be run."""
    for block in blocks(page):
        try:
            if block.language == "bash" and block.word == "":
                yield from ((block.line, fault) for words in commands(block.text) for fault in unknown(words))
            elif block.language == "bash" and block.word != "run":
                yield block.line, f"```bash {block.word}: wanted ```bash or ```bash run."
            elif block.language == "python" and block.word == "no-run":
                ast.parse(block.text)
            elif block.language == "python" and block.word:
                yield block.line, f"```python {block.word}: wanted ```python or ```python no-run."
        except (SyntaxError, ValueError) as error:
            yield block.line, f"does not parse: {error}"


# Running


def surroundings() -> dict[str, str]:
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    quiet = {"PATH": here, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "MPLBACKEND": "Agg", "COLUMNS": "200"}
    return {**os.environ, "OMP_NUM_THREADS": "1", **quiet}


def program(page: Path) -> None:
    """Run the Python blocks of one page in this process, one after another, each seeing what the last one left."""
    space: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language != "python" or block.word:
            continue
        if ">>>" in block.text:
            test = doctest.DocTestParser().get_doctest(block.text, space, page.name, str(page), block.line - 1)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            runner.run(test, clear_globs=False)
            space.update(test.globs)
            if runner.failures:
                raise SystemExit(1)
        else:
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), space)


def run(page: Path, limit: float = LIMIT) -> Iterator[tuple[int, str, float]]:
    """Run a page's blocks in an empty folder; yields for each its line, its fault or nothing, and its seconds."""
    found = list(blocks(page.read_text(encoding="utf-8")))
    jobs = [
        (b.line, ["bash", "-euo", "pipefail", "-c", b.text]) for b in found if (b.language, b.word) == ("bash", "run")
    ]
    python = [b.line for b in found if (b.language, b.word) == ("python", "")]
    if python:
        jobs.append((python[0], [sys.executable, str(Path(__file__).resolve()), "--program", str(page.resolve())]))
    with tempfile.TemporaryDirectory() as folder:
        for line, command in jobs:
            start = time.monotonic()
            try:
                done = subprocess.run(
                    command, cwd=folder, capture_output=True, text=True, timeout=limit, env=surroundings(), check=False
                )
                last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
                fault = f"exit code {done.returncode}\n{last}" if done.returncode else ""
            except subprocess.TimeoutExpired:
                fault = f"still ran after {limit:.0f} s"
            yield line, fault, time.monotonic() - start


def pages() -> list[Path]:
    return [
        p for p in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))] if p.exists()
    ]


def still(page: Path) -> list[tuple[int, str]]:
    """The faults of a page that can be seen without running it."""
    text = page.read_text(encoding="utf-8")
    return sorted([*marked(text), *links(text, page.parent)])


# Results


def results() -> list[tuple[str, dict[str, Any]]]:
    """Every file of results/, the failed ones first."""
    files = {
        p.relative_to(ROOT).as_posix(): json.loads(p.read_text()) for p in sorted((ROOT / "results").rglob("*.json"))
    }
    return sorted(files.items(), key=lambda item: bool(item[1].get("passed")))


def incomplete(held: dict[str, Any]) -> set[str]:
    return FIELDS - set(held)


def table() -> Table:
    told = Table("", "claim", "value", "95 % interval", "n", "seeds", "bar", "file", title="Every claimed number")
    for name, held in results():
        passed = "[green]passed[/]" if held.get("passed") else "[red]FAILED[/]"
        cells = [short(held.get(field)) for field in ("claim", "value", "interval", "n", "seeds", "bar")]
        told.add_row(passed, *cells, name)
    return told


def short(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:.4g}"
    if isinstance(cell, list | tuple):
        return " to ".join(map(short, cell)) if len(cell) == 2 else ", ".join(map(short, cell))
    if isinstance(cell, dict):
        return ", ".join(f"{key} {short(inner)}" for key, inner in cell.items())
    return "" if cell is None else str(cell)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, help="which pages; all of them if none is named")
    parser.add_argument("--results", action="store_true", help="print every file of results/ as one table")
    parser.add_argument("--program", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.program:
        program(asked.program)
        return 0
    if asked.results:
        Console(width=None if sys.stdout.isatty() else 180).print(table())
        lacking = {name: incomplete(held) for name, held in results() if incomplete(held)}
        for name, fields in lacking.items():
            print(f"{name} lacks {', '.join(sorted(fields))}.")
        return 1 if lacking else 0
    os.environ.update(surroundings())  # the help of commands is asked for in this process
    count, given = 0, asked.pages or pages()
    with ThreadPoolExecutor(WORKERS) as pool:  # a page a core; the blocks of one page build on one another
        for page, ran in zip(given, pool.map(lambda page: list(run(page)), given), strict=True):
            for line, fault in [*still(page), *shown(page.read_text(encoding="utf-8"))]:
                print(f"{page}:{line}: {fault}", flush=True)
                count += 1
            for line, fault, seconds in ran:
                print(f"{page}:{line}: {fault or 'ran'} ({seconds:.1f} s)", flush=True)
                count += bool(fault)
    print(f"{count} faults" if count else "the pages keep their word")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
