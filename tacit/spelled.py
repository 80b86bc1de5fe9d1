"""Parts that are spelled out where a folder would do as well: ``Nested(FSQ((5, 5, 5), groups=8), slots=8)``."""

from __future__ import annotations

import ast
import inspect
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from tacit import info as here
from tacit.info import Told
from tacit.latents.forward import Onward
from tacit.latents.signals import Signal
from tacit.part import Part, ours
from tacit.parts.quantize import Bottleneck

PACKAGES = ("parts", "latents")  # what a method is made of; policies and worlds are trained first
LIKE = 'such as "FSQ((5, 5, 5), groups=8)"; `tacit parts` lists them'


def given(value: Any, *, kind: type[Part], inside: str) -> Any:
    """What a knob is to hold: a part that is spelled, or that a folder holds as its ``inside``; of several, all."""
    if isinstance(value, list | tuple):
        return tuple(given(one, kind=kind, inside=inside) for one in value)
    text = str(value)
    if os.path.exists(text) or not (word := re.match(r"[\s\['\"]*(\w+)", text)):
        return here.model(value, kind=kind, inside=inside)
    if not re.fullmatch(r"\s*\w+\s*\(.*\)\s*", text, re.DOTALL):
        if "(" not in text and word[1] not in known():
            return here.model(value, kind=kind, inside=inside)
        raise ValueError(f"--{inside} was given {text!r:.200}; wanted one part, its brackets closed, {LIKE}.")
    part = spelled(text)
    if not isinstance(part, kind):
        raise ValueError(
            f"--{inside} was given {text:.200}; wanted of kind {kind.__name__}, as `tacit parts` lists them."
        )
    return part


def spelled(text: str) -> Part:
    """The part that ``text`` spells: tacit's own classes, given numbers, words and parts. Nothing else is called."""
    try:
        part = _made(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r:.200} spells no part; wanted one {LIKE}.") from error
    if not isinstance(part, Part):
        raise ValueError(f"{text!r:.200} spells no part; wanted one {LIKE}.")
    return part


def _made(node: ast.expr) -> Any:
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_made(one) for one in node.elts)
    if not isinstance(node, ast.Call):
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError) as error:
            what = f"{ast.unparse(node)!r:.200} was given to a part"
            raise ValueError(f"{what}; it may hold numbers, words in quotation marks, and parts.") from error
    name, classes = ast.unparse(node.func), known()
    if name not in classes:
        raise here.Unknown.of("part", name, known=classes)
    cls = classes[name]
    listed, named = [_made(one) for one in node.args], {word.arg or "**": _made(word.value) for word in node.keywords}
    try:
        return cls(*listed, **named)
    except (TypeError, AttributeError, RuntimeError, OverflowError) as error:  # too few, unknown, of another kind
        raise ValueError(f"{ast.unparse(node):.200}: {error}; wanted {written(cls)}.") from error


@cache
def known() -> dict[str, type[Part]]:
    """Everything that a method can be made of, by name; a ground that others stand on is none."""
    modules = [f"tacit.{p}.{path.stem}" for p in PACKAGES for path in sorted((Path(__file__).parent / p).glob("*.py"))]
    found = [(module, name, value) for module in modules for name, value in ours(module, "__dict__").items()]
    classes = {
        name: value
        for module, name, value in found
        if isinstance(value, type) and issubclass(value, Part) and value.__module__ == module and name[0] != "_"
    }
    return {name: cls for name, cls in classes.items() if not any(cls in c.__bases__ for c in classes.values())}


def written(cls: type[Part]) -> str:
    """How a part is asked for."""
    signature = inspect.signature(cls)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return cls.__name__ + str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def parts() -> Told:
    """List the parts that methods are made of, and how each is spelled where an option wants a PART.

    A folder with a saved one does as well. First come those that options of `tacit train` are named after.

      tacit parts
      tacit train lapo --bottleneck "FSQ((5, 5, 5), groups=8)" --data out/dots --out out/lapo --dry-run
      tacit train laom --signals "Null(0.1)" "Reversal(0.1)" --data out/dots --out out/laom --dry-run
    """
    rows = {
        name: {"spelled": written(cls), "says": (cls.__doc__ or "").partition("\n")[0], "for": _option(cls)}
        for name, cls in sorted(known().items(), key=lambda item: (_option(item[1]) or "~", item[0]))
    }
    table = Table("part", "what it is", "for", box=SIMPLE_HEAD, pad_edge=False)
    for row in rows.values():
        table.add_row(Text(row["spelled"], style="bold"), row["says"].replace("``", ""), row["for"])
    return Told(rows, table)


def _option(cls: type[Part]) -> str:
    """The option that takes such parts; others are for what these hold, and for Python."""
    kinds = {Bottleneck: "--bottleneck", Signal: "--signals", Onward: "--onward"}
    named = {"Sentences": "--language", "Frozen": "--encoder", "Strided": "--encoder", "Keypoints": "--encoder"}
    return next((option for kind, option in kinds.items() if issubclass(cls, kind)), named.get(cls.__name__, ""))
