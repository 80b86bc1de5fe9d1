"""The order of the layers: every import is read, wherever it stands, and an upward one fails."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "tacit").rglob("*.py"))

# What each layer may use, lowest first. A new module of the top level finds its place here before it finds users.
GROUND = {"clip", "part", "state", "spread", "parts"}
SIBLINGS = {"latents", "worlds", "policies"}
BELOW = GROUND | {"data", "envs"}
USES: dict[str, set[str]] = {
    "clip": set(),
    "spread": set(),
    "part": {"clip"},
    "state": {"clip", "part"},
    "train": {"clip", "part", "state", "spread"},  # beside part: the loop knows clips and parts, and nothing else
    "parts": {"clip", "part", "spread"},
    "envs": GROUND,
    "data": GROUND | {"envs"},  # collecting runs simulators; a simulator knows nothing of episodes
    "latents": BELOW,
    "worlds": BELOW,
    "policies": BELOW,
    "improve": BELOW | SIBLINGS,
    "evaluate": BELOW | SIBLINGS,
    "serve": BELOW | SIBLINGS,
    "check": BELOW | SIBLINGS | {"evaluate"},
    "recipes": BELOW | SIBLINGS | {"train", "improve", "evaluate", "serve"},
}
USES["watch"] = {"clip", "part", "spread", "state", "train"}
USES["info"] = {*USES}
USES["spelled"] = {"part", "parts", "latents", "info"}
USES["rehearsal"] = {*USES}
USES["hints"] = {*USES}
USES["demo"] = {*USES, "demo"}
USES["cell"] = {*USES} - {"demo"}
USES["comparison"] = {*USES} - {"demo"}
USES["commands"] = {*USES, "commands"}
USES["training"] = {*USES, "training"}
USES["seen"] = {*USES}
USES["checking"] = {*USES, "checking"}
USES["comparing"] = {*USES, "comparing"}
USES["curation"] = {*USES, "curation"}
USES["datasets"] = {*USES, "datasets"}
USES["cli"] = {*USES, "cli", ""}
USES["__main__"] = {"cli"}
USES[""] = {"clip", "part", "train"}  # tacit/__init__.py: what it imports, everybody imports

# The three siblings are used through their contracts: the package itself, or the file that holds the contract.
CONTRACTS = {"latents": "model", "worlds": "world", "policies": "policy"}
THROUGH = {"improve", "evaluate", "serve", "check"}

# What a bare `pip install tacit` brings. Everything else is an extra, and is imported where it is used.
BROUGHT = {"torch", "numpy", "safetensors", "pyarrow", "av", "PIL", "tyro", "rich", "matplotlib", "gymnasium"}
UNWANTED = {
    "torchvision",
    "timm",
    "lightning",
    "pytorch_lightning",
    "hydra",
    "omegaconf",
    "draccus",
    "gradio",
    "decord",
}


@dataclass(frozen=True)
class Import:
    """One imported module: from where, in full; and whether it runs when the importing file is loaded."""

    line: int
    module: str
    eager: bool
    typing: bool


def module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def layer(name: str) -> str:
    return [*name.split("."), ""][1]


def imports(path: str, text: str, known: set[str]) -> Iterator[Import]:
    """Every import of one file. `from tacit.parts import conv` names `tacit.parts.conv` where that is a module."""
    package = module(path) if path.endswith("__init__.py") else module(path).rpartition(".")[0]

    def walk(node: ast.AST, eager: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(child.lineno, alias.name, eager, typing) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                home = child.module or ""
                if child.level:
                    above = package.split(".")[: len(package.split(".")) - child.level + 1]
                    home = ".".join([*above, *filter(None, [home])])
                for alias in child.names:
                    inner = f"{home}.{alias.name}"
                    # `from tacit import x` is judged by x, even before tacit/x.py is written
                    named = inner in known or (home == "tacit" and alias.name in USES)
                    yield Import(child.lineno, inner if named else home, eager, typing)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                only_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from walk(child, eager and not function and not only_types, typing or only_types)

    return walk(ast.parse(text), eager=True, typing=False)


def faults(path: str, text: str, known: set[str]) -> Iterator[str]:
    here, name = layer(module(path)), module(path)
    if here not in USES:
        yield f"{path}: tacit.{here} has no place among the layers; give it one in USES."
        return
    for item in imports(path, text, known):
        first, there, where = item.module.split(".")[0], layer(item.module), f"{path}:{item.line}"
        if first != "tacit":
            standard = first in sys.stdlib_module_names or first == "__future__"
            if first in UNWANTED:
                yield f"{where}: {first} is not for tacit, whose core stays light."
            elif item.eager and not standard and first not in BROUGHT:
                yield f"{where}: {first} is an extra; import it inside the function or constructor that needs it."
        elif there != here and there not in USES[here]:
            yield f"{where}: {name} imports {item.module}; {here or 'tacit'} may use {sorted(USES[here]) or 'nothing'}."
        elif here in THROUGH and there in CONTRACTS:
            allowed = {f"tacit.{there}", f"tacit.{there}.{CONTRACTS[there]}"}
            if item.module not in allowed:
                yield f"{where}: {name} reaches into {item.module}; use {' or '.join(sorted(allowed))}."


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of modules, if there is any."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, set())):
            found = visit(other, [*trail, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := visit(name, []))), [])


SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
KNOWN = {module(path) for path in SOURCES}


def test_no_layer_imports_a_higher_one() -> None:
    found = [fault for path, text in SOURCES.items() for fault in faults(path, text, KNOWN)]
    assert not found, "\n" + "\n".join(found)


def test_no_modules_import_each_other_in_a_circle() -> None:
    # An import inside a function counts: it hides a circle, it does not undo one. An import for types only does not.
    graph = {
        module(path): {item.module for item in imports(path, text, KNOWN) if not item.typing} & KNOWN - {module(path)}
        for path, text in SOURCES.items()
    }
    assert not circle(graph), " -> ".join(circle(graph))


BAD = {
    "clip above itself": ("tacit/clip.py", "from tacit.part import Part"),
    "parts on data": ("tacit/parts/conv.py", "import tacit.data.clips"),
    "parts on the loop": ("tacit/parts/conv.py", "from tacit.train import fit"),
    "the loop on data": ("tacit/train.py", "from tacit.data import Episodes"),
    "the loop on parts": ("tacit/train.py", "from tacit.parts.slow import Slow"),
    "a simulator on data": ("tacit/envs/dots.py", "from tacit.data.toys import dots"),
    "a sibling": ("tacit/worlds/tokens.py", "from tacit.latents.model import LatentActions"),
    "a sibling inside a function": ("tacit/policies/codes.py", "def f():\n    from tacit.worlds.world import World"),
    "a sibling for types": ("tacit/policies/codes.py", "if TYPE_CHECKING:\n    from tacit.worlds.world import World"),
    "a relative sibling": ("tacit/latents/model.py", "from ..worlds.world import World"),
    "a relative sibling in a package": ("tacit/latents/__init__.py", "from ..worlds import World"),
    "a sibling from the root": ("tacit/latents/model.py", "from tacit import worlds"),
    "the root itself": ("tacit/latents/model.py", "import tacit"),
    "the loop under recipes": ("tacit/evaluate/probe.py", "from tacit.train import fit"),
    "evaluate beside improve": ("tacit/improve/plan.py", "from tacit.evaluate.report import Report"),
    "past a contract": ("tacit/evaluate/codes.py", "from tacit.latents.inverse import Pair"),
    "a recipe on the cli": ("tacit/recipes/lapo.py", "from tacit.cli import main"),
    "the checks in the library": ("tacit/latents/model.py", "from tacit.check import check_latents"),
    "everything in the root": ("tacit/__init__.py", "from tacit.recipes.lapo import lapo"),
    "no place": ("tacit/extra.py", "import os"),
    "an eager extra": ("tacit/envs/atari.py", "import ale_py"),
    "an eager extra in a class": ("tacit/envs/atari.py", "class A:\n    import ale_py"),
    "an unwanted package": ("tacit/parts/conv.py", "def f():\n    import torchvision"),
}
GOOD = {
    "down": ("tacit/latents/model.py", "from tacit.clip import Clip\nfrom tacit.parts import conv"),
    "inside the layer": ("tacit/latents/model.py", "from tacit.latents.inverse import Pair\nfrom . import label"),
    "collecting": ("tacit/data/collect.py", "from tacit.envs.simulator import Simulator"),
    "through a contract": ("tacit/evaluate/probe.py", "from tacit.latents.model import LatentActions"),
    "a recipe": ("tacit/recipes/lapo.py", "from tacit.train import Plan, fit\nfrom tacit.latents.inverse import Pair"),
    "the cli": ("tacit/cli.py", "from tacit import __version__, check\nfrom tacit.recipes.lapo import lapo"),
    "a lazy extra": ("tacit/envs/atari.py", "def f():\n    import ale_py"),
    "an extra for types": ("tacit/envs/atari.py", "if TYPE_CHECKING:\n    import ale_py"),
    "what is brought": ("tacit/data/video.py", "import av, os\nimport numpy as np\nfrom PIL import Image"),
}


@pytest.mark.parametrize(("path", "text"), BAD.values(), ids=BAD)
def test_an_upward_import_is_caught(path: str, text: str) -> None:
    assert list(faults(path, text, KNOWN))


@pytest.mark.parametrize(("path", "text"), GOOD.values(), ids=GOOD)
def test_a_downward_import_passes(path: str, text: str) -> None:
    assert list(faults(path, text, KNOWN)) == []


def test_a_circle_is_found_at_any_length() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_layers_themselves_have_no_circle() -> None:
    inner = {name: below - {name} for name, below in USES.items()}
    assert not circle(inner), "USES lets two layers use each other"


def test_what_is_brought_is_what_the_package_asks_for() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {line.split(">")[0].replace("pillow", "PIL") for line in project["dependencies"]}
    assert asked == BROUGHT
